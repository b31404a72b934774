"""Binary cross-entropy of every class at the pixels of the label, from logits that are never up-sampled as a whole.

B batch, n images of it at a time, C channels, H W pixels, h w feature cells.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

STRIP = {"cpu": 2**18, "cuda": 2**25}  # up-sampled logits held at a time: what a core's cache takes, a part of a GPU
LEAST_ROWS = 4  # of a strip: the cells above and below it are read with every strip
FACTORS = 64  # whose product stays far above the least float32: each is at least 1/2


class SummedBinaryCrossEntropy(torch.autograd.Function):
    """sum over valid pixels of ( sum_c softplus(z_c) - z_y ), z the bilinearly up-sampled logits [B, C, h, w].

    Strips of rows are up-sampled, summed and forgotten one after the other, and the gradient of the logits is made on
    the way: sigmoid(z) less the one-hot target, through the transposed up-sampling. What softplus costs is spared:
    sum_c softplus(z_c) = sum_c relu(z_c) - ln prod_c sigmoid(|z_c|).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, place: torch.Tensor, present: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Logits float32; place [B, H, W] is the target's channel where `present`; pixels not `valid` do not count."""
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
    """Some images' logits, up-sampled along their rows, [h, n, C, W], and the gradient of these."""

    def __init__(self, logits: torch.Tensor, size: tuple[int, int], with_gradient: bool):
        (self.cells, cells), (self.height, width) = logits.shape[-2:], size
        self.down = interpolation(self.cells, self.height, logits.device)  # [H, h]
        self.across = interpolation(cells, width, logits.device) if cells != width else None  # [W, w]
        logits = logits.permute(2, 0, 1, 3)
        self.values = (logits if self.across is None else logits @ self.across.T).contiguous()
        self.grad = torch.zeros_like(self.values) if with_gradient else None

    def add(self, cut: slice, place: torch.Tensor, present: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The loss of some rows R, summed; its gradient is added to `grad`. The target is [R, n, W]."""
        near, weights = self.near(cut)
        z = torch.mm(weights, self.values[near].flatten(1)).view(-1, *self.values.shape[1:])  # [R, n, C, W]
        place = place.unsqueeze(2)
        chosen = z.gather(2, place).squeeze(2)
        prob = z.sigmoid()
        per_pixel = z.clamp_(min=0).sum(2) - torch.where(present, chosen, 0)
        sure = torch.sub(1, prob, out=z)  # of the other side: sigmoid(|z|) is the larger of both
        for factors in torch.maximum(sure, prob, out=z).split(FACTORS, dim=2):
            per_pixel -= factors.prod(2).log_()
        if self.grad is not None:
            prob.scatter_(2, place, prob.gather(2, place) - present.unsqueeze(2).to(prob.dtype))
            prob *= valid.unsqueeze(2)
            self.grad[near].flatten(1).addmm_(weights.T, prob.flatten(1))
        return torch.where(valid, per_pixel, 0).sum()

    def near(self, cut: slice) -> tuple[slice, torch.Tensor]:
        """The rows of cells that rows of pixels are made of, and their weights."""
        if self.cells == self.height:
            return cut, self.down[cut, cut]
        first, last = ((row + 0.5) * self.cells / self.height - 0.5 for row in (cut.start, cut.stop - 1))
        # one more on each side than exact arithmetic needs: its weight is 0, or what rounding made of that
        near = slice(max(0, math.floor(first) - 1), min(self.cells, math.floor(last) + 3))
        return near, self.down[cut, near]

    def gradient(self) -> list[torch.Tensor]:
        """Of the logits, [n, C, h, w]; nothing if it was not asked for."""
        if self.grad is None:
            return []
        found = self.grad if self.across is None else self.grad @ self.across
        return [found.permute(1, 2, 0, 3)]


@lru_cache(maxsize=32)
def interpolation(cells: int, pixels: int, device: torch.device) -> torch.Tensor:
    """The matrix [pixels, cells] of bilinear resizing along one axis, as F.interpolate does it without corners aligned.

    Kept on its device: a step must not wait for a copy.
    """
    low, high, share = bilinear(cells, pixels)
    matrix, rows = torch.zeros(pixels, cells), torch.arange(pixels)
    matrix[rows, low] += 1 - share
    matrix[rows, high] += share
    return matrix.to(device)


@lru_cache(maxsize=32)
def bilinear(cells: int, pixels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(cell before, cell behind, share of the latter) of each pixel along one axis, as F.interpolate takes them."""
    at = ((torch.arange(pixels) + 0.5) * (cells / pixels) - 0.5).clamp(min=0)
    low = at.long().clamp(max=cells - 1)
    return low, (low + 1).clamp(max=cells - 1), at - low
