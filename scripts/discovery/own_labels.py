"""Quality of the labels for own photographs (docs/own_data.md), on VOC images whose true masks are hidden.

Photographs that show a hidden class are the unlabelled ones, others are the labelled ones. The commands of
docs/own_data.md follow; where a person would name the clusters by eye, each gets the most frequent true class of its
objects. Prints the IoU of the hidden classes on the unlabelled photographs for each network and each source of labels
(`export.py --labels`), next to that of the pseudo-labels, and the time of each command.

    python scripts/discovery/own_labels.py /data/voc --saliency u2netp.onnx --hide cat,cow --to output/own_labels

--saliency may also be a folder of finished maps. Finished parts are skipped.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.classes import load_classes
from data.discovery.units import CERTAINTY
from data.io import find_images, read_label, voc_palette
from utils.checkpoint import read_json, read_list, write_json, write_list
from utils.config import reader
from utils.errors import UserError
from utils.report.tables import percent, table
from utils.run import entry

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pseudo", "network", "fused")
LEAST = 0.02  # share of an image that a hidden class must cover


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="folder with images/, SegmentationClassAug/ and sets/trainaug.txt")
    parser.add_argument(
        "--saliency", type=Path, required=True, help="ONNX file of a saliency network, or finished maps"
    )
    parser.add_argument("--hide", default="dog,horse,sheep", help="classes without labels, separated by commas")
    parser.add_argument("--labelled", type=int, default=80, help="number of labelled photographs")
    parser.add_argument("--unlabelled", type=int, default=66, help="number of photographs with hidden classes")
    parser.add_argument("--seed", type=int, default=0, help="draws the photographs; also seed of the training")
    parser.add_argument("--eums", action="store_true", help="train EUMS, too")
    parser.add_argument("--to", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--keys", nargs="+", default=[], help="key=value for every stage")
    return parser.parse_args(argv)


def draw_photographs(options: argparse.Namespace, hidden: list[int]) -> tuple[list[str], list[str]]:
    """(ids with labels, ids without): without any hidden class, and with at least LEAST of one."""
    shown: tuple[list[str], list[str]] = [], []
    for name in read_list(options.voc / "sets" / "trainaug.txt"):
        found = np.isin(read_label(options.voc / "SegmentationClassAug" / f"{name}.png"), hidden).mean()
        if found == 0 or found >= LEAST:
            shown[int(found > 0)].append(name)
    counts = options.labelled, options.unlabelled
    for kind, names, wanted in zip(("labelled", "unlabelled"), shown, counts, strict=True):
        if len(names) < wanted:
            raise UserError(f"--{kind} {wanted}: only {len(names)} photographs fit; give a smaller number")
    draw = random.Random(options.seed)
    labelled, unlabelled = (sorted(draw.sample(names, wanted)) for names, wanted in zip(shown, counts, strict=True))
    return labelled, unlabelled


def write_photographs(options: argparse.Namespace, names: list[str], hidden: list[int]) -> list[str]:
    """Writes photos/, masks/ (in colours) and classes.csv; returns the ids without labels."""
    labelled, unlabelled = draw_photographs(options, hidden)
    photos, masks = options.to / "photos", options.to / "masks"
    for folder in (photos, masks):
        folder.mkdir(parents=True, exist_ok=True)
    files = {path.stem: path for path in find_images([options.voc / "images"])}
    for name in (*labelled, *unlabelled):
        (photos / files[name].name).unlink(missing_ok=True)
        (photos / files[name].name).symlink_to(files[name].resolve())
    for name in labelled:
        colors = voc_palette()[read_label(options.voc / "SegmentationClassAug" / f"{name}.png")]
        Image.fromarray(colors.astype(np.uint8)).save(masks / f"{name}.png")
    lines = [(names[number], *voc_palette()[number]) for number in range(1, len(names)) if number not in hidden]
    with (options.to / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*lines, ("ignore", *voc_palette()[255])])
    return unlabelled


class Commands:
    """Runs commands in the project's folder, unless they have run, and keeps their times in times.json."""

    def __init__(self, folder: Path):
        self.file = folder / "times.json"
        self.seconds: dict[str, float] = dict(read_json(self.file)) if self.file.exists() else {}

    def run(self, title: str, *words: str | Path, **variables: str) -> None:
        if title in self.seconds:
            return
        start = time.perf_counter()
        environment = {"VENV": "none", **os.environ, **variables}
        done = subprocess.run(list(map(str, words)), cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{title}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
        self.seconds[title] = round(time.perf_counter() - start, 1)
        write_json(self.file, self.seconds)


def name_clusters(options: argparse.Namespace, stages: Path, names: list[str], hidden: list[int]) -> list[str]:
    """`number=name` of each cluster: the most frequent true class of its objects; `drop` if that is no hidden one."""
    votes: dict[int, list[int]] = {}
    for name in read_json(stages / "pseudo" / CERTAINTY):
        label = read_label(options.voc / "SegmentationClassAug" / f"{name}.png")
        cluster = read_label(stages / "pseudo" / "embeddings" / f"{name}.png")
        counts = np.bincount(label[(cluster > 0) & (label != 255)], minlength=len(names))[: len(names)]
        if cluster.any():
            votes.setdefault(int(cluster.max()), []).append(int(counts[1:].argmax()) + 1 if counts[1:].any() else 0)
    main = {number: int(np.bincount(classes).argmax()) for number, classes in votes.items()}
    return [f"{number}={names[best] if best in hidden else 'drop'}" for number, best in sorted(main.items())]


def score(
    options: argparse.Namespace, folder: Path, ids: list[str], names: list[str], hidden: list[int]
) -> list[float]:
    """IoU of each hidden class, over the pixels of all unlabelled photographs."""
    called = yaml.safe_load((folder / "classes.yaml").read_text())
    ours = np.array([names.index(name) if name in names else 0 for name in called] + [0] * (256 - len(called)))
    both, either = np.zeros(len(names)), np.zeros(len(names))
    for name in ids:
        truth = read_label(options.voc / "SegmentationClassAug" / f"{name}.png")
        found = ours[read_label(folder / "labels" / f"{name}.png")]
        for number in hidden:
            both[number] += ((found == number) & (truth == number)).sum()
            either[number] += (((found == number) | (truth == number)) & (truth != 255)).sum()
    return [float(both[number] / max(1, either[number])) for number in hidden]


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    names = list(load_classes("pascal").names)
    unknown = [name for name in options.hide.split(",") if name not in names[1:]]
    if unknown:
        raise UserError(f"--hide {options.hide}: '{unknown[0]}' is no class of PASCAL VOC")
    hidden = [names.index(name) for name in options.hide.split(",")]
    options.to = options.to.resolve()
    options.to.mkdir(parents=True, exist_ok=True)
    unlabelled = write_photographs(options, names, hidden)
    data, config, commands = options.to / "data", options.to / "mine.yaml", Commands(options.to)
    keys = [f"seed={options.seed}", f"output_dir={options.to / 'output'}", *options.keys]
    python, made = sys.executable, [config, *keys]
    words = [
        "--labels",
        options.to / "masks",
        "--colors",
        options.to / "classes.csv",
        "--root",
        data,
        "--config",
        config,
    ]
    commands.run("folder", python, "prepare_data.py", "folder", "--images", options.to / "photos", *words)
    if options.saliency.is_dir():
        write_list(options.to / "given.txt", [str(options.saliency)])
        if not (data / "saliency").exists():
            (data / "saliency").symlink_to(options.saliency.resolve())
    else:
        maps = ["--images", data / "images", "--to", data / "saliency", "--model", options.saliency]
        commands.run("saliency", python, "prepare_data.py", "saliency", *maps)
    commands.run("clusters", "bash", "scripts/discover.sh", *made)
    stages = reader.load_config([str(word) for word in made], "").output_dir / "unknown"
    given = name_clusters(options, stages, names, hidden)
    commands.run("names", python, "name_clusters.py", *made, *given)
    networks = ("basic", "eums") if options.eums else ("basic",)
    commands.run("networks", "bash", "scripts/discover.sh", *made, METHOD=networks[-1])
    rows = [["labels", *options.hide.split(","), "mean"]]
    found: dict[str, list[float]] = {}
    for network in networks:
        for source in SOURCES:
            target = options.to / "labels" / f"{network}_{source}"
            command = [python, "export.py", stages / network / "best.pth", target, "--format", "folder"]
            commands.run(f"export {network} {source}", *command, "--labels", source)
            found[f"{network}, {source}"] = score(options, target, unlabelled, names, hidden)
    for title, values in found.items():
        rows.append([title, *map(percent, values), percent(float(np.mean(values)))])
    about = {"hide": options.hide, "seed": options.seed, "clusters": given, "iou": found}
    write_json(options.to / "scores.json", about | {"seconds": commands.seconds})
    print(f"clusters: {' '.join(given)}\n{table(rows)}")
    print("seconds: " + ", ".join(f"{title} {seconds:.0f}" for title, seconds in commands.seconds.items()))


if __name__ == "__main__":
    entry(main)
