"""Compares the fast form of a loss with its plain form, in value and gradient."""

from collections.abc import Callable, Sequence

import torch

Loss = Callable[..., torch.Tensor]


def value_and_gradients(loss: Loss, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """[value, gradient with respect to each leaf] of a loss; several values are summed with different weights."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = loss(*leaves)
    factors = torch.arange(1, 1 + value.numel(), dtype=value.dtype).view(value.shape)
    return [value.detach(), *torch.autograd.grad((factors * value).sum(), leaves)]


def assert_agree(
    fast: Loss, plain: Loss, *leaves: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-6, double: bool = False
) -> None:
    """The fast form in float32, and the plain form in float32, equal the plain form in float64.

    `double`: the fast form keeps float64, where it agrees to 1e-9.
    """
    single, wide = ([leaf.to(dtype) for leaf in leaves] for dtype in (torch.float32, torch.float64))
    expected = value_and_gradients(plain, wide)
    for form in (fast, plain):
        for found, wanted in zip(value_and_gradients(form, single), expected, strict=True):
            torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=atol)
    if double:
        for found, wanted in zip(value_and_gradients(fast, wide), expected, strict=True):
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
