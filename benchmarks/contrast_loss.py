"""What MaskContrast's loss gains by going image by image and keeping its gradient instead of the logits of all pixels:
the formula written out, and ours, on the same random embeddings.

    python -m benchmarks.contrast_loss --images 16 --size 224 --bank 128
"""

import argparse

import torch
import torch.nn.functional as F

from benchmarks.training_step import best_of
from losses.maskcontrast import balanced_weights, pixel_to_prototype

TEMPERATURE = 0.5


def plain(embedding: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """The loss as its formula reads: every object pixel against every reference in one matrix."""
    label = torch.arange(len(mask))[:, None, None].expand_as(mask)[mask]
    pixels = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)[mask]
    logits = pixels @ torch.cat([prototypes, bank.T]).T / TEMPERATURE
    weights = balanced_weights(mask.flatten(1).sum(1).float())
    logits.detach().topk(5, dim=1)  # the accuracies that are reported
    return F.cross_entropy(logits, label, torch.cat([weights, torch.ones(bank.shape[1])]))


def ours(embedding: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    return pixel_to_prototype(embedding, mask, prototypes, bank, TEMPERATURE).loss


def gradient(loss, embedding: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
    leaf = embedding.detach().requires_grad_()
    loss(leaf, *arguments).backward()
    return leaf.grad


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bank", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    images, size, dim = options.images, options.size, 32
    embedding = torch.randn(images, dim, size, size).contiguous(memory_format=torch.channels_last)
    mask = torch.zeros(images, size, size, dtype=torch.bool)
    mask[:, size // 4 : 3 * size // 4, size // 5 : 4 * size // 5] = True  # three tenths of the pixels
    references = F.normalize(torch.randn(images, dim), dim=1), F.normalize(torch.randn(dim, options.bank), dim=0)
    arguments = (embedding, mask, *references)
    torch.testing.assert_close(gradient(ours, *arguments), gradient(plain, *arguments), atol=1e-7, rtol=1e-3)
    one, two = (best_of(lambda loss=loss: gradient(loss, *arguments), options.repeat) for loss in (plain, ours))
    logits = int(mask.sum()) * (images + options.bank) * 4 / 2**20
    print(f"{images} x {size} px, {options.bank} in the bank: {one:.2f} s plain, {two:.2f} s image by image")
    print(f"ratio {one / two:.2f}; logits {logits:.0f} MiB at a time plain, {logits / images:.0f} MiB image by image")


if __name__ == "__main__":
    main()
