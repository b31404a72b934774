"""Small copies of COCO-Stuff-10K and ADE20K, in their published folders and file formats, and configurations."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from data.io import write_label
from data.weakshot.builder import WeakShotData
from tests.zeroshot_data import save_image, scene
from utils.checkpoint import write_list
from utils.config.weakshot import WeakShotConfig

NOVEL, BASE = (3, 6, 10), (0, 1, 2)  # some of the classes of COCO-Stuff's split1, as numbers in the masks
TRAIN = {  # image: classes
    "COCO_train2014_000000000001": (0, 3),
    "COCO_train2014_000000000002": (1, 3),
    "COCO_train2014_000000000003": (0, 6, 3),
    "COCO_train2014_000000000004": (2, 10),
    "COCO_train2014_000000000005": (0, 1),
    "COCO_train2014_000000000006": (2, 6),
    "COCO_train2014_000000016680": (0, 3),  # one that the official program leaves out
    "COCO_train2014_000000000008": (),  # shows no class
}
TEST = {
    "COCO_train2014_000000000011": (0, 3),
    "COCO_train2014_000000000012": (1, 6),
    "COCO_train2014_000000000013": (2, 10),
}
UNLABELLED = 255


def drawn(number: int, kinds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(image, label): a rectangle of each class, the rest unlabelled."""
    image, label = scene(number, tuple(1 + kind for kind in kinds))
    return image, np.where(label > 0, label - 1, UNLABELLED).astype(np.uint8)


def make_stuff(root: Path) -> Path:
    """COCO-Stuff-10K as published: .mat files, where 1 is unlabelled and classes begin with 2."""
    (root / "annotations").mkdir(parents=True)
    for part, listed in {"train": TRAIN, "test": TEST}.items():
        for number, (name, kinds) in enumerate(listed.items()):
            image, label = drawn(number, kinds)
            save_image(root / "images" / f"{name}.jpg", image)
            stored = np.where(label == UNLABELLED, 1, label.astype(np.int32) + 2).astype(np.uint8)
            savemat(root / "annotations" / f"{name}.mat", {"S": stored})
        write_list(root / "imageLists" / f"{part}.txt", list(listed))
    return root


def make_ade(root: Path) -> Path:
    """ADE20K as published: classes from 1, 0 unlabelled; the same scenes under its own names."""
    for part, folder, listed in (("train", "training", TRAIN), ("val", "validation", TEST)):
        for number, kinds in enumerate(listed.values(), start=1):
            image, label = drawn(number, kinds)
            name = f"ADE_{part}_{number:08d}"
            save_image(root / "images" / folder / f"{name}.jpg", image)
            write_label(root / "annotations" / folder / f"{name}.png", label + np.uint8(1))  # 255 becomes 0
        write_list(root / "sets" / f"{part}.txt", [f"ADE_{part}_{n:08d}" for n in range(1, len(listed) + 1)])
    return root


def open_data(root: Path, output: Path, **data: Any) -> WeakShotData:
    """The data of a configuration; keys that are not of its section `data` are `split`, `seed` and `partner`."""
    top = {key: data.pop(key) for key in ("split", "seed") if key in data}
    similarity = {"partner": data.pop("partner", "fixed")}
    small = {"root": root, "image_size": 32, "sizes": (24, 32, 40), "workers": 0}
    tree = {"output_dir": output, "data": small | data, "similarity": similarity, "evaluation": {"size": 32}}
    return WeakShotData.open(WeakShotConfig.model_validate(tree | top))
