"""Segment photographs with a trained model, whose file holds its weights, its settings and the classes of its outputs.

reads   best.pth of a training stage, or model.pth, which eval.py makes of any checkpoint given to it
writes  <to>/<name>.png, a palette PNG of class numbers at image size, and <to>/<name>_overlay.jpg to look at

    python predict.py output/demo/fold0/eums/best.pth photo.jpg holiday/ --to predictions
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from data.io import find_images, read_image, voc_palette, write_label, write_picture
from models.segmenter import Segmenter
from models.systems import load_segmenter
from utils.errors import UserError
from utils.measure.protocol import number_table
from utils.report.pictures import overlay
from utils.run import entry, pick_device


def open_model(path: Path, device: torch.device) -> Segmenter:
    """The network on its device; UserError for a file that does not know its classes."""
    segmenter = load_segmenter(path)
    if len(segmenter.classes) != segmenter.num_outputs:
        cure = f"python eval.py CONFIG checkpoint={path} makes a model.pth that does"
        raise UserError(f"{path}: does not know the classes of its outputs; {cure}")
    segmenter.model.eval().to(device)
    return segmenter


@torch.inference_mode()
def segment(segmenter: Segmenter, image: np.ndarray, device: torch.device) -> np.ndarray:
    """uint8 [H, W, 3] RGB -> class numbers [H, W], uint8 or uint16; the ignored value where a cluster has no class."""
    batch = torch.from_numpy(segmenter.resize(image).transpose(2, 0, 1)[None].copy()).to(device)
    output = segmenter.labels(batch)[0].cpu().numpy().astype(np.uint16)  # there may be more than 255 clusters
    return number_table(segmenter.classes)[cv2.resize(output, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)]


def shares(label: np.ndarray) -> list[tuple[int, float]]:
    """(class number, share of the pixels), the largest first."""
    numbers, counts = np.unique(label, return_counts=True)
    return [(int(numbers[place]), counts[place] / label.size) for place in np.argsort(-counts, kind="stable")]


def draw(segmenter: Segmenter, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The classes in colour over the image, discovered ones in white frames."""
    discovered = {number for number, _ in segmenter.classes[segmenter.num_known :]}
    side = min(max(image.shape), 1024)
    return overlay(image, label, voc_palette(), dict(segmenter.classes), discovered, side=side)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="best.pth or model.pth")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--to", type=Path, default=Path("predictions"), help="folder for the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    paths, device = find_images(options.images), pick_device(options)
    segmenter = open_model(options.model, device)
    names = dict(segmenter.classes)
    for path in tqdm(paths, leave=False, disable=None):
        image = read_image(path)
        label = segment(segmenter, image, device)
        write_label(options.to / f"{path.stem}.png", label)
        write_picture(options.to / f"{path.stem}_overlay.jpg", draw(segmenter, image, label))
        found = [f"{names[number]} {100 * share:.0f} %" for number, share in shares(label)]
        tqdm.write(f"{path}: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    entry(main)
