"""What sharing the frozen trunk saves in a step of SSUL: previous and new network as two, and as one trunk with two
sets of heads and a loss on the trained channels. The loss of two networks is that of the released code.

    python -m benchmarks.incremental_step --backbone resnet50 --size 257 --batch 2
"""

import argparse
import copy

import torch

from benchmarks import baselines
from benchmarks.training_step import best_of
from losses.ssul import binary_cross_entropy, pseudo_label
from models.incremental.network import IncrementalDeepLab, best_channel, upsample
from models.trunks import BACKBONES, build_backbone

HEADS = [1, 1, 15, 1, 1, 1]  # unknown, background, and four steps of VOC 15-1


def networks(backbone: str) -> tuple[IncrementalDeepLab, IncrementalDeepLab]:
    """(previous network, new network with one more head, of which three heads train)."""
    torch.manual_seed(0)
    old = IncrementalDeepLab(build_backbone(backbone, 16, "random"), HEADS, dropout=0.0).eval().requires_grad_(False)
    new = copy.deepcopy(old)
    new.add_head(1)
    new.requires_grad_(False)
    new.freeze_batchnorm()
    for head in (new.classifier.head[0], new.classifier.head[1], new.classifier.head[-1]):
        head[0].requires_grad_(True)
        head[3].requires_grad_(True)
    return old, new.train()


def plain(old: IncrementalDeepLab, new: IncrementalDeepLab, image: torch.Tensor, label: torch.Tensor) -> None:
    with torch.no_grad():
        target = pseudo_label(label, *old(image).logits.sigmoid().max(1), 0.7, 1)
    new.zero_grad()
    baselines.binary_cross_entropy(new.cell_logits(image)[0], target).backward()


def shared(old: IncrementalDeepLab, new: IncrementalDeepLab, image: torch.Tensor, label: torch.Tensor) -> None:
    heads = new.classifier.head
    with torch.no_grad():
        features, low = new.features(image)
        scores = upsample(new.decode(features, low, [*old.classifier.head[:2], *heads[2:-1]]), image.shape[-2:])
        target = pseudo_label(label, *best_channel(scores, "bce"), 0.7, 1)
    new.zero_grad()
    trained = new.decode(new.drop(features), low, [heads[0], heads[1], heads[-1]])
    channels = [0, 1, sum(HEADS)]
    binary_cross_entropy(trained, target, channels).backward()


def gradients(step, *arguments) -> torch.Tensor:
    step(*arguments)
    return torch.cat([p.grad.flatten() for p in arguments[1].parameters() if p.grad is not None])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--size", type=int, default=257)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args(argv)
    image = torch.randn(options.batch, 3, options.size, options.size)
    label = torch.randint(0, 2, (options.batch, options.size, options.size))
    arguments = (*networks(options.backbone), image, label)
    expected, found = gradients(plain, *arguments), gradients(shared, *arguments)
    assert (found - expected).norm() < 1e-4 * expected.norm()
    one, two = (best_of(lambda step=step: step(*arguments), options.repeat) for step in (plain, shared))
    print(f"{options.backbone}, {options.batch} x {options.size} px: {one:.2f} s as two networks, {two:.2f} s shared")
    print(f"ratio {one / two:.2f}")


if __name__ == "__main__":
    main()
