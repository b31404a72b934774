"""Segment photographs with a trained model, whose file holds its weights, its settings and the classes of its outputs.

reads   best.pth of a training stage, or model.pth, which eval.py makes of any checkpoint given to it
writes  <to>/<name>.png, a palette PNG of class numbers at image size, and <to>/<name>_overlay.jpg to look at

    python predict.py output/demo/fold0/eums/best.pth photo.jpg holiday/ --to predictions
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from data.io import find_images, read_image, voc_palette, write_label
from data.label_map import IGNORE
from data.transforms import ValTransform
from models.deeplab import DeepLabV3, build_model
from models.official import load_weights, read_weights
from models.probes import LinearProbe, load_probe
from utils.checkpoint import atomic
from utils.errors import UserError
from utils.pictures import overlay
from utils.run import entry
from utils.schema import Config
from utils.schema_probe import ProbeConfig


@dataclass(frozen=True)
class Predictor:
    """A network on its device, with the class number (in the masks of its data set) and name of each output."""

    model: DeepLabV3 | LinearProbe
    classes: list[tuple[int, str]]
    num_known: int  # outputs of background and labelled classes; those behind are discovered
    image_size: int
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Predictor":
        """UserError for a file that does not know its classes."""
        weights = read_weights(path)
        classes = [(int(number), str(name)) for number, name in weights.extra.get("classes", [])]
        if len(classes) != weights.num_classes:
            cure = f"python eval.py CONFIG checkpoint={path} makes a model.pth that does"
            raise UserError(f"{path}: does not know the classes of its outputs; {cure}")
        settings = weights.extra["config"]
        is_probe = "kind" in settings["model"]
        config = (ProbeConfig if is_probe else Config).model_validate(
            {name: settings[name] for name in ("model", "data")}
        )
        if is_probe:
            model = load_probe(config, path, len(classes))
        else:
            model = build_model(config.model.model_copy(update={"init": "random"}), len(classes))
            load_weights(model, path)
        known = len(classes) - len(weights.extra["metrics"].get("match", []))
        return cls(model.eval().to(device), classes, known, config.data.image_size, device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> class numbers uint8 [H, W]; 255 where a cluster has no class."""
        resized = ValTransform(self.image_size).resize("image", image)
        batch = torch.from_numpy(resized.transpose(2, 0, 1)[None]).to(self.device)
        output = self.model(self.model.normalize(batch)).logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
        numbers = np.array([number for number, _ in self.classes], np.uint8)
        return numbers[cv2.resize(output, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)]

    def picture(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The classes in colour over the image, discovered ones in white frames."""
        discovered = {number for number, _ in self.classes[self.num_known :]}
        return overlay(image, label, voc_palette(), dict(self.classes), discovered, side=min(max(image.shape), 1024))


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
        with atomic(options.to / f"{path.stem}_overlay.jpg") as temporary:
            Image.fromarray(predictor.picture(image, label)).save(temporary, "JPEG", quality=90)
        shares = np.bincount(label.ravel(), minlength=IGNORE + 1) / label.size
        found = [f"{names[number]} {100 * shares[number]:.0f} %" for number in np.argsort(-shares) if shares[number]]
        tqdm.write(f"{path}: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    entry(main)
