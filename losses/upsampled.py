"""Binary cross-entropy at the resolution of the label, without the up-sampled logits of a whole image in memory.

The formula is `losses.ssul.binary_cross_entropy_plain`. B images, n of them at a time, C channels, H W pixels, h w
feature cells.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

STRIP = {"cpu": 2**18, "cuda": 2**25}  # up-sampled logits at a time: the cache of a core, 128 MiB of a GPU
LEAST_ROWS = 4  # of a strip; each strip reads the cells above and below it again
FACTORS = 64  # factors of a product; each is at least 1/2, so that the product does not underflow


class SummedBinaryCrossEntropy(torch.autograd.Function):
    """Sum over valid pixels of sum_c softplus(z_c) - z_y, z the bilinearly up-sampled logits [B, C, h, w].

    Each strip of rows is up-sampled, summed and freed. Its gradient, sigmoid(z) - one-hot target, goes back through the
    transposed up-sampling in the same pass. sum_c softplus(z_c) is computed as
    sum_c relu(z_c) - ln prod_c sigmoid(|z_c|), with one logarithm for FACTORS channels.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, place: torch.Tensor, present: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """logits float32; place int64 [B, H, W], the target channel; present bool [B, H, W], whether there is one among
        the C channels; valid bool [B, H, W], the pixels that count.
        """
        (batch, channels), (height, width) = logits.shape[:2], place.shape[-2:]
        budget, row = STRIP.get(logits.device.type, STRIP["cpu"]), channels * width
        images = max(1, budget // (row * height))
        rows = min(height, max(LEAST_ROWS, budget // (row * images)))
        total, gradients = logits.new_zeros(()), list[torch.Tensor]()
        with torch.autocast(logits.device.type, enabled=False):
            for start in range(0, batch, images):
                part = slice(start, start + images)
                strips = _Strips(logits[part], (height, width), ctx.needs_input_grad[0])
                for top in range(0, height, rows):
                    cut = slice(top, min(top + rows, height))
                    target = (t[part, cut].transpose(0, 1) for t in (place, present, valid))
                    total += strips.add(cut, *target)
                gradients += strips.gradient()
        ctx.save_for_backward(torch.cat(gradients) if gradients else None)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None


class _Strips:
    """Logits of n images up-sampled along the width, [h, n, C, W], and the gradient with respect to them."""

    def __init__(self, logits: torch.Tensor, size: tuple[int, int], with_gradient: bool):
        (self.cells, cells), (self.height, width) = logits.shape[-2:], size
        self.down = interpolation(self.cells, self.height, logits.device)  # [H, h]
        self.across = interpolation(cells, width, logits.device) if cells != width else None  # [W, w]
        logits = logits.permute(2, 0, 1, 3)
        self.values = (logits if self.across is None else logits @ self.across.T).contiguous()
        self.grad = torch.zeros_like(self.values) if with_gradient else None

    def add(self, cut: slice, place: torch.Tensor, present: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Loss of the rows `cut`, summed; adds its gradient to `grad`. place, present and valid are [rows, n, W]."""
        near, weights = self.near(cut)
        z = torch.mm(weights, self.values[near].flatten(1)).view(-1, *self.values.shape[1:])  # [rows, n, C, W]
        place = place.unsqueeze(2)
        chosen = z.gather(2, place).squeeze(2)
        prob = z.sigmoid()
        per_pixel = z.clamp_(min=0).sum(2) - torch.where(present, chosen, 0)
        sure = torch.sub(1, prob, out=z)  # 1 - sigmoid(z); sigmoid(|z|) is the larger of both
        for factors in torch.maximum(sure, prob, out=z).split(FACTORS, dim=2):
            per_pixel -= factors.prod(2).log_()
        if self.grad is not None:
            prob.scatter_(2, place, prob.gather(2, place) - present.unsqueeze(2).to(prob.dtype))
            prob *= valid.unsqueeze(2)
            self.grad[near].flatten(1).addmm_(weights.T, prob.flatten(1))
        return torch.where(valid, per_pixel, 0).sum()

    def near(self, cut: slice) -> tuple[slice, torch.Tensor]:
        """The rows of cells that the rows `cut` of pixels interpolate, and their weights [rows, cells]."""
        if self.cells == self.height:
            return cut, self.down[cut, cut]
        first, last = ((row + 0.5) * self.cells / self.height - 0.5 for row in (cut.start, cut.stop - 1))
        # one more on each side than in exact arithmetic; its weight is 0 up to rounding
        near = slice(max(0, math.floor(first) - 1), min(self.cells, math.floor(last) + 3))
        return near, self.down[cut, near]

    def gradient(self) -> list[torch.Tensor]:
        """[gradient with respect to the logits, [n, C, h, w]]; empty without `with_gradient`."""
        if self.grad is None:
            return []
        found = self.grad if self.across is None else self.grad @ self.across
        return [found.permute(1, 2, 0, 3)]


@lru_cache(maxsize=32)
def interpolation(cells: int, pixels: int, device: torch.device) -> torch.Tensor:
    """Matrix [pixels, cells] of bilinear resizing along one axis, as F.interpolate with align_corners=False.

    Cached on the device, so that a step does not wait for a copy.
    """
    low, high, share = bilinear(cells, pixels)
    matrix, rows = torch.zeros(pixels, cells), torch.arange(pixels)
    matrix[rows, low] += 1 - share
    matrix[rows, high] += share
    return matrix.to(device)


@lru_cache(maxsize=32)
def bilinear(cells: int, pixels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(lower cell, upper cell, weight of the upper) of each pixel along one axis, as F.interpolate has them."""
    at = ((torch.arange(pixels) + 0.5) * (cells / pixels) - 0.5).clamp(min=0)
    low = at.long().clamp(max=cells - 1)
    return low, (low + 1).clamp(max=cells - 1), at - low
