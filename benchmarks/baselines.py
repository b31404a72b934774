"""How the released programs do it, in few lines of our own: what benchmarks/rows.py compares with.

B images, C channels, H W pixels. Samples end as the tensors that a network reads: float32, normalised, where ours stay
uint8 and are normalised on the device.
"""

import math
from collections.abc import Sequence
from random import Random

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from data.layouts import Sample
from utils.labels import IGNORE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = T.ColorJitter(0.5, 0.5, 0.5, 0.25)
RECOLOR = T.Compose([T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), T.RandomGrayscale(0.2)])


# ---- losses and decisions


def binary_cross_entropy(cells: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """SSUL's loss: all logits up-sampled, a one-hot target of as many planes, one more of them for ignored pixels."""
    logits = F.interpolate(cells, size=label.shape[-2:], mode="bilinear", align_corners=False)
    classes = logits.shape[1]
    target = F.one_hot(torch.where(label == IGNORE, classes, label), classes + 1).float()
    target = target.permute(0, 3, 1, 2)[:, :classes]
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    return loss.masked_select(target.sum(1) != 0).mean()


def incremental_prediction(cells: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """SSUL's classes: sigmoids of all channels, the unknown one added to background."""
    scores = F.interpolate(cells, size=size, mode="bilinear", align_corners=False).sigmoid()
    scores[:, 1] += scores[:, 0]
    return scores[:, 1:].argmax(1)


def base_removal(cells: torch.Tensor, saliency: torch.Tensor, threshold: float) -> list[torch.Tensor]:
    """NCDSS's maps: predictions, certain ones, where these are, and the salient rest."""
    logits = F.interpolate(cells, size=saliency.shape[-2:], mode="bilinear", align_corners=False)
    confidence, prediction = F.softmax(logits, dim=1).max(1)
    certain = prediction.clone()
    certain[confidence <= threshold] = 0
    return [prediction.byte(), certain.byte(), (certain > 0).byte() * 255, torch.where(certain > 0, 0, saliency)]


def image_entropy(cells: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """NCDSS's score: the entropy map of all pixels, averaged over channels, then over the novel pixels."""
    logits = F.interpolate(cells, size=mask.shape[-2:], mode="bilinear", align_corners=False)
    prob = F.softmax(logits, dim=1)
    entropy = (-prob * torch.log2(prob + 1e-30)).mean(1) / math.log2(logits.shape[1])
    return torch.stack([values[inside].mean() for values, inside in zip(entropy, mask, strict=True)])


# ---- evaluation


def joint_histogram(pred: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix of most programs: numpy's bincount over the labelled pixels."""
    inside = label < classes
    cell = classes * label[inside].astype(int) + pred[inside]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def native_counts(pred: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Hits, false alarms and misses of each class [3, C] at the size of the label, from boolean masks."""
    pred = cv2.resize(pred, label.shape[::-1], interpolation=cv2.INTER_NEAREST)
    valid, counts = label != IGNORE, np.zeros((3, classes), np.int64)
    for c in range(classes):
        found, true = (pred == c) & valid, label == c
        counts[:, c] = (found & true).sum(), (found & ~true).sum(), (~found & true).sum()
    return counts


# ---- training samples

# Parts that decide the values of a sample, whoever calls them: no faithful way of making it takes less.


def ssul_floor(sample: Sample, draw: Random) -> None:
    """Reading, and Pillow's scaling."""
    image = Image.open(sample.image).convert("RGB")
    scale = draw.uniform(0.5, 2)
    image.resize([int(side * scale) for side in image.size], Image.Resampling.BILINEAR)


def ncdss_floor(sample: Sample, size: int, hues: int = 0) -> None:
    """Reading, OpenCV's cubic warp and scaling; a turn of Pillow's hue there and back."""
    image = cv2.imread(str(sample.image))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1.1)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(hues):
        Image.fromarray(image).convert("HSV").convert("RGB")


def contrast_floor(sample: Sample, size: int) -> None:
    """Reading, and of each view Pillow's scaling; of four in five its hue."""
    image = Image.open(sample.image).convert("RGB")
    for _ in range(2):
        box = T.RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3))
        view = TF.resized_crop(image, *box, [size, size], T.InterpolationMode.BILINEAR)
        if torch.rand(1) < 0.8:
            view.convert("HSV").convert("RGB")


def _normalised(image: np.ndarray | Image.Image) -> torch.Tensor:
    return TF.normalize(TF.to_tensor(image), MEAN, STD)


def _labels(values: np.ndarray | Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.int64))


def ssul_sample(sample: Sample, size: int, draw: Random) -> tuple[torch.Tensor, ...]:
    """Scaled by 0.5 to 2, padded, cropped, flipped by PIL: image, label and saliency."""
    image = Image.open(sample.image).convert("RGB")
    maps = [Image.open(path) for path in (sample.label, sample.saliency)]
    scale = draw.uniform(0.5, 2)
    width, height = (int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    maps = [values.resize((width, height), Image.Resampling.NEAREST) for values in maps]
    for axis in (0, 1):  # all four sides grow for the width, then again for the height
        if image.size[axis] < size:
            border = (1 + size - image.size[axis]) // 2
            image, *maps = (ImageOps.expand(part, border) for part in (image, *maps))
    left, top = (draw.randint(0, side - size) for side in image.size)
    parts = [part.crop((left, top, left + size, top + size)) for part in (image, *maps)]
    if draw.random() < 0.5:
        parts = [part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in parts]
    return _normalised(parts[0]), *(_labels(values) for values in parts[1:])


def ncdss_sample(sample: Sample, size: int, draw: Random, strong: bool = False) -> tuple[torch.Tensor, ...]:
    """Flipped, turned and scaled by OpenCV, resized; the label, or for EUMS the view with jittered colours."""
    image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
    label = np.array(Image.open(sample.label))
    if draw.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), draw.uniform(-5, 5), draw.uniform(0.75, 1.25))
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    if strong:
        return _normalised(image), _normalised(STRONG(Image.fromarray(image)))
    label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return _normalised(image), _labels(cv2.resize(label, (size, size), interpolation=cv2.INTER_NEAREST))


def contrast_pair(sample: Sample, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """MaskContrast's two views, each a crop resized, flipped and with jittered colours, with its mask."""
    image, mask = Image.open(sample.image).convert("RGB"), Image.open(sample.saliency)
    views = []
    for _ in range(2):
        box = T.RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3))
        part = TF.resized_crop(image, *box, [size, size], T.InterpolationMode.BILINEAR)
        inside = TF.resized_crop(mask, *box, [size, size], T.InterpolationMode.NEAREST)
        if torch.rand(1) < 0.5:
            part, inside = TF.hflip(part), TF.hflip(inside)
        views.append((_normalised(RECOLOR(part)), _labels(inside)))
    return views
