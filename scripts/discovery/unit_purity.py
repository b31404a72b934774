"""Purity of the clusters of novel objects, comparable between units of clustering (image, component, region).

reads   pseudo-label folders of finished chains, and the masks of their images
prints  for each folder: number of objects; how many of them are novel, base or neither by the majority of their pixels;
        purity of the novel objects (share in the majority class of their cluster); images with several novel objects

The purity in metrics.json cannot be compared between units: a whole image always counts as novel, however few of its
pixels are, and parts of base classes are included.

    python scripts/discovery/unit_purity.py output/units/seed1/*/fold0/pseudo
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.discovery.builder import DiscoveryData, main_class
from data.discovery.units import read_parts, read_units
from utils.config.reader import load_config
from utils.measure.clustering import purity
from utils.report.tables import percent, table
from utils.run import entry

HEADING = ["folder", "objects", "novel", "base", "neither", "purity of novel ones", "images with two and more"]


def line(folder: Path) -> list[str]:
    """A row of the table."""
    data = DiscoveryData.open(load_config([str(folder / "config.yaml")], __doc__, systems=("ncdss",)))
    clusters, full = read_units(folder / "clusters.json", int), data.full_map()
    samples = data.context.index(dict.fromkeys(unit.image for unit in clusters), ("image", "label"))
    labels = {sample.id: (full(sample.load_label()), read_parts(folder, sample.id)) for sample in samples}
    mains = {}
    for unit in clusters:
        label, parts = labels[unit.image]
        mains[unit] = main_class(label, parts == unit.part, 0) - 1
    novel = [unit for unit, main in mains.items() if main >= data.num_known]
    base = sum(0 < main < data.num_known for main in mains.values())
    pure = purity(np.array([clusters[unit] for unit in novel]), np.array([mains[unit] for unit in novel]))
    several = sum(count > 1 for count in Counter(unit.image for unit in novel).values())
    counts = len(clusters), len(novel), base, len(clusters) - len(novel) - base
    return [str(folder), *map(str, counts), percent(pure), str(several)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="pseudo-label folders of finished chains")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    print(table([HEADING, *map(line, options.folders)]))
    return 0


if __name__ == "__main__":
    entry(main)
