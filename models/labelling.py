"""Labels one photograph of any size: classes and confidence."""

import cv2
import numpy as np
import torch

from models.segmenter import Segmenter
from utils.labels import IGNORE
from utils.measure.confusion import respond
from utils.measure.protocol import number_table


@torch.inference_mode()
def label_photo(segmenter: Segmenter, image: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] RGB -> (class numbers uint8 or uint16 [H, W], confidence float32 [H, W]).

    Pixels of a cluster without a class get the ignore index. The network must be in evaluation mode on the device.
    """
    batch = torch.from_numpy(segmenter.resize(image).transpose(2, 0, 1)[None].copy()).to(device)
    output = respond(segmenter.model, batch)
    winner = segmenter.decide(output)[0].cpu().numpy().astype(np.uint16)  # there may be more than 255 clusters
    confidence = segmenter.certainty(output)[0].cpu().numpy()
    size = image.shape[1::-1]
    label = number_table(segmenter.classes)[cv2.resize(winner, size, interpolation=cv2.INTER_NEAREST)]
    return label, cv2.resize(confidence, size, interpolation=cv2.INTER_LINEAR)


def names_by_number(segmenter: Segmenter) -> list[str]:
    """Class names by number; a number without a name becomes `class <number>`."""
    called = {number: name for number, name in segmenter.classes if number != IGNORE}
    return [called.get(number, f"class {number}") for number in range(1 + max(called))]
