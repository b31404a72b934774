"""Stage 6 of 6: evaluate a model at the images' own size, in one pass over the validation set.

reads   the best and the last model of a finished stage (method=base|basic|eums), or checkpoint=FILE, ours or one of the
        official code, whose method and number of clusters are read off its weights
writes  <output_dir>/<split>/eval_<method>/{metrics.json, confusion.npy}; with save_predictions=true predictions/*.png
        for a given FILE model.pth, which knows the classes of its outputs (predict.py)

    python eval.py configs/demo/ncdss.yaml method=eums
    python eval.py configs/ncdss/pascal.yaml split=fold1 checkpoint=eums_f1.pth.tar save_predictions=true
    python eval.py configs/ssul/voc.yaml task=15-1 checkpoint=output/ssul_voc/15-1-overlap/ssul/step3/best.pth
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.contrib.concurrent import thread_map

from data.dataset import SegmentationDataset
from data.discovery import Views
from data.incremental import Steps
from data.io import read_label, write_array, write_label
from data.tasks import find_step
from finetune_novel import finetune_stage
from models.deeplab import build_model
from models.incremental import StepWeights, load_incremental
from models.weights import Weights, load_weights, read_weights
from train_incremental import final_metrics
from utils import checkpoint, dist
from utils.config.ncdss import NcdssConfig
from utils.config.reader import load_config
from utils.config.ssul import SsulConfig
from utils.errors import UserError
from utils.measure.evaluation import discovery_metrics, expectation_status, predict
from utils.measure.metrics import MatchingRule, confusion_matrix, summarize
from utils.measure.scoring import image_confusions
from utils.report.tables import print_comparison, print_metrics, print_steps
from utils.run import Run, entry, start_run
from utils.run_folder import require_stage


@dataclass
class Candidate:
    """A network to evaluate and its confusion matrices, int64 [true classes, outputs]."""

    origin: str  # best epoch, last epoch, or given file
    path: Path
    model: nn.Module
    coarse: torch.Tensor  # at network resolution, where clusters are matched
    fine: torch.Tensor  # at image size, where everything is measured


def count(candidates: list[Candidate], dataset: SegmentationDataset, views: Views, run: Run) -> None:
    """Fill the matrices of all candidates in one pass; the first one's outputs go to predictions/ when asked for."""
    num_true, num_outputs = candidates[0].fine.shape
    loader = views.loader(dataset, run.cfg.evaluation.batch_size, run.device.type == "cuda")
    models = nn.ModuleList(candidate.model for candidate in candidates)
    save_to = run.dir / "predictions" if run.cfg.save_predictions else None

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        return [model(model.normalize(images)).logits.argmax(1) for model in models]

    for batch, outputs in predict(forward, models, loader, run, "evaluation"):
        label = batch["label"].to(run.device)
        for candidate, output in zip(candidates, outputs, strict=True):
            candidate.coarse += confusion_matrix(output, label, num_outputs, num_true)
        stacked = torch.stack(outputs, 1).to(torch.uint8).cpu().numpy()  # [B, candidates, S, S]
        found = image_confusions(dataset, batch["index"].tolist(), stacked, num_true, num_outputs, save_to).sum(0)
        for candidate, matrix in zip(candidates, found, strict=True):
            candidate.fine += matrix
    for candidate in candidates:
        candidate.coarse, candidate.fine = (
            dist.sum_(matrix.to(run.device)).cpu() for matrix in (candidate.coarse, candidate.fine)
        )


def evaluate(candidates: list[Candidate], views: Views, run: Run) -> dict[str, Any]:
    """Metrics of the first candidate by `evaluation.match`; under `compared` those of all, by both ways of matching."""
    options, split = run.cfg.evaluation, views.split
    num_true, num_outputs = candidates[0].fine.shape
    is_base = num_outputs == views.num_known
    ids, label_map = (views.lists.base_val, split.base_map()) if is_base else (views.lists.val, split.full_map())
    dataset = views.labelled(ids, label_map, folder=options.label_folder)
    count(candidates, dataset, views, run)

    def measure(candidate: Candidate, rule: MatchingRule) -> dict[str, Any]:
        names, absent = split.names[:num_true], options.absent
        if is_base:
            return summarize(candidate.fine, names, {"base": list(range(1, num_true))}, absent)
        return discovery_metrics(candidate.fine, names, views.num_known, rule, absent, match_on=candidate.coarse)

    rules = dict.fromkeys(["official"] if is_base else [options.match, "official", "one_to_one"])
    compared = []
    for candidate in candidates:
        for rule in rules:
            scores = {key: value for key, value in measure(candidate, rule).items() if key.endswith("miou")}
            compared.append({"model": candidate.origin, "matching": rule, **scores})
    if dist.is_main():
        write_array(run.dir / "confusion.npy", candidates[0].fine.numpy())
    metrics = measure(candidates[0], options.match)
    return metrics | {"compared": compared, "protocol": "image size, original classes", "images": len(dataset)}


def restore_classes(ids: list[int], run: Run) -> None:
    """Turn the outputs in predictions/<id>.png into original class numbers, `ids`; leftover clusters become 255."""
    table = np.zeros(256, np.uint8)
    table[: len(ids)] = ids

    def restore(path: Path) -> None:
        write_label(path, table[read_label(path)])

    paths = sorted((run.dir / "predictions").glob("*.png"))
    thread_map(restore, dist.share(paths), desc="predictions", leave=False, disable=None)


def find_weights(cfg, views: Views) -> tuple[str, dict[str, Path]]:
    """(stage to evaluate, weights files by where they come from)."""
    if cfg.checkpoint:
        return identify(read_weights(cfg.checkpoint), cfg.checkpoint, views), {"given file": cfg.checkpoint}
    stage = "base" if cfg.method == "base" else finetune_stage(cfg)
    made_by = "train_base.py" if cfg.method == "base" else f"finetune_novel.py CONFIG method={cfg.method}"
    first = cfg.evaluation.split
    other = {"best": "last", "last": "best"}[first]
    epochs = (first, other) if cfg.evaluation.compare else (first,)
    return stage, {f"{epoch} epoch": require_stage(cfg, stage, f"{epoch}.pth", made_by) for epoch in epochs}


def identify(weights: Weights, path: Path, views: Views) -> str:
    """Which method a weights file comes from: base, basic or eums; UserError when it cannot be of this split."""
    clusters, known = weights.num_classes - views.num_known, views.num_known
    theirs = weights.extra.get("classes", [])[:known]  # our own files know their classes
    if theirs and [tuple(pair) for pair in theirs] != views.output_classes({}):
        raise UserError(f"{path}: trained on other base classes than split={views.cfg.split} has; give its own split")
    if clusters and clusters < views.split.num_novel:
        raise UserError(
            f"{path}: has {weights.num_classes} outputs, but split={views.cfg.split} of {views.cfg.data.dataset} needs "
            f"{known} (base model) or at least {known} + {views.split.num_novel}; give the split it was trained on"
        )
    if dist.is_main():
        print(f"{path}: {weights.flavour}, {known} known classes and {clusters} clusters")
    return "eums" if "teacher-student" in weights.flavour else "basic" if clusters else "base"


def load_candidates(paths: dict[str, Path], views: Views, run: Run) -> list[Candidate]:
    """The networks; the second one only when it differs from the first."""
    candidates: list[Candidate] = []
    for origin, path in paths.items():
        num_outputs = read_weights(path).num_classes
        model = build_model(run.cfg.model.model_copy(update={"init": "random"}), num_outputs)
        load_weights(model, path)
        num_true = num_outputs if num_outputs == views.num_known else views.num_known + views.split.num_novel
        coarse, fine = (torch.zeros(num_true, num_outputs, dtype=torch.int64) for _ in range(2))
        if not candidates or not _same(candidates[0].model, model):
            candidates.append(Candidate(origin, path, model, coarse.to(run.device), fine))
    for candidate in candidates:
        run.place(candidate.model)
    return candidates


def _same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def evaluate_step(cfg: SsulConfig) -> dict[str, Any]:
    """Metrics of a class-incremental network, ours or an official one of SSUL, MiB or PLOP; its heads tell the step."""
    steps, path, native = Steps.open(cfg), cfg.checkpoint, cfg.evaluation.native
    if not path:
        raise UserError("checkpoint: give the network of a step, e.g. checkpoint=output/.../step5/best.pth")
    if cfg.save_predictions and not native:
        raise UserError("save_predictions=true: for images at their own size only; add evaluation.native=true")
    weights = StepWeights.read(path)
    found = find_step(steps.task, weights.num_classes)
    if not found:
        raise UserError(f"{path}: its heads have {weights.num_classes} outputs, which is no step of task={cfg.task}")
    step, unknown = found
    section = ("evaluation", "ssul", "save_predictions", "checkpoint")
    with start_run(cfg, f"eval_step{step}", section, {"checkpoint": path}) as run:
        if not run.finished:
            model = run.place(load_incremental(cfg.model, weights))
            keep = write_predictions(steps, run) if cfg.save_predictions else None
            options = {"unknown": unknown, "loss": "ce" if weights.linear else cfg.ssul.loss, "native": native}
            metrics = final_metrics(model, steps, step, run, keep=keep, **options)
            classes = steps.output_classes(step, metrics)
            if cfg.save_predictions:
                dist.barrier()
                restore_classes([number for number, _ in classes], run)
            save_model(model, classes, metrics, run)
            run.finish(metrics | {"checkpoint": str(path)})
        metrics = checkpoint.read_json(run.dir / "metrics.json")
        if dist.is_main():
            print_steps([metrics], f"{path}: step {step}, {metrics['protocol']}")
    return metrics


def write_predictions(steps: Steps, run: Run) -> Callable[[dict, torch.Tensor], None]:
    """What writes predictions/<id>.png of a batch, in outputs of the network."""

    def write(batch: dict, predicted: torch.Tensor) -> None:
        for index, output in zip(batch["index"].tolist(), predicted.to(torch.uint8).cpu().numpy(), strict=True):
            write_label(run.dir / "predictions" / f"{steps.test_ids[index]}.png", output)

    return write


def save_model(model: nn.Module, classes: list[tuple[int, str]], metrics: dict, run: Run) -> None:
    """model.pth: weights, settings and classes of the outputs in one file, for predict.py."""
    if dist.is_main():
        about = {"metrics": metrics, "classes": classes, "config": run.cfg.model_dump(mode="json")}
        checkpoint.save(run.dir / "model.pth", {"model": model.state_dict(), **about})


def evaluate_discovery(cfg: NcdssConfig) -> dict[str, Any]:
    """Metrics of a stage of the discovery chain, or of a file of it."""
    views = Views.open(cfg)
    stage, paths = find_weights(cfg, views)
    section = ("evaluation", "cluster", "save_predictions", "checkpoint")
    with start_run(cfg, f"eval_{stage}", section, {"checkpoint": next(iter(paths.values()))}) as run:
        if not run.finished:
            candidates = load_candidates(paths, views, run)
            metrics = evaluate(candidates, views, run)
            if cfg.save_predictions:
                dist.barrier()
                restore_classes(views.output_ids(metrics.get("match", [])), run)
            if cfg.checkpoint:
                save_model(candidates[0].model, views.output_classes(metrics), metrics, run)
            run.finish(metrics | {"checkpoint": str(candidates[0].path)})
        metrics = checkpoint.read_json(run.dir / "metrics.json")
        if dist.is_main():
            print_metrics(metrics, f"{stage}, {metrics['protocol']}")
            print_comparison(metrics.get("compared", []))
    return metrics


def main(argv: list[str] | None = None) -> int:
    cfg = load_config(argv, __doc__, __file__)
    metrics = evaluate_step(cfg) if isinstance(cfg, SsulConfig) else evaluate_discovery(cfg)
    return expectation_status(cfg.expected, metrics)


if __name__ == "__main__":
    entry(main)
