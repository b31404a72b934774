"""Rewrite a weights file for other programs, or label photographs with it and write them as a data set.

--to official      for the scripts of the official code: a bare state dict, of EUMS with student, teacher and queue
--to torchvision   for deeplabv3_resnet50(aux_loss=None, num_classes=C).load_state_dict; of EUMS the student
--to ours          a checkpoint of this project, from any of them (every stage also reads them as they are); classes and
                   names of clusters go with it
--format folder    images/, labels/ with class numbers, classes.txt
--format voc       JPEGImages/, SegmentationClass/, labelmap.txt
--format coco      images/, annotations.json with run lengths
--format labelme   photographs and a JSON of polygons for each

A labelled data set holds confidence.csv, too: per image and class the network's confidence, and how well the image's
object fits its cluster. Without --images it is made of the photographs that had no labels in training.

    python export.py output/pascal/fold0/eums/best.pth eums_f0.pth.tar --to official
    python export.py output/mine/unknown/eums/best.pth labelled --format coco
    python export.py output/mine/unknown/eums/best.pth labelled --format labelme --images new_photos
"""

from utils import begin

if __name__ == "__main__":
    begin.quiet()

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.labelled_set import FORMATS, LabelledImage, write_set


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkpoint, ours, official or torchvision's")
    parser.add_argument("target", type=Path, help="file to write, or with --format a folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", choices=("official", "torchvision", "ours"))
    what.add_argument("--format", choices=FORMATS)
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="with --format: folders of photographs")
    parser.add_argument("--device", default="auto", help="with --format: auto, cpu, cuda or cuda:N")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":  # before the imports below, which take seconds
    arguments()

import numpy as np
from tqdm import tqdm

from data.io import find_images, read_image
from data.systems import DATA
from models.deeplab_files import read_networks, to_official
from models.labelling import label_photo, names_by_number
from models.segmenter import Segmenter
from models.systems import full_config, load_segmenter
from models.weights import WeightsFile, read_weights
from utils import checkpoint
from utils.errors import UserError
from utils.labels import IGNORE
from utils.run import entry, pick_device
from utils.torch_file import save_torch


def rewrite(source: Path, target: Path, to: str) -> str:
    """Write the weights under other names; what was written."""
    if target.resolve() == source.resolve():
        raise UserError(f"{target}: is the source; give another file")
    networks = read_networks(source)
    if to == "ours":
        several = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
        model = several if len(networks) > 1 else networks["student"]
        checkpoint.save(target, {"model": model, **_about(read_weights(source))})
    else:
        state = to_official(networks) if to == "official" else networks["student"]
        with checkpoint.atomic(target) as temporary:
            save_torch(temporary, state)
    return f"{' and '.join(networks) if len(networks) > 1 else 'one network'}, {to} names"


def _about(file: WeightsFile) -> dict[str, Any]:
    """Settings and classes, as far as the file knows them, with the names that clusters have now."""
    kept = {key: file.extra[key] for key in ("config", "metrics", "epoch") if key in file.extra}
    return kept | ({"classes": load_segmenter(file).classes} if "config" in kept and file.extra.get("classes") else {})


def photographs(file: WeightsFile, folders: list[Path]) -> list[tuple[Path, float | None]]:
    """(photograph, how well its object fits its cluster) of folders, or of what training had no labels of."""
    if folders:
        return [(path, None) for path in find_images(folders)]
    config = full_config(file)
    data = DATA[config.system](config)
    if not hasattr(data, "to_label"):
        raise UserError(f"{file.path}: all photographs of its training have labels; give others with --images")
    return data.to_label()


def labelled(segmenter: Segmenter, photos: list[tuple[Path, float | None]], device) -> Iterator[LabelledImage]:
    for path, certainty in tqdm(photos, desc="labels", leave=False, disable=None):
        label, confidence = label_photo(segmenter, read_image(path, as_shown=True), device)
        yield LabelledImage(path, label.astype(np.uint8), confidence, certainty)


def write_labelled(options: argparse.Namespace) -> str:
    """Label photographs and write them as a data set; what was written."""
    file, device = read_weights(options.source), pick_device(options)
    segmenter = load_segmenter(file)
    if len(segmenter.classes) != segmenter.num_outputs:
        raise UserError(f"{file.path}: does not know the classes of its outputs; give a best.pth or model.pth")
    names = names_by_number(segmenter)
    if len(names) > IGNORE:
        raise UserError(f"{file.path}: {len(names)} classes; label files of 8 bits hold {IGNORE}")
    photos = photographs(file, options.images)
    segmenter.model.eval().to(device)
    count = write_set(options.target, options.format, labelled(segmenter, photos, device), names)
    return f"{count} photographs with labels, format {options.format}; {options.target / 'confidence.csv'}"


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.to and options.images:
        raise UserError("--images: --to rewrites weights and labels nothing; leave it out")
    said = write_labelled(options) if options.format else rewrite(options.source, options.target, options.to)
    print(f"{options.target}: {said}")
    return 0


if __name__ == "__main__":
    entry(main)
