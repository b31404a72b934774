"""Quality of the labels that EUMS trains on: pseudo-labels and teacher predictions against true masks.

reads   pseudo/, ranking/ and eums/ of a finished chain, and the masks of its novel training images
prints  for all, clean and unclean images of the first ranking, and of the last reassignment if there was one: number of
        images; purity (share of objects in the majority class of their cluster); mean IoU of the masks, whatever the
        class; novel mIoU of the pseudo-labels and of the labels of the last teacher, in its training mode; number of
        clusters, and objects in the smallest

A second table shows the teacher's novel mIoU by epoch for the networks kept by eums.keep_every.
Clusters are matched to classes once, on all pseudo-labels, by the official rule.

    python scripts/discovery/label_quality.py configs/demo/discovery.yaml
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.discovery.builder import DiscoveryData, FineTuningImages
from data.discovery.label_errors import label_errors
from data.discovery.stages import pseudo_folder, ranking_folder
from data.label_map import LabelMap
from data.transforms import ValTransform
from losses.eums import teacher_label
from models.segmentation import SegmentationNet, build_network
from models.segmentation_files import load_network
from utils.checkpoint import read_list
from utils.config.reader import load_config
from utils.measure.matching import match_clusters
from utils.measure.metrics import confusion_matrix
from utils.measure.spec import confusion_metrics
from utils.report.tables import percent, table
from utils.run import entry

KINDS = {"clean": "easy", "unclean": "hard"}


def teacher_of(path: Path, data: DiscoveryData) -> SegmentationNet:
    """The teacher in a checkpoint of EUMS, in its training mode."""
    model = build_network(data.cfg.model, data.num_outputs, init="random")
    load_network(model, path, which="teacher")
    return model.train(data.cfg.eums.teacher_mode == "train")


@torch.no_grad()
def count(data: DiscoveryData, images: FineTuningImages, teacher: SegmentationNet) -> tuple[list[str], np.ndarray]:
    """(ids [N], confusion matrices [N, 2, true, outputs] of pseudo-labels and of the teacher's labels)."""
    fields = ("image", "label", "pseudo")
    samples = data.context.index(images.novel, ("image", "label"))
    samples = data.pseudo_labels(images.pseudo_dir).added_to(samples)
    allowed = LabelMap.from_pairs({value: value for value in range(data.num_outputs)})
    transform, maps = ValTransform(data.cfg.data.image_size), {"label_map": data.full_map(), "pseudo_map": allowed}
    dataset = data.context.dataset(samples, fields, transform=transform, **maps)
    rows = []
    for batch in data.context.loader(dataset, data.cfg.eums.batch_size):
        found = batch["pseudo"], teacher_label(teacher(teacher.normalize(batch["image"])).logits, 0)
        shape = data.num_outputs, len(data.groups.names)
        for place, label in enumerate(batch["label"]):
            rows.append(np.stack([confusion_matrix(maps[place], label, *shape).numpy() for maps in found]))
    return [sample.id for sample in samples], np.stack(rows)


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data, folder = DiscoveryData.open(cfg), ranking_folder(cfg)
    images = FineTuningImages.open(data, pseudo_folder(cfg), cfg.eums.batch_size)
    run = cfg.output_dir / cfg.folder / "eums"
    ids, matrices = count(data, images, teacher_of(run / "last.pth", data))
    clusters, errors = np.array(images.clusters(ids)), label_errors(images, ids)
    on = matrices[:, 0].sum(0)
    sizes = np.bincount(clusters[clusters >= 0], minlength=cfg.cluster.k)
    rows = [["images", "number", "purity", "mask IoU", "pseudo-labels", "teacher", "clusters", "in the smallest"]]
    lists = {"all": images.novel, "clean": read_list(folder / "easy_split.txt")}
    lists["unclean"] = read_list(folder / "hard_split.txt")
    if (run / "easy_split.txt").exists():
        lists |= {f"reassigned {name}": read_list(run / f"{kind}_split.txt") for name, kind in KINDS.items()}
    print(f"{matched(on, data)}objects per cluster: {sizes.tolist()}")
    score = partial(novel_miou, data, on)
    for name, listed in lists.items():
        chosen = np.isin(ids, listed)
        held = np.bincount(clusters[chosen & (clusters >= 0)], minlength=cfg.cluster.k)
        parts = (percent(float(values[chosen].mean())) for values in (errors.right, errors.iou))
        scores = (percent(score(matrices[chosen, which])) for which in (0, 1))
        rows.append([name, str(int(chosen.sum())), *parts, *scores, str(np.count_nonzero(held)), str(held.min())])
    print(table(rows))
    rows = [["teacher after epoch", *lists]]
    for epoch, path in sorted((int(path.stem.removeprefix("epoch_")), path) for path in run.glob("epoch_*.pth")):
        _, matrices = count(data, images, teacher_of(path, data))
        rows.append([str(epoch), *(percent(score(matrices[np.isin(ids, listed), 1])) for listed in lists.values())])
    if rows[1:]:
        print(f"\n{table(rows)}")


def novel_miou(data: DiscoveryData, on: np.ndarray, matrices: np.ndarray) -> float:
    """Novel mIoU of the summed counts [N, true, outputs], with clusters matched on the confusion matrix `on`."""
    return confusion_metrics(matrices.sum(0), data.novel_protocol().spec, on)["novel_miou"]


def matched(confusion: np.ndarray, data: DiscoveryData) -> str:
    match = match_clusters(confusion, data.num_known, data.cfg.evaluation.match)
    names = data.novel_names
    return "clusters are: " + ", ".join(names[number] if number >= 0 else "-" for number in match) + "\n"


if __name__ == "__main__":
    entry(main)
