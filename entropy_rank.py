"""Stage 4 of 6: rank novel images by the entropy of the basic model on their objects; split into clean and unclean.

reads   basic model, <output_dir>/<split>/pseudo
writes  <output_dir>/<split>/ranking/{easy_split.txt, hard_split.txt, entropy.json, metrics.json}

    python entropy_rank.py configs/demo/discovery.yaml
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ncdss",))

from functools import partial

from data.discovery.builder import DiscoveryData, FineTuningImages
from data.discovery.label_errors import label_errors
from data.discovery.stages import basic_model, pseudo_files, pseudo_folder
from losses.eums import object_entropy
from models.segmentation import build_network
from models.segmentation_files import load_network
from utils.config.reader import load_config
from utils.log import log
from utils.measure.ranking import image_scores, split_by_score, write_split
from utils.run import entry, start_run


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data, pseudo_dir, checkpoint = DiscoveryData.open(cfg), pseudo_folder(cfg), basic_model(cfg)
    inputs = {"basic_checkpoint": checkpoint, **pseudo_files(pseudo_dir, "novel")}
    with start_run(cfg, "ranking", ("ranking",), inputs, files=data.context.files) as run:
        if run.finished:
            return
        model = build_network(cfg.model, data.num_outputs, init="random")
        load_network(model, checkpoint)
        images = FineTuningImages.open(data, pseudo_dir, cfg.basic.batch_size)
        names, loader = images.to_rank(images.novel)
        if cfg.ranking.by == "truth":
            scores = label_errors(images, names).error.tolist()
        else:
            entropy = partial(object_entropy, num_known=data.num_known)
            scores = image_scores(run.place(model), entropy, loader, run, "entropy")
        clusters = images.clusters(names) if cfg.ranking.balance == "cluster" else None
        easy, hard = split_by_score(names, scores, cfg.ranking.proportion, clusters)
        write_split(run.dir, easy, hard, names, scores)
        log.info("%d clean (easy) and %d unclean (hard) images", len(easy), len(hard))
        run.finish({"images": len(names), "clean": len(easy), "unclean": len(hard)})


if __name__ == "__main__":
    entry(main)
