"""From proposals to the class of each pixel, a few rows at a time: no mask or score map of a whole image is stored.

B images of one size, Q queries, K classes, h w cells of the masks, H W pixels of the result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.weakshot.maskformer import MaskOutput
from utils.resize import resize_whole

PIXELS = 2**14  # of a part; with 171 classes its scores take 11 MB


@dataclass(frozen=True)
class View:
    """Proposals for one version of an image: resized, mirrored or not."""

    output: MaskOutput
    mirrored: bool = False


Views = MaskOutput | Sequence[View]


def predict_classes(views: Views, size: Sequence[int] | None = None) -> torch.Tensor:
    """The class with the highest score per pixel, int64 [B, H, W]; `size` (H, W) defaults to the image size."""
    return torch.cat([scores.argmax(1) for scores in _parts(views, size)], dim=1)


def semantic_scores(views: Views, size: Sequence[int] | None = None) -> torch.Tensor:
    """Scores [B, K, H, W], averaged over views. They need not sum to 1 over the classes."""
    return torch.cat(list(_parts(views, size)), dim=2)


def surest(output: MaskOutput, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The proposals with the highest class scores: (class int64 [B, count], its score, its mask [B, count, h, w])."""
    prob = output.class_logits[-1].float().softmax(-1)[..., :-1]
    best, classes = prob.max(-1)  # [B, Q]
    scores, chosen = best.topk(min(count, best.shape[1]), dim=1)
    place = torch.arange(len(best), device=best.device)[:, None]
    return classes[place, chosen], scores, output.mask_logits[-1][place, chosen].float().sigmoid()


def see(model: nn.Module, image: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[View]:
    """Test-time augmentation: an image uint8 [1, 3, H, W] at each of `sizes`, mirrored and not, resized by PIL.

    As in the official code, the input is the image that the plain evaluation has already resized.
    """
    pixels, views = image[0].movedim(0, -1).cpu().numpy(), []
    for size in sizes:
        resized = resize_whole("image", np.ascontiguousarray(pixels), size)
        plain = torch.from_numpy(resized.copy()).movedim(-1, 0)[None].to(image.device)
        for mirrored in (False, True):
            version = plain.flip(-1) if mirrored else plain
            views.append(View(model(model.normalize(version)), mirrored))  # type: ignore[operator]
    return views


def _parts(views: Views, size: Sequence[int] | None) -> Iterator[torch.Tensor]:
    """Scores [B, K, rows, W] from the first row to the last."""
    listed = [View(views)] if isinstance(views, MaskOutput) else list(views)
    height, width = listed[0].output.size if size is None else size
    step = max(1, PIXELS // (width * listed[0].output.mask_logits.shape[1]))
    for first in range(0, height, step):
        rows = torch.arange(first, min(first + step, height))
        total = _scores(listed[0], rows, (height, width))
        for view in listed[1:]:
            total += _scores(view, rows, (height, width))
        yield total / len(listed)


def _scores(view: View, rows: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scores of some rows: masks at the size of the padded image, cropped, multiplied with the classes, resized.

    Resizing and the sum over proposals commute; the product is computed where there are fewer pixels.
    """
    output = view.output
    masks, inner = output.mask_logits[-1].float(), output.size
    prob = output.class_logits[-1].float().softmax(-1)[..., :-1]  # [B, Q, K]
    low, high, share = _neighbours(rows, inner[0], size[0])
    needed = torch.arange(int(low[0]), int(high[-1]) + 1)
    large = _resize_columns(_blend(masks, *_neighbours(needed, masks.shape[-2], output.padded[0])), output.padded[1])
    planes = large[..., : inner[1]].sigmoid_()
    shrinks = size[0] * size[1] < inner[0] * inner[1]
    planes = planes if shrinks else _times(prob, planes)
    if inner != size:
        planes = _resize_columns(_blend(planes, low - low[0], high - low[0], share), size[1])
    scores = _times(prob, planes) if shrinks else planes
    return scores.flip(-1) if view.mirrored else scores


def _times(prob: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """prob [B, Q, K], masks [B, Q, h, w] -> scores [B, K, h, w]."""
    return (prob.mT @ masks.flatten(2)).unflatten(-1, masks.shape[-2:])


def _neighbours(rows: torch.Tensor, old: int, new: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row above, row below, weight of the row below) for a bilinear resize from `old` to `new` rows.

    The outer edges of both images coincide (align_corners=False).
    """
    if old == new:
        return rows, rows, torch.zeros(len(rows))
    place = ((rows.double() + 0.5) * (old / new) - 0.5).clamp(min=0)
    low = place.long().clamp(max=old - 1)
    return low, (low + 1).clamp(max=old - 1), (place - low).float()


def _blend(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Interpolates rows of [..., h, w]."""
    low, high, share = (index.to(values.device) for index in (low, high, share))
    return torch.lerp(values[..., low, :], values[..., high, :], share[:, None])


def _resize_columns(values: torch.Tensor, width: int) -> torch.Tensor:
    """Bilinear resize of the columns: [B, C, h, w] -> [B, C, h, width]."""
    if values.shape[-1] == width:
        return values
    return F.interpolate(values, size=(values.shape[-2], width), mode="bilinear", align_corners=False)
