"""Accuracy of cluster.k=auto: the true number of novel classes against the estimate of each criterion.

reads   images and masks of data.train_list of a data set whose classes are all known
prints  for class splits, and for novel classes drawn at random, the true number and the estimates: mean ± standard
        deviation over seeds, or over drawn classes

Prototypes come from true masks, which excludes errors of saliency and base model: the largest novel object of an image
with novel classes, every base class of the others; in scenes (data.images=mixed) base classes of the labelled images
and novel classes of the others. Classes with fewer than ten objects are left out.

    python scripts/discovery/number_of_clusters.py configs/discovery/pascal_subset.yaml --splits fold1 fold2 fold3
"""

import argparse
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cluster_pseudolabel import feature_network
from data.classes import load_split
from data.discovery.lists import draw_labelled
from data.label_map import LabelMap
from data.lists import image_list
from data.source import DataContext
from data.transforms import ValTransform
from utils.config.discovery import DiscoveryConfig
from utils.config.reader import load_config
from utils.labels import IGNORE
from utils.measure.clustering import mask_prototypes
from utils.measure.num_clusters import estimate_k
from utils.report.tables import table
from utils.run import entry

FEWEST = 10  # objects of a class
LEAST = 0.008  # share of the pixels below which a region is no object
CRITERIA = ("silhouette", "stability", "known classes")


class Objects(NamedTuple):
    """Prototypes [N, D], and the image, class number and pixels of each."""

    rows: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    pixels: np.ndarray

    def where(self, chosen: np.ndarray) -> "Objects":
        return Objects(*(values[chosen] for values in self))


@torch.inference_mode()
def describe(cfg: DiscoveryConfig, classes: int) -> Objects:
    """One prototype for each class of each training image."""
    context, network = DataContext.open(cfg), feature_network(cfg).eval()
    size = cfg.cluster.features_size or cfg.data.image_size
    samples = context.index(image_list(context, cfg.data.train_list or "trainaug"), ("image", "label"))
    same = LabelMap.from_pairs({number: number for number in range(classes)})
    dataset = context.dataset(samples, ("image", "label"), transform=ValTransform(size), label_map=same)
    found: list[tuple[np.ndarray, int, int, int]] = []
    for batch in context.loader(dataset, cfg.cluster.batch_size):
        features = network(network.normalize(batch["image"])).features
        for place, label in enumerate(batch["label"]):
            for number in set(label.unique().tolist()) - {0, IGNORE}:
                here = (label == number).float()[None]
                if here.mean() > LEAST:
                    row = mask_prototypes(features[place : place + 1], here)[0].numpy()
                    found.append((row, int(batch["index"][place]), number, int(here.sum())))
    rows, *others = zip(*found, strict=True)
    return Objects(np.stack(rows), *(np.array(values) for values in others))


def estimates(objects: Objects, novel: set[int], cfg: DiscoveryConfig, seed: int) -> list[int]:
    """[true number, the number that each criterion prefers, the median]."""
    base, one = (in_scenes if cfg.data.images == "mixed" else apart)(objects, novel, cfg, seed)
    sizes = Counter(one.classes.tolist())
    one = one.where(np.array([sizes[number] >= FEWEST for number in one.classes.tolist()]))
    known = [base.rows[base.classes == number] for number in np.unique(base.classes)]
    known = [rows for rows in known if len(rows) >= FEWEST]
    c = cfg.cluster
    found = estimate_k(one.rows, known, c.pca_dim, c.whiten, c.k_most, seed)
    return [len(np.unique(one.classes)), *(found.best[name] for name in CRITERIA), found.k]


def apart(objects: Objects, novel: set[int], _cfg: DiscoveryConfig, _seed: int) -> tuple[Objects, Objects]:
    """(known, unknown): all objects of images without novel classes; the largest novel object of each other image."""
    is_novel = np.isin(objects.classes, list(novel))
    with_novel = np.isin(objects.images, objects.images[is_novel])
    one = objects.where(is_novel)
    order = np.lexsort((-one.pixels, one.images))
    _, first = np.unique(one.images[order], return_index=True)
    return objects.where(~with_novel), one.where(order[first])


def in_scenes(objects: Objects, novel: set[int], cfg: DiscoveryConfig, seed: int) -> tuple[Objects, Objects]:
    """(known, unknown): objects of base classes in labelled images; objects of novel classes in the other images."""
    is_novel = np.isin(objects.classes, list(novel))
    images = np.unique(objects.images)
    labelled = np.isin(objects.images, images[draw_labelled(len(images), cfg.data.labelled, seed)])
    return objects.where(labelled & ~is_novel), objects.where(~labelled & is_novel)


def drawn(objects: Objects, count: int, seed: int) -> set[int]:
    """`count` random classes among those with enough objects."""
    sizes = Counter(objects.classes.tolist())
    enough = sorted(number for number, size in sizes.items() if size >= 2 * FEWEST)
    return set(np.random.default_rng(seed).permutation(enough)[:count].tolist())


def line(name: str, rows: list[list[int]]) -> list[str]:
    cells = []
    for column in zip(*rows, strict=True):
        spread = f" ± {statistics.stdev(column):.1f}" if len(column) > 1 else ""
        cells.append(f"{statistics.mean(column):.1f}{spread}")
    return [name, *cells]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="+", help="CONFIG.yaml [key=value ...]")
    parser.add_argument("--splits", nargs="*", default=[], help="class splits of the data set")
    parser.add_argument("--draw", type=int, nargs="*", default=[3, 5, 8], help="numbers of novel classes to draw")
    parser.add_argument("--seeds", type=int, default=3, help="of each split, and sets of classes of each number")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    cfg = load_config(options.config, __doc__, systems=("ncdss",))
    groups = {name: load_split(name, cfg.data.dataset) for name in options.splits or [cfg.split]}
    objects, seeds = describe(cfg, len(next(iter(groups.values())).classes)), range(options.seeds)
    rows = [["novel classes", "true number", *CRITERIA, "median"]]
    for name, split in groups.items():
        rows.append(line(name, [estimates(objects, set(split.groups[1]), cfg, seed) for seed in seeds]))
    for count in options.draw:
        found = [estimates(objects, drawn(objects, count, seed), cfg, seed) for seed in seeds]
        rows.append(line(f"{count} drawn", found))
    print(table(rows))
    return 0


if __name__ == "__main__":
    entry(main)
