"""Stage 4 of 6: rank novel images by the entropy of the basic model on their objects; split clean from unclean.

reads   basic model, <output_dir>/<split>/pseudo
writes  <output_dir>/<split>/ranking/{easy_split.txt, hard_split.txt, entropy.json, metrics.json}

    python entropy_rank.py configs/demo/ncdss.yaml
"""

import math

from data.discovery import Views, read_novel_lists
from finetune_novel import find_pseudo_dir
from models.deeplab import build_model
from models.weights import load_weights
from utils import dist
from utils.checkpoint import write_json, write_list
from utils.config.reader import load_config
from utils.log import log
from utils.measure.evaluation import entropy_scores
from utils.measure.ranking import split_by_score
from utils.run import entry, start_run
from utils.run_folder import require_stage


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    views = Views.open(cfg)
    pseudo_dir = find_pseudo_dir(cfg)
    checkpoint = cfg.basic_checkpoint or require_stage(
        cfg, "basic", "best.pth", "finetune_novel.py CONFIG method=basic"
    )
    inputs = {
        "basic_checkpoint": checkpoint,
        "novel": pseudo_dir / "novel.txt",
        "pseudo_labels": pseudo_dir / "pseudo_labels",
    }
    with start_run(cfg, "ranking", ("ranking",), inputs) as run:
        if run.finished:
            return
        model = build_model(cfg.model.model_copy(update={"init": "random"}), views.num_outputs)
        load_weights(model, checkpoint)
        _, novel = read_novel_lists(pseudo_dir, views.lists)
        dataset = views.pseudo_labelled(novel, pseudo_dir, train=False)
        names = [sample.id for sample in dataset.samples]
        loader = views.loader(dataset, cfg.ranking.batch_size)
        scores = entropy_scores(run.place(model), loader, run, views.num_known)
        easy, hard = split_by_score(names, scores, cfg.ranking.proportion)
        if dist.is_main():
            write_list(run.dir / "easy_split.txt", easy)
            write_list(run.dir / "hard_split.txt", hard)
            entropy = {i: None if math.isnan(s) else s for i, s in zip(names, scores, strict=True)}
            write_json(run.dir / "entropy.json", entropy)
        log.info("%d clean (easy) and %d unclean (hard) images", len(easy), len(hard))
        run.finish({"images": len(names), "clean": len(easy), "unclean": len(hard)})


if __name__ == "__main__":
    entry(main)
