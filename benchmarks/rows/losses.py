"""Losses: the plain formula, which the released programs compute, and the form that training uses."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.rows.row import CROP, SQUARE, STRIDE, VIEW, Memory, Row, blocks, cells, close, gradient, peak_mib
from losses.cross_entropy import cross_entropy
from losses.maskcontrast import pixel_to_prototype, pixel_to_prototype_plain
from losses.maskformer import (
    Targets,
    class_loss,
    class_loss_plain,
    find_targets,
    mask_loss,
    mask_loss_plain,
    match,
    match_plain,
)
from losses.simformer import complementary_loss, complementary_loss_plain
from losses.ssul import binary_cross_entropy, binary_cross_entropy_plain
from losses.zs3 import weighted_cross_entropy
from models.segmentation import upsample_logits
from utils.labels import IGNORE

TEMPERATURE, BANK = 0.5, 128  # of MaskContrast
LAYERS, QUERIES, NOVEL, PAIR = 6, 100, (3, 6), 2  # of MaskFormer; classes without masks; images of a batch
COMPLEMENT = 0.15  # weight of CompLoss


def rows(quick: bool) -> Iterator[Row]:
    size, images = (65, 1) if quick else (CROP, 2)
    for classes in (22, 152):
        few, label = cells(classes, images, size), blocks(classes, images, size)
        forms = binary_cross_entropy_plain, binary_cross_entropy
        ways = (partial(gradient, form, few, label) for form in forms)
        yield close(f"SSUL loss, forward and backward, {classes} channels", *ways, images, atol=1e-8)
    embedding, *given = _objects(4, VIEW)
    ways = (partial(gradient, form, embedding, *given) for form in (_contrast_plain, _contrast))
    yield close("MaskContrast loss, forward and backward", *ways, 4)
    proposals = _proposals(quick)
    ways = (partial(_criterion_gradients, *proposals, form) for form in (_criterion_plain, _criterion))
    yield close("MaskFormer losses, forward and backward", *ways, PAIR)


def memory(quick: bool = False) -> Iterator[Memory]:
    """Memory of a loss and its gradient for one image, without the network's output, at the sizes of the papers."""
    large, square, small, view = (65,) * 4 if quick else (CROP, SQUARE, 312, VIEW)
    for name, classes, size, stride, *ways in (
        ("SSUL, VOC: 22 channels", 22, large, STRIDE, binary_cross_entropy_plain, binary_cross_entropy),
        ("SSUL, ADE20K: 152 channels", 152, large, STRIDE, binary_cross_entropy_plain, binary_cross_entropy),
        ("NCDSS, PASCAL-5i: 26 channels", 26, square, 8, _usual_cross_entropy, _cross_entropy),
        ("NCDSS, COCO-20i: 101 channels", 101, square, 8, _usual_cross_entropy, _cross_entropy),
        ("ZS3Net, Pascal-Context: 60 channels", 60, small, 4, _usual_cross_entropy, _weighted_cross_entropy),
    ):
        few, label = cells(classes, 1, size, stride), blocks(classes, 1, size)
        yield Memory(f"{name} of {size} pixels", *(_peak(way, few, label) for way in ways))
    embedding, *given = _objects(1, view)
    peaks = (_peak(way, embedding, *given) for way in (_contrast_plain, _contrast))
    yield Memory(f"MaskContrast, a bank of {BANK}, {view} pixels", *peaks)
    proposals, size = _proposals(quick), 64 if quick else 640
    peaks = (
        peak_mib(partial(_criterion_gradients, *proposals, form)) / PAIR for form in (_criterion_plain, _criterion)
    )
    yield Memory(f"MaskFormer, {proposals[0].shape[-1] - 1} classes, {size} pixels", *peaks)


def _peak(loss, leaf: torch.Tensor, *given: torch.Tensor) -> float:
    leaf = leaf.clone().requires_grad_()
    return peak_mib(lambda: loss(leaf, *given).backward(), leaf)


# ---- cross-entropy


def _usual_cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    large = F.interpolate(few, size=label.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(large, label, ignore_index=IGNORE)


def _cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return cross_entropy(upsample_logits(few, label.shape[-2:]), label)


def _weighted_cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return weighted_cross_entropy(upsample_logits(few, label.shape[-2:]), label)


# ---- MaskContrast


def _objects(images: int, size: int) -> tuple[torch.Tensor, ...]:
    """Embeddings channels-last, masks with three tenths of the pixels, prototypes, bank."""
    embedding = torch.randn(images, 32, size, size).contiguous(memory_format=torch.channels_last)
    mask = torch.zeros(images, size, size, dtype=torch.bool)
    mask[:, size // 4 : 3 * size // 4, size // 5 : 4 * size // 5] = True
    return embedding, mask, F.normalize(torch.randn(images, 32), dim=1), F.normalize(torch.randn(32, BANK), dim=0)


def _contrast_plain(embedding: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
    return pixel_to_prototype_plain(embedding, *given, TEMPERATURE).loss


def _contrast(embedding: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
    return pixel_to_prototype(embedding, *given, TEMPERATURE).loss


# ---- MaskFormer


def _proposals(quick: bool) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Class logits, mask logits at stride 4 and targets of two images with five base and two novel classes."""
    size, classes = (64, 9) if quick else (640, 171)
    cell = -(-size // 5)
    squares = np.random.RandomState(0).permutation(np.resize([0, 1, 2, 4, 5, 3, 6], 50)).reshape(2, 5, 5)
    label = torch.from_numpy(np.kron(squares, np.ones((1, cell, cell)))[:, :size, :size].astype(np.uint8))
    present = torch.stack([(label == number).flatten(1).any(1) for number in range(classes)], 1)
    targets = find_targets(label, present, [number for number in range(classes) if number not in NOVEL])
    masks = 3 * torch.randn(LAYERS, PAIR, QUERIES, size // 4, size // 4)
    return torch.randn(LAYERS, PAIR, QUERIES, classes + 1), masks, targets


def _criterion_gradients(logits: torch.Tensor, masks: torch.Tensor, targets: Targets, form) -> tuple:
    leaves = [values.requires_grad_() for values in (logits, masks)]
    return torch.autograd.grad(form(*leaves, targets), leaves)


def _criterion_plain(logits: torch.Tensor, masks: torch.Tensor, targets: Targets) -> torch.Tensor:
    assigned = match_plain(logits, masks, targets)
    focal, dice = mask_loss_plain(masks, targets, assigned)
    complement = complementary_loss_plain(masks, targets, assigned)
    return (class_loss_plain(logits, targets, assigned) + 20 * focal + dice + COMPLEMENT * complement).sum()


def _criterion(logits: torch.Tensor, masks: torch.Tensor, targets: Targets) -> torch.Tensor:
    assigned = match(logits, masks, targets)
    focal, dice = mask_loss(masks, targets, assigned)
    complement = complementary_loss(masks, targets, assigned)
    return (class_loss(logits, targets, assigned) + 20 * focal + dice + COMPLEMENT * complement).sum()
