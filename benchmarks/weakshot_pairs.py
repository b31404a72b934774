"""What the data of weak-shot segmentation take the published way and ours: the classes of a mask, the statistics of
pairs, a training sample. Both ways are compared before they are timed; the plain way is that of the published code, in
few lines.

    python -m benchmarks.weakshot_pairs --images 20194 --classes 150 --novel 38
"""

import argparse
import time

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.training_step import best_of
from data.io import one_opencv_thread
from data.weakshot.crops import WeakCrop, brightness, classes_in, contrast, hue, saturation, shortest_edge
from data.weakshot.pairs import ALONE, COMMON, Partners
from utils.labels import IGNORE

SIZES, SIZE, LONGEST = range(320, 961, 64), 640, 2560  # of COCO-Stuff-10K
SHOWN = 8  # classes of an image, about
ROWS = 64  # images that the plain way is measured on


def plain_lists(shown: list[set[int]], novel: set[int], index: int) -> tuple[dict[int, set[int]], set[int], set[int]]:
    """Of an image: others that share one novel class, by class; with several novel classes; that share a base class."""
    own_novel, own_base = shown[index] & novel, shown[index] - novel
    alone: dict[int, set[int]] = {number: set() for number in own_novel}
    several: set[int] = set()
    common: set[int] = set()
    for other, classes in enumerate(shown):
        both = own_novel & classes
        if len(both) == 1:
            _add(alone[next(iter(both))], other, ALONE)
        elif len(own_novel) >= 2:
            _add(several, other, COMMON)
        if own_base & classes:
            _add(common, other, COMMON)
    return alone, several, common


def _add(kept: set[int], item: int, most: int) -> None:
    kept.add(item)
    if len(kept) > most:
        kept.remove(list(kept)[np.random.randint(most)])


def pair_statistics(images: int, classes: int, novel: int) -> tuple[float, float]:
    """Candidates of every image, in seconds: the plain way from a few images, as each takes alike."""
    rng = np.random.default_rng(0)
    presence = (rng.random((images, classes)) < SHOWN / classes).astype(np.uint8)
    columns = tuple(range(0, classes, classes // novel))[:novel]
    shown = [set(np.flatnonzero(row).tolist()) for row in presence]
    partners = Partners(presence, columns)
    few = range(min(ROWS, images))
    start = time.process_time()
    plain = [plain_lists(shown, set(columns), index) for index in few]
    published = (time.process_time() - start) / len(few) * images
    for (alone, several, common), ours in zip(plain, partners.candidates(few), strict=True):
        assert {number: len(found) for number, found in alone.items()} == {n: len(f) for n, f in ours.alone.items()}
        assert len(several) == len(ours.novel) and len(common) == len(ours.base)
    start = time.process_time()
    for first in range(0, images, 256):
        partners.candidates(range(first, min(first + 256, images)))
    return published, time.process_time() - start


def classes_of_masks(repeats: int) -> tuple[float, float]:
    """The classes of a mask of 480 x 640 pixels: sorted, and counted."""
    label = scene()["label"]
    assert np.unique(label).tolist() == np.flatnonzero(classes_in(label, 171)).tolist()
    return best_of(lambda: np.unique(label), repeats), best_of(lambda: classes_in(label, 171), repeats)


def scene() -> dict[str, np.ndarray]:
    """A photograph's worth of soft colours, 480 x 640, and a label of squares."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 5)
    label = rng.integers(0, 171, (8, 8)).astype(np.uint8).repeat(60, 0).repeat(80, 1)
    return {"image": image, "label": label}


def plain_sample(fields: dict[str, np.ndarray], novel: set[int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The published mapper: the whole image is resized, the label as float64; a plane per class, novel ones empty."""
    image, label = fields["image"], fields["label"].astype(np.float64)
    rows, columns = shortest_edge(label.shape, int(rng.choice(SIZES)), LONGEST)
    image = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    resized = torch.nn.functional.interpolate(torch.from_numpy(label)[None, None], (rows, columns), mode="nearest")
    label = resized[0, 0].numpy()
    height, width = min(rows, SIZE), min(columns, SIZE)
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    image, label = image[top : top + height, left : left + width], label[top : top + height, left : left + width]
    image = saturation(contrast(brightness(image, 10.0), 1.1), 1.1) if rng.random() < 0.5 else hue(image, 5)
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    room = (0, SIZE - width, 0, SIZE - height)
    pixels = torch.nn.functional.pad(torch.from_numpy(image.transpose(2, 0, 1).copy()), room, value=128)
    padded = torch.nn.functional.pad(torch.from_numpy(label.copy()), room, value=IGNORE).numpy()
    present = np.unique(padded)
    planes = [np.zeros(padded.shape) if int(n) in novel else padded == n for n in present[present != IGNORE]]
    masks = torch.stack([torch.from_numpy(np.ascontiguousarray(plane)).double() for plane in planes])
    return {"image": pixels.numpy(), "label": padded, "masks": masks.numpy()}


def sample(repeats: int) -> tuple[float, float]:
    """A training sample from a decoded photograph; means of many draws, whose sizes differ."""
    fields, novel, crop = scene(), set(range(0, 171, 4)), WeakCrop(SIZE, SIZES, LONGEST, 171)

    def plain() -> None:
        for seed in range(repeats):
            plain_sample(fields, novel, np.random.default_rng(seed))

    def ours() -> None:
        for seed in range(repeats):
            crop(fields, np.random.default_rng(seed))

    return best_of(plain, 2) / repeats, best_of(ours, 2) / repeats


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8993, help="training images")
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--novel", type=int, default=43)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    one_opencv_thread()
    measured = {
        "pair statistics": pair_statistics(options.images, options.classes, options.novel),
        "classes of a mask": classes_of_masks(options.repeats),
        "training sample": sample(options.repeats),
    }
    for name, (published, ours) in measured.items():
        times = f"published way {1000 * published:10.1f} ms, ours {1000 * ours:8.2f} ms"
        print(f"{name:18} {times}, {published / ours:6.1f} times")


if __name__ == "__main__":
    main()
