"""Segment photographs with a trained model, whose file holds its weights, its settings and the classes of its outputs.

reads   best.pth of a training stage, or model.pth, which eval.py makes of any checkpoint given to it
writes  <to>/<name>.png, a palette PNG of class numbers at image size, and <to>/<name>_overlay.jpg to look at

    python predict.py output/demo/fold0/eums/best.pth photo.jpg holiday/ --to predictions
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from data.crops import resize_shorter
from data.io import find_images, read_image, voc_palette, write_label, write_picture
from data.label_map import IGNORE
from data.transforms import ValTransform
from models.deeplab import build_model
from models.incremental import StepWeights, load_incremental
from models.probes import load_probe
from models.weights import load_file, load_weights
from utils.config.ncdss import NcdssConfig
from utils.config.probe import ProbeConfig
from utils.config.ssul import SsulConfig
from utils.errors import UserError
from utils.incremental import predicted_ids
from utils.report.pictures import overlay
from utils.run import entry

Loaded = tuple[nn.Module, Callable[[Any], torch.Tensor], Callable[[np.ndarray], np.ndarray]]  # as in Predictor


@dataclass(frozen=True)
class Predictor:
    """A network on its device, with the class number (in the masks of its data set) and name of each output."""

    model: nn.Module
    decide: Callable[[Any], torch.Tensor]  # what the model returns -> outputs [B, h, w]
    resize: Callable[[np.ndarray], np.ndarray]  # image -> network input, uint8
    classes: list[tuple[int, str]]
    num_known: int  # outputs of background and labelled classes; those behind are discovered
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Predictor":
        """UserError for a file that does not know its classes."""
        content = load_file(path)
        settings = content.get("config") if isinstance(content, dict) else None
        classes = [(int(number), str(name)) for number, name in content.get("classes", [])] if settings else []
        if not classes:
            cure = f"python eval.py CONFIG checkpoint={path} makes a model.pth that does"
            raise UserError(f"{path}: does not know the classes of its outputs; {cure}")
        load = load_step if "task" in settings else load_linear if "kind" in settings["model"] else load_discovery
        model, decide, resize = load(path, settings, len(classes))
        known = len(classes) - len(content["metrics"].get("match", []))
        return cls(model.eval().to(device), decide, resize, classes, known, device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> class numbers uint8 [H, W]; 255 where a cluster has no class."""
        batch = torch.from_numpy(self.resize(image).transpose(2, 0, 1)[None].copy()).to(self.device)
        output = self.decide(self.model(self.model.normalize(batch)))[0].to(torch.uint8).cpu().numpy()
        numbers = np.array([number for number, _ in self.classes], np.uint8)
        return numbers[cv2.resize(output, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)]

    def picture(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The classes in colour over the image, discovered ones in white frames."""
        discovered = {number for number, _ in self.classes[self.num_known :]}
        return overlay(image, label, voc_palette(), dict(self.classes), discovered, side=min(max(image.shape), 1024))


def load_discovery(path: Path, settings: dict, num_outputs: int) -> Loaded:
    """A network of the discovery chain; it sees the image as a square."""
    config = NcdssConfig.model_validate({name: settings[name] for name in ("model", "data")})
    model = build_model(config.model.model_copy(update={"init": "random"}), num_outputs)
    load_weights(model, path)
    square = ValTransform(config.data.image_size)
    return model, lambda output: output.logits.argmax(1), lambda image: square.resize("image", image)


def load_linear(path: Path, settings: dict, num_outputs: int) -> Loaded:
    """A linear probe of probe_features.py; it sees the image as a square."""
    config = ProbeConfig.model_validate({name: settings[name] for name in ("model", "data")})
    square = ValTransform(config.data.image_size)
    model = load_probe(config, path, num_outputs)
    return model, lambda output: output.logits.argmax(1), lambda image: square.resize("image", image)


def load_step(path: Path, settings: dict, num_outputs: int) -> Loaded:
    """A class-incremental network; it sees the image with its shorter side as in the evaluation."""
    config = SsulConfig.model_validate({name: settings[name] for name in ("model", "data", "ssul")})
    weights = StepWeights.read(path)
    unknown, loss = sum(weights.num_classes) == num_outputs + 1, "ce" if weights.linear else config.ssul.loss
    model = load_incremental(config.model, weights)

    def resize(image: np.ndarray) -> np.ndarray:
        return resize_shorter(image, config.data.image_size, model.backbone.divisor)

    return model, lambda logits: predicted_ids(logits, unknown, loss), resize


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="best.pth or model.pth")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--to", type=Path, default=Path("predictions"), help="folder for the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    paths = find_images(options.images)
    predictor = Predictor.load(options.model, torch.device(options.device))
    names = dict(predictor.classes)
    for path in tqdm(paths, leave=False, disable=None):
        image = read_image(path)
        label = predictor(image)
        write_label(options.to / f"{path.stem}.png", label)
        write_picture(options.to / f"{path.stem}_overlay.jpg", predictor.picture(image, label))
        shares = np.bincount(label.ravel(), minlength=IGNORE + 1) / label.size
        found = [f"{names[number]} {100 * shares[number]:.0f} %" for number in np.argsort(-shares) if shares[number]]
        tqdm.write(f"{path}: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    entry(main)
