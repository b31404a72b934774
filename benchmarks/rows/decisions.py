"""From logits to maps of classes, scores of images and prototypes of objects."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.rows.row import CROP, SQUARE, Row, agree, blocks, cells, close
from cluster_pseudolabel import MAPS, base_removal
from losses.eums import image_entropy, image_entropy_plain
from models.incremental.scores import predicted_ids
from models.segmentation import upsample_logits
from models.weakshot.mask_scores import predict_classes
from models.weakshot.maskformer import MaskOutput
from utils.measure.clustering import mask_prototypes

THRESHOLD = 0.9  # of a certain base class
QUERIES = 100
CHUNK = 16  # channels up-sampled at a time


def rows(quick: bool) -> Iterator[Row]:
    size, images = (65, 1) if quick else (CROP, 2)
    few = cells(152, images, size)
    theirs, ours = partial(_incremental, few, (size, size)), partial(_our_incremental, few, (size, size))
    yield agree("SSUL prediction, 152 channels", theirs, ours, images)
    size, images = (64, 1) if quick else (SQUARE, 2)
    for classes in (16, 61):
        few, saliency = cells(classes, images, size, 8), (blocks(2, images, size) == 1).byte()
        ways = (partial(way, few, saliency) for way in (_base_removal, _our_base_removal))
        yield agree(f"base-removal maps, C = {classes}", *ways, images)
    for classes in (26, 101):
        few, mask = cells(classes, images, size, 8), torch.zeros(images, size, size, dtype=torch.bool)
        mask[:, size // 4 : 3 * size // 4, size // 3 : 3 * size // 4] = True
        ways = (partial(form, few, mask) for form in (image_entropy_plain, image_entropy))
        yield close(f"entropy of an image, C = {classes}", *ways, images)
    features, weight = torch.rand(1, 64 if quick else 2048, 64, 64), (torch.rand(1, SQUARE, SQUARE) < 0.3).float()
    ways = (partial(way, features, weight) for way in (_prototypes, mask_prototypes))
    yield close("prototype of an object", *ways, atol=1e-4)
    output, wanted = _proposals(*((64, 9) if quick else (640, 171)))
    ways = (partial(way, output, wanted) for way in (_mask_classes, predict_classes))
    yield agree("MaskFormer: classes of pixels", *ways)


def _incremental(few: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """SSUL: sigmoid of every up-sampled channel, the unknown class added to background."""
    scores = F.interpolate(few, size=size, mode="bilinear", align_corners=False).sigmoid()
    scores[:, 1] += scores[:, 0]
    return scores[:, 1:].argmax(1)


def _our_incremental(few: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return predicted_ids(upsample_logits(few, size), unknown=True, loss="bce")


def _base_removal(few: torch.Tensor, saliency: torch.Tensor) -> list[torch.Tensor]:
    """NCDSS: prediction, certain prediction, its pixels, and the salient pixels outside."""
    logits = F.interpolate(few, size=saliency.shape[-2:], mode="bilinear", align_corners=False)
    confidence, prediction = F.softmax(logits, dim=1).max(1)
    certain = prediction.clone()
    certain[confidence <= THRESHOLD] = 0
    return [prediction.byte(), certain.byte(), (certain > 0).byte() * 255, torch.where(certain > 0, 0, saliency)]


def _our_base_removal(few: torch.Tensor, saliency: torch.Tensor) -> list[torch.Tensor]:
    maps = base_removal(upsample_logits(few, saliency.shape[-2:]), saliency, THRESHOLD)
    return [maps[name] for name in MAPS]


def _prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """NCDSS: mean of the up-sampled features over a mask, L2-normalised; features [B, D, h, w], weight [B, H, W].

    The released code up-samples all D channels at once, which takes 4.3 GB at D = 2048 and 512 x 512 pixels. Some
    channels at a time are the fairer comparison.
    """
    sums = [
        (F.interpolate(part, size=weight.shape[-2:], mode="bilinear", align_corners=False) * weight[:, None]).sum(
            (2, 3)
        )
        for part in features.split(CHUNK, dim=1)
    ]
    return F.normalize(torch.cat(sums, 1), dim=1, eps=1e-12)


def _proposals(size: int, classes: int) -> tuple[MaskOutput, tuple[int, int]]:
    """Proposals for a padded image of 3 : 4 with the shorter side `size`, and the size of the image in its file."""
    height, width = size, -(-size * 4 // 3 // 32) * 32
    masks = 3 * torch.randn(1, 1, QUERIES, height // 4, width // 4)
    inner, wanted = (height, width - 10), (height * 3 // 4, width * 3 // 4)
    return MaskOutput(torch.randn(1, 1, QUERIES, classes + 1), masks, masks, inner, (height, width)), wanted


def _mask_classes(output: MaskOutput, size: tuple[int, int]) -> torch.Tensor:
    """MaskFormer: every mask and the scores of every class at full size."""
    masks = F.interpolate(output.mask_logits[-1], size=output.padded, mode="bilinear", align_corners=False).sigmoid()
    scores = torch.einsum("bqk,bqhw->bkhw", output.class_logits[-1].softmax(-1)[..., :-1], masks)
    scores = scores[..., : output.size[0], : output.size[1]]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False).argmax(1)
