"""What a step and an evaluation of weak-shot segmentation take the published way and ours: assignment and losses of
proposals, and their way to classes of pixels. Both ways are compared before they are timed, in CPU seconds of one
thread; the plain way is that of the published code, in few lines. A minute of processor time.

    python -m benchmarks.weakshot --size 640 --classes 171
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from losses.maskformer import Targets, class_loss, find_targets, mask_loss, match
from losses.simformer import complementary_loss
from models.weakshot.mask_scores import predict_classes
from models.weakshot.maskformer import MaskOutput
from models.weakshot.simnet import SimNet

LAYERS, QUERIES, NOVEL = 6, 100, (3, 6)
IMAGES = 2  # of a batch
LIMIT = 30.0  # seconds after which a call is not repeated, also on a machine that does other things besides
WEIGHTS = {"classes": 1.0, "focal": 20.0, "dice": 1.0, "complement": 0.15}


class Ways(NamedTuple):
    """The published way and ours, and a check that both give the same."""

    plain: Callable[[], object]
    ours: Callable[[], object]
    same: Callable[[], None]


def least(step: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of some calls."""
    begun, seconds = time.perf_counter(), []
    while len(seconds) < repeats and (not seconds or time.perf_counter() - begun < LIMIT):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return min(seconds)


def batch(size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Class logits, mask logits at stride 4, and label maps of two images with five base and two novel classes."""
    torch.manual_seed(0)
    cell = -(-size // 5)
    blocks = np.random.RandomState(0).permutation(np.resize([0, 1, 2, 4, 5, 3, 6], 50)).reshape(2, 5, 5)
    label = torch.from_numpy(np.kron(blocks, np.ones((1, cell, cell)))[:, :size, :size].astype(np.uint8))
    masks = 3 * torch.randn(LAYERS, 2, QUERIES, size // 4, size // 4)
    return torch.randn(LAYERS, 2, QUERIES, classes + 1), masks, label


def plain_costs(logits: torch.Tensor, masks: torch.Tensor, planes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """[Q, T] of one layer and image; two maps of cross-entropy for every proposal."""
    small = F.interpolate(planes[None], size=masks.shape[-2:], mode="nearest")[0].flatten(1)
    x, seen = masks.flatten(1), small.any(1)
    score, truth = x.sigmoid(), small[seen]
    inside = 0.25 * (1 - score) ** 2 * F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none")
    outside = 0.75 * score**2 * F.binary_cross_entropy_with_logits(x, torch.zeros_like(x), reduction="none")
    focal = (inside @ truth.T + outside @ (1 - truth).T) / x.shape[1]
    dice = 1 - (2 * score @ truth.T + 1) / (score.sum(1)[:, None] + truth.sum(1) + 1)
    costs = -logits.softmax(-1)[:, classes]
    costs[:, seen] += 20 * focal + dice
    return costs


def plain_losses(x: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal, dice) of each mask [M, HW]."""
    score, entropy = x.sigmoid(), F.binary_cross_entropy_with_logits(x, truth, reduction="none")
    certain = score * truth + (1 - score) * (1 - truth)
    focal = (0.25 * truth + 0.75 * (1 - truth)) * (1 - certain) ** 2 * entropy
    return focal.mean(1), 1 - (2 * (score * truth).sum(1) + 1) / (score.sum(1) + truth.sum(1) + 1)


def plain_assignment(logits: torch.Tensor, masks: torch.Tensor, targets: Targets) -> list[list[torch.Tensor]]:
    """The proposals of each layer and image, each found on the host by itself."""
    found = []
    with torch.no_grad():
        for layer in range(LAYERS):
            found.append([])
            for image, (classes, planes) in enumerate(dense(targets)):
                costs = plain_costs(logits[layer, image], masks[layer, image], planes, classes)
                proposals, columns = linear_sum_assignment(costs.cpu().numpy())
                found[-1].append(torch.from_numpy(proposals[np.argsort(columns)]))
    return found


def dense(targets: Targets) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(classes [T], a plane [T, H, W] for each, empty for novel ones) of each image."""
    listed = []
    for image, classes in enumerate(targets.classes.split(targets.counts)):
        planes = (targets.label[image] == classes[:, None, None]).float()
        listed.append((classes, planes * torch.tensor([int(c) not in NOVEL for c in classes])[:, None, None]))
    return listed


def plain_criterion(logits: torch.Tensor, masks: torch.Tensor, targets: Targets) -> torch.Tensor:
    """The weighted sum of all losses, layer by layer; masks of all assigned proposals at the size of the label."""
    total, assigned = logits.new_zeros(()), plain_assignment(logits, masks, targets)
    size, weight = targets.label.shape[-2:], torch.ones(logits.shape[-1])
    weight[-1] = 0.1
    for layer in range(LAYERS):
        wanted, large, truth, complement = torch.full((2, QUERIES), logits.shape[-1] - 1), [], [], []
        for image, (classes, planes) in enumerate(dense(targets)):
            chosen = assigned[layer][image]
            wanted[image, chosen] = classes
            x = F.interpolate(masks[layer, image, chosen][:, None], size=size, mode="bilinear", align_corners=False)
            large.append(x[:, 0].flatten(1))
            truth.append(planes.flatten(1))
            novel = ~truth[-1].any(1)
            union = torch.cat([large[-1][novel], torch.full_like(large[-1][:1], -2.9444)]).max(0).values
            focal, dice = plain_losses(union[None], (1 - truth[-1][~novel].max(0).values)[None])
            complement.append((20 * focal + dice).sum())
        joined, known = torch.cat(large), torch.cat(truth)
        shown = known.any(1)
        focal, dice = (loss.sum() / shown.sum() for loss in plain_losses(joined[shown], known[shown]))
        classes = F.cross_entropy(logits[layer].transpose(1, 2), wanted, weight)
        total = total + 20 * focal + dice + classes + 0.15 * sum(complement) / (2 + 1e-5)
    return total


def our_criterion(logits: torch.Tensor, masks: torch.Tensor, targets: Targets) -> torch.Tensor:
    assigned = match(logits, masks, targets)
    focal, dice = mask_loss(masks, targets, assigned)
    losses = {
        "classes": class_loss(logits, targets, assigned),
        "focal": focal,
        "dice": dice,
        "complement": complementary_loss(masks, targets, assigned),
    }
    return torch.stack([WEIGHTS[name] * loss.sum() for name, loss in losses.items()]).sum()


def criterion(size: int, classes: int) -> dict[str, Ways]:
    """Assignment alone, all losses, all losses and their gradients."""
    logits, masks, label = batch(size, classes)
    present = torch.stack([(label == number).flatten(1).any(1) for number in range(classes)], 1)
    targets = find_targets(label, present, [number for number in range(classes) if number not in NOVEL])
    leaves = [values.requires_grad_() for values in (logits, masks)]

    def gradients(way: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(way(*leaves, targets), leaves)

    def same_assignment() -> None:
        plain = plain_assignment(logits, masks, targets)
        assert torch.equal(match(logits, masks, targets), torch.stack([torch.cat(layer) for layer in plain]))

    def same_loss() -> None:
        with torch.no_grad():
            torch.testing.assert_close(*(way(*leaves, targets) for way in ways), rtol=1e-4, atol=0)

    def same_gradients() -> None:
        for pair in zip(*(gradients(way) for way in ways), strict=True):
            torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-6)

    ways = plain_criterion, our_criterion
    return {
        "assignment": Ways(*(partial(way, *leaves, targets) for way in (plain_assignment, match)), same_assignment),
        "losses": Ways(*(partial(way, *leaves, targets) for way in ways), same_loss),
        "losses and gradients": Ways(*(partial(gradients, way) for way in ways), same_gradients),
    }


def similarity(points: int) -> Ways:
    """SimNet and its gradients on all pairs of points of two images: both embeddings side by side, and ours."""
    torch.manual_seed(0)
    model, features = SimNet(), torch.randn(1, 2, points, 256)

    def plain() -> torch.Tensor:
        sides = features[..., :, None, :], features.flip(1)[..., None, :, :]
        x = torch.cat([side.expand(1, 2, points, points, 256) for side in sides], -1).flatten(0, -2)
        for block in model.blocks:
            x = block(x)
        different, same = model.out_head(x).unbind(1)
        return (same - different).view(1, 2, points, points)

    def learn(way: Callable[[], torch.Tensor]) -> None:
        model.zero_grad()
        way().square().mean().backward()

    def same() -> None:
        with torch.no_grad():
            torch.testing.assert_close(plain(), ours(), atol=1e-4, rtol=1e-4)

    ours = partial(model.pairs, features)
    return Ways(partial(learn, plain), partial(learn, ours), same)


def plain_classes(output: MaskOutput, size: tuple[int, int]) -> torch.Tensor:
    """Classes of pixels with every mask and every score at full size."""
    masks = F.interpolate(output.mask_logits[-1], size=output.padded, mode="bilinear", align_corners=False).sigmoid()
    scores = torch.einsum("bqk,bqhw->bkhw", output.class_logits[-1].softmax(-1)[..., :-1], masks)
    scores = scores[..., : output.size[0], : output.size[1]]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False).argmax(1)


def peak(step: Callable[[], object]) -> float:
    """Megabytes that a call needs beyond what the process holds (Linux with glibc)."""
    status = Path("/proc/self/status")

    def read(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left is not reused
    before = read("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    step()
    return (read("VmHWM:") - before) / 1024


def inference(size: int, classes: int) -> Ways:
    """Classes of the pixels of one image of 3 : 4 whose shorter side is `size`."""
    torch.manual_seed(0)
    height, width = size, -(-size * 4 // 3 // 32) * 32
    masks = 3 * torch.randn(1, 1, QUERIES, height // 4, width // 4)
    inner, wanted = (height, width - 10), (height * 3 // 4, width * 3 // 4)
    output = MaskOutput(torch.randn(1, 1, QUERIES, classes + 1), masks, masks, inner, (height, width))
    plain, ours = (partial(way, output, wanted) for way in (plain_classes, predict_classes))

    def same() -> None:
        assert (plain() != ours()).float().mean() < 1e-3  # but for ties

    return Ways(plain, ours, same)


def host(repeats: int) -> tuple[float, float]:
    """Seconds for the assignment problems of 8 images, one after the other and by four threads."""
    r = np.random.RandomState(0)
    problems = [r.rand(QUERIES, 12).astype(np.float32) for _ in range(8 * LAYERS)]
    with ThreadPoolExecutor(4) as pool:
        one_by_one = least(lambda: [linear_sum_assignment(problem) for problem in problems], repeats)
        start = time.perf_counter()  # threads wait for one another, which CPU seconds do not show
        for _ in range(repeats):
            list(pool.map(linear_sum_assignment, problems))
        return one_by_one, (time.perf_counter() - start) / repeats


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=640, help="side of the crop, pixels; a multiple of 32")
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--points", type=int, default=100, help="of each image that SimNet compares")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    work = criterion(options.size, options.classes)
    work["similarity of pairs"] = similarity(options.points)
    work["classes of pixels"] = classes = inference(options.size, options.classes)
    needs = [peak(way) for way in (classes.ours, classes.plain)]  # first, while little has been left to be used again
    for name, ways in work.items():
        ways.same()
        plain, ours = (least(way, options.repeats) for way in ways[:2])
        times = f"published way {plain:7.3f} s, ours {ours:7.3f} s, {plain / ours:5.1f} times"
        print(f"{name:22} {times}", flush=True)
    print(f"{'memory of the last':22} published way {needs[1]:6.0f} MB, ours {needs[0]:6.0f} MB")
    alone, pooled = host(options.repeats)
    print(f"48 assignment problems one by one {1000 * alone:.2f} ms, by four threads {1000 * pooled:.2f} ms")


if __name__ == "__main__":
    main()
