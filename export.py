"""Convert a checkpoint for other programs, or label photographs with it and write them as a data set.

--to official      state dict for the official NCDSS code; for EUMS with student, teacher and queue
--to torchvision   for deeplabv3_resnet50(aux_loss=None, num_classes=C).load_state_dict; for EUMS the student
--to ours          checkpoint of this project from any of these formats, with classes and names of clusters
--format folder    images/, labels/ with class numbers, classes.txt
--format voc       JPEGImages/, SegmentationClass/, labelmap.txt
--format coco      images/, annotations.json with run lengths
--format labelme   photographs, each with a JSON file of polygons
--format onnx      network for images of one size, uint8 RGB -> logits and class numbers; --size 480x640: the network
                   input for photographs of this size. Written only if its outputs equal torch's.

A labelled data set also has confidence.csv, the confidence per image and class and the fit of the image's object to its
cluster, and labels.csv, the source of each image's label. Without --images, the unlabelled training photographs are
labelled. For those that were clustered, there is a choice:

--labels fused     network and pseudo-label as independent evidence (default)
--labels pseudo    pseudo-label
--labels network   network alone, as for all other photographs

    python export.py output/pascal/fold0/eums/best.pth eums_f0.pth.tar --to official
    python export.py output/mine/unknown/eums/best.pth labelled --format coco
    python export.py output/mine/unknown/eums/best.pth labelled --format labelme --images new_photos
    python export.py output/mine/unknown/eums/best.pth mine.onnx --format onnx
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.labelled_set import FORMATS, LabelledImage, write_set

ONNX = "onnx"  # the --format that is no data set
SOURCES = ("fused", "pseudo", "network")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint of this project, the official code or torchvision")
    parser.add_argument("target", type=Path, help="file to write, or with --format a folder or .onnx file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", choices=("official", "torchvision", "ours"))
    what.add_argument("--format", choices=(*FORMATS, ONNX))
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="for data sets: folders of photographs")
    parser.add_argument("--labels", choices=SOURCES, help="for clustered photographs: fused (default), pseudo, network")
    parser.add_argument("--size", help="with --format onnx: HEIGHTxWIDTH of a photograph, e.g. 480x640")
    parser.add_argument("--device", default="auto", help="for data sets: auto, cpu, cuda, cuda:N or mps")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":  # before the imports below, which take seconds
    arguments()

import numpy as np
import torch
from tqdm import tqdm

from data.io import find_images, read_image, read_label
from data.protocol import Photograph, open_data
from models.labelling import LabelSource, label_photo, names_by_number
from models.onnx.export import export_onnx, network_size
from models.segmentation_files import read_networks, to_official, to_torchvision
from models.segmenter import Segmenter, full_config, load_segmenter
from models.weights import WeightsFile, read_weights
from utils import checkpoint
from utils.device import find_device
from utils.errors import UserError
from utils.labels import IGNORE
from utils.run import entry
from utils.torch_file import save_torch


def rewrite(source: Path, target: Path, to: str) -> str:
    """Writes the weights under other key names; returns a description."""
    require_other(source, target)
    networks = read_networks(source)
    if to == "ours":
        several = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
        model = several if len(networks) > 1 else networks["student"]
        checkpoint.save(target, {"model": model, **_about(read_weights(source))})
    else:
        state = to_official(networks) if to == "official" else to_torchvision(networks["student"])
        with checkpoint.atomic(target) as temporary:
            save_torch(temporary, state)
    return f"{' and '.join(networks) if len(networks) > 1 else 'one network'}, {to} names"


def require_other(source: Path, target: Path) -> None:
    if target.resolve() == source.resolve():
        raise UserError(f"{target}: is the source; give another file")


def _about(file: WeightsFile) -> dict[str, Any]:
    """Configuration, metrics and classes that the file holds, with the current names of clusters."""
    kept = {key: file.extra[key] for key in ("config", "metrics", "epoch") if key in file.extra}
    return kept | ({"classes": load_segmenter(file).classes} if "config" in kept and file.extra.get("classes") else {})


def photographs(file: WeightsFile, folders: list[Path]) -> list[Photograph]:
    """The photographs in `folders`; by default the unlabelled training photographs.

    Raises UserError if there are none.
    """
    if folders:
        return [Photograph(path) for path in find_images(folders)]
    found = open_data(full_config(file)).unlabelled_photographs()
    if not found:
        raise UserError(f"{file.path}: all photographs of its training have labels; give others with --images")
    return found


def labelled(
    segmenter: Segmenter, photos: list[Photograph], device: torch.device, source: LabelSource
) -> Iterator[LabelledImage]:
    """The photographs with labels from `source`, or from the network if they have no pseudo-label."""
    for path, certainty, file in tqdm(photos, desc="labels", leave=False, disable=None):
        pseudo = read_label(file) if file and source != "network" else None
        label, confidence = label_photo(segmenter, read_image(path, as_shown=True), device, pseudo, source)
        used = "network" if pseudo is None else source
        yield LabelledImage(path, label.astype(np.uint8), confidence, certainty, used)


def open_segmenter(file: WeightsFile) -> Segmenter:
    """The network of a file, on the CPU. Raises UserError if the file does not name its classes."""
    segmenter = load_segmenter(file)
    if len(segmenter.classes) != segmenter.num_outputs:
        raise UserError(f"{file.path}: does not name the classes of its outputs; give a best.pth or model.pth")
    segmenter.model.eval()
    return segmenter


def write_network(options: argparse.Namespace) -> str:
    """Writes the network as an ONNX file; returns a description."""
    require_other(options.source, options.target)
    segmenter = open_segmenter(read_weights(options.source))
    size = network_size(segmenter, parse_size(options.size))
    found = export_onnx(segmenter, options.target, size)
    compared = f"logits differ by up to {found.logits:.1e} of {found.largest:.3g}"
    agreeing = f"{100 * found.agreeing:.2f} % of the pixels have the same class"
    return f"images {size[0]}x{size[1]}, {segmenter.num_outputs} outputs; against torch {compared}, {agreeing}"


def write_labelled(options: argparse.Namespace) -> str:
    """Labels photographs and writes them as a data set; returns a description."""
    file, device = read_weights(options.source), find_device(options.device)
    segmenter = open_segmenter(file)
    names = names_by_number(segmenter)
    if len(names) > IGNORE:
        raise UserError(f"{file.path}: {len(names)} classes; label files of 8 bits hold {IGNORE}")
    photos = photographs(file, options.images)
    if options.labels in ("pseudo", "fused") and not any(photo.pseudo for photo in photos):
        raise UserError(f"--labels {options.labels}: the photographs have no pseudo-labels; use --labels network")
    segmenter.model.to(device)
    images = labelled(segmenter, photos, device, options.labels or "fused")
    count = write_set(options.target, options.format, images, names)
    return f"{count} photographs with labels, format {options.format}; {options.target / 'confidence.csv'}"


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'480x640' -> (480, 640). Raises UserError for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise UserError(f"--size {text}: no size of an image; give HEIGHTxWIDTH, e.g. 480x640")
    return int(match[1]), int(match[2])


def require_used(options: argparse.Namespace) -> None:
    """Raises UserError for an option without effect."""
    what = f"--to {options.to}" if options.to else f"--format {options.format}"
    labels = not options.to and options.format != ONNX
    for name, given in (
        ("--images", options.images),
        ("--labels", options.labels),
        ("--device", options.device != "auto"),
    ):
        if given and not labels:
            raise UserError(f"{name}: {what} writes a network and labels nothing; leave it out")
    if options.size and options.format != ONNX:
        raise UserError(f"--size: has an effect with --format onnx only, not with {what}; leave it out")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    require_used(options)
    if options.to:
        said = rewrite(options.source, options.target, options.to)
    else:
        said = write_network(options) if options.format == ONNX else write_labelled(options)
    print(f"{options.target}: {said}")
    return 0


if __name__ == "__main__":
    entry(main)
