"""Stage 6 of 6: evaluate a model at the images' own size, in one pass over the validation set.

reads   the best model of a finished stage (method=base|basic|eums), or checkpoint=FILE, the official ones included
writes  <output_dir>/<split>/eval_<method>/{metrics.json, predictions/<id>.png with save_predictions=true}

    python eval.py configs/demo/ncdss.yaml method=eums
    python eval.py configs/ncdss/pascal_subset.yaml split=fold1 checkpoint=eums_f1.pth.tar save_predictions=true
"""

import logging
from pathlib import Path

import cv2
import numpy as np
import torch

from data.io import read_label, write_array, write_label
from data.label_map import IGNORE
from data.views import Views
from finetune_novel import finetune_stage
from models.deeplab import build_model
from models.official import load_weights, read_weights
from utils import dist
from utils.checkpoint import read_json
from utils.config import load_config
from utils.errors import EXIT_EXPECTATION_MISSED, UserError
from utils.evaluation import discovery_metrics, predict
from utils.metrics import confusion_matrix, summarize
from utils.reports import print_metrics
from utils.run import Run, entry, require_stage, start_run

log = logging.getLogger("ncd")


def evaluate(model: torch.nn.Module, views: Views, num_outputs: int, run: Run) -> dict:
    """Metrics at image size; clusters are matched at network resolution, in the same pass."""
    cfg, split = run.cfg, views.split
    is_base = num_outputs == views.num_known
    ids = views.lists.base_val if is_base else views.lists.val
    label_map = split.base_map() if is_base else split.full_map()
    dataset = views.labelled(ids, label_map, folder=cfg.evaluation.label_folder)
    num_true = num_outputs if is_base else views.num_known + split.num_novel
    coarse, fine = (torch.zeros(num_true, num_outputs, dtype=torch.int64, device=run.device) for _ in range(2))
    loader = views.loader(dataset, cfg.evaluation.batch_size, run.device.type == "cuda")
    for batch, output in predict(lambda x: model(model.normalize(x)), model, loader, run, "evaluation"):
        prediction = output.logits.argmax(1)
        coarse += confusion_matrix(prediction, batch["label"].to(run.device), num_outputs, num_true)
        for index, values in zip(batch["index"].tolist(), prediction.to(torch.uint8).cpu().numpy(), strict=True):
            sample = dataset.samples[index]
            truth = label_map(read_label(sample.label), where=str(sample.label))
            resized = cv2.resize(values, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
            fine += confusion_matrix(
                *(torch.from_numpy(a).to(run.device) for a in (resized, truth)), num_outputs, num_true
            )
            if cfg.save_predictions:
                write_label(run.dir / "predictions" / f"{sample.id}.png", resized)
    coarse, fine = dist.sum_(coarse), dist.sum_(fine)
    names, absent = split.names[:num_true], cfg.evaluation.absent
    if is_base:
        metrics = summarize(fine, names, {"base": list(range(1, num_true))}, absent)
    else:
        metrics = discovery_metrics(fine, names, views.num_known, cfg.evaluation.match, absent, match_on=coarse)
    if dist.is_main():
        write_array(run.dir / "confusion.npy", fine.cpu().numpy())
    return metrics | {"protocol": "image size, original classes", "images": len(dataset)}


def restore_classes(views: Views, match: list[list[int]], run: Run) -> None:
    """Turn the outputs in predictions/<id>.png into original class numbers; leftover clusters become 255."""
    table = np.zeros(256, np.uint8)
    table[: views.num_known] = views.split.original_ids[: views.num_known]
    for cluster, novel in match:
        table[views.num_known + cluster] = views.split.original_ids[views.num_known + novel] if novel >= 0 else IGNORE
    for path in sorted((run.dir / "predictions").glob("*.png"))[dist.rank() :: dist.world_size()]:
        write_label(path, table[read_label(path)])


def choose_checkpoint(cfg) -> tuple[str, Path]:
    """(stage to evaluate, its weights)."""
    stage = "base" if cfg.method == "base" else finetune_stage(cfg)
    if cfg.checkpoint:
        return stage, cfg.checkpoint
    made_by = "train_base.py" if cfg.method == "base" else f"finetune_novel.py CONFIG method={cfg.method}"
    return stage, require_stage(cfg, stage, f"{cfg.evaluation.split}.pth", made_by)


def measure(views: Views, path: Path, run: Run) -> None:
    """Evaluate the weights in `path` and finish the stage."""
    cfg = run.cfg
    weights = read_weights(path)
    expected = views.num_known if cfg.method == "base" else views.num_outputs
    if weights.num_classes != expected:
        raise UserError(
            f"{path}: has {weights.num_classes} outputs, but method={cfg.method} with split={cfg.split} and "
            f"cluster.k={cfg.cluster.k} needs {expected}; change method, split or cluster.k to what it was trained with"
        )
    model = build_model(cfg.model.model_copy(update={"init": "random"}), expected)
    load_weights(model, path)
    metrics = evaluate(run.place(model), views, expected, run)
    if cfg.save_predictions:
        dist.barrier()
        restore_classes(views, metrics.get("match", []), run)
    run.finish(metrics | {"checkpoint": str(path)})


def missed(expected: dict[str, float] | None, metrics: dict) -> list[str]:
    """The figures of `expected` that were not reached, within `tol`."""
    wanted = dict(expected or {})
    tolerance = wanted.pop("tol", 0.0)
    unknown = [name for name in wanted if metrics.get(name) is None]
    if unknown:
        raise UserError(
            f"expected.{unknown[0]}: no such figure; metrics.json has {', '.join(k for k in metrics if 'miou' in k)}"
        )
    return [
        f"{name} {metrics[name]:.4f} < {value:.4f}"
        for name, value in wanted.items()
        if metrics[name] < value - tolerance
    ]


def main(argv: list[str] | None = None) -> int:
    cfg = load_config(argv, __doc__)
    views = Views.open(cfg)
    stage, path = choose_checkpoint(cfg)
    with start_run(cfg, f"eval_{stage}", "evaluation cluster save_predictions checkpoint", {"checkpoint": path}) as run:
        if not run.finished:
            measure(views, path, run)
        metrics = read_json(run.dir / "metrics.json")
        if dist.is_main():
            print_metrics(metrics, f"{stage}, {metrics['protocol']}")
        problems = missed(cfg.expected, metrics)
        if problems and dist.is_main():
            print(f"FAIL: {'; '.join(problems)}")
        return EXIT_EXPECTATION_MISSED if problems else 0


if __name__ == "__main__":
    entry(main)
