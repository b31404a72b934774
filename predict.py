"""Segment photographs and videos with a trained model.

reads   best.pth of a training stage, or model.pth, which eval.py writes for any checkpoint=FILE
writes  <to>/<name>.png, a palette PNG of class numbers at image size, and <to>/<name>_overlay.jpg;
        for videos <to>/<name>_overlay.mp4; <to>/predictions.json, the pixels of each class; <to>/classes.txt.
        Replaces only files that predict.py wrote.

    python predict.py output/demo/fold0/eums/best.pth photo.jpg holiday/ --to predictions
    python predict.py output/demo/fold0/eums/best.pth holiday.mp4 --to predictions
    python predict.py output/zeroshot_voc/unseen10/zs3/last.pth photo.jpg --classes "zebra, canoe" --embeddings glove6b

--classes adds classes by name to a zero-shot model: its generator makes their classifier from word vectors, which must
come from the same source as those of training.
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="best.pth or model.pth")
    parser.add_argument("images", type=Path, nargs="+", help="image and video files, or folders of images")
    parser.add_argument("--to", type=Path, default=Path("predictions"), help="folder for the results")
    parser.add_argument("--classes", default="", help="names of classes to add, comma-separated")
    parser.add_argument("--embeddings", default="", help="word vectors for --classes; default: source of training")
    parser.add_argument("--generator", type=Path, help="checkpoint of step 2, if the model has no generator")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":  # before the imports below, which take seconds
    arguments()

import numpy as np
import torch
from tqdm import tqdm

from data.embeddings import class_vectors, name_vectors
from data.io import find_images, read_image, voc_palette, write_label, write_picture
from data.predictions import require_folder, require_free
from data.video import frame_count, frames_per_second, is_video, read_frames, write_video
from models.labelling import label_photo, names_by_number
from models.segmenter import Segmenter, load_segmenter, read_config
from models.weights import WeightsFile, read_weights
from utils.checkpoint import write_json, write_list
from utils.device import find_device
from utils.errors import UserError
from utils.log import log
from utils.report.pictures import overlay
from utils.run import entry
from utils.text import read_text

MAKER = "predict.py"  # stored in written files, which may be replaced
SUMMARY, CLASSES = "predictions.json", "classes.txt"
KINDS = {"image", "video"}  # each entry of the summary has one of these keys


def open_model(
    path: Path, device: torch.device, added: str = "", embeddings: str = "", generator: Path | None = None
) -> Segmenter:
    """The network on its device, with the comma-separated classes `added`.

    Raises UserError if the file does not name its classes, or accepts no others.
    """
    file = read_weights(path)
    segmenter = load_segmenter(file)
    if len(segmenter.classes) != segmenter.num_outputs:
        cure = f"python eval.py CONFIG checkpoint={path} makes a model.pth that does"
        raise UserError(f"{path}: does not name the classes of its outputs; {cure}")
    if added:
        segmenter = with_classes(segmenter, file, added, embeddings, generator)
    segmenter.model.eval().to(device)
    return segmenter


def with_classes(
    segmenter: Segmenter, file: WeightsFile, added: str, embeddings: str, generator: Path | None
) -> Segmenter:
    """The network with the comma-separated classes `added`; known ones are skipped.

    Raises UserError if all are known, or the network accepts no others.
    """
    known = [name for _, name in segmenter.classes]
    names = [name for name in dict.fromkeys(part.strip() for part in added.split(",")) if name and name not in known]
    if not names:
        raise UserError(f"--classes {added!r}: the network has all of these classes; name others, or leave it out")
    if segmenter.extend is None:
        raise UserError(f"{file.path}: accepts no other classes than those it was trained on; leave --classes out")
    source = read_config(file.extra["config"], file.path).data
    source = source.model_copy(update={"embeddings": embeddings} if embeddings else {})
    vectors = [
        torch.from_numpy(values) for values in (name_vectors(names, source, known), class_vectors(known, source))
    ]
    return segmenter.extend(names, *vectors, generator)


def segment(segmenter: Segmenter, image: np.ndarray, device: torch.device) -> np.ndarray:
    """uint8 [H, W, 3] RGB -> class numbers [H, W], uint8 or uint16; ignored for clusters without a class."""
    return label_photo(segmenter, image, device)[0]


def shares(label: np.ndarray) -> list[tuple[int, float]]:
    """(class number, share of the pixels), largest first."""
    numbers, counts = np.unique(label, return_counts=True)
    return [(int(numbers[place]), counts[place] / label.size) for place in np.argsort(-counts, kind="stable")]


def draw(segmenter: Segmenter, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The image with classes as a colour overlay; discovered classes have white frames."""
    discovered = {number for number, _ in segmenter.classes[segmenter.num_known :]}
    side = min(max(image.shape), 1024)
    return overlay(image, label, voc_palette(), dict(segmenter.classes), discovered, side=side)


def areas(segmenter: Segmenter, label: np.ndarray) -> dict[str, int]:
    """Name of each class in a label -> number of pixels."""
    names, (numbers, counts) = dict(segmenter.classes), np.unique(label, return_counts=True)
    return {names[int(number)]: int(count) for number, count in zip(numbers, counts, strict=True)}


def segment_video(segmenter: Segmenter, path: Path, to: Path, device: torch.device) -> dict[str, Any]:
    """Writes the overlay of every frame as a video; returns the entry of predictions.json."""
    rate, found = frames_per_second(path), []

    def drawn() -> Iterator[np.ndarray]:
        for frame in tqdm(read_frames(path), desc=path.name, leave=False, disable=None):
            label = segment(segmenter, frame, device)
            found.append(areas(segmenter, label))
            yield draw(segmenter, frame, label)

    write_video(output_files(to, path)[0], drawn(), rate, MAKER)
    if len(found) + 1 < (expected := frame_count(path)):
        log.warning("%s: %d of some %d frames could be read; cut short or damaged?", path, len(found), expected)
    return {"video": str(path), "frames_per_second": rate, "frames": found}


def output_files(to: Path, image: Path) -> tuple[Path, ...]:
    """Files of label map and overlay for an image, of the overlay for a video."""
    if is_video(image):
        return (to / f"{image.stem}_overlay.mp4",)
    return to / f"{image.stem}.png", to / f"{image.stem}_overlay.jpg"


def require_own_lists(to: Path) -> None:
    """Raises UserError if predictions.json or classes.txt exists and was not written by predict.py."""
    summary, foreign = to / SUMMARY, None
    if summary.exists():
        try:
            rows = json.loads(read_text(summary))
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() & KINDS for row in rows):
            foreign = summary
    elif (to / CLASSES).exists():
        foreign = to / CLASSES
    if foreign:
        raise UserError(f"--to {to}: {foreign} is there and not made by {MAKER}; choose another folder")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    device, paths = find_device(options.device), find_images(options.images)
    require_own_lists(options.to)
    require_folder(options.to)
    require_free((file for path in paths for file in output_files(options.to, path)), paths, MAKER)
    segmenter = open_model(options.model, device, options.classes, options.embeddings, options.generator)
    names, rows = dict(segmenter.classes), []
    for path in tqdm(paths, desc="images", leave=False, disable=None):
        if is_video(path):
            rows.append(segment_video(segmenter, path, options.to, device))
            continue
        image = read_image(path, as_shown=True)  # labels fit the image as viewers show it
        label = segment(segmenter, image, device)
        map_file, overlay_file = output_files(options.to, path)
        write_label(map_file, label, MAKER)
        write_picture(overlay_file, draw(segmenter, image, label), MAKER)
        found = [f"{names[number]} {100 * share:.0f} %" for number, share in shares(label)]
        tqdm.write(f"{path}: {', '.join(found)}")
        height, width = label.shape
        rows.append({"image": str(path), "height": height, "width": width, "pixels": areas(segmenter, label)})
    write_json(options.to / SUMMARY, rows)
    write_list(options.to / CLASSES, names_by_number(segmenter))
    return 0


if __name__ == "__main__":
    entry(main)
