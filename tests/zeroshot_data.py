"""Small copies of VOC with SBD and of Pascal-Context, in their published folders and file formats."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from data.classes import load_classes
from data.io import write_label
from utils.checkpoint import write_list

SIZES = ((40, 56), (56, 40), (48, 48))  # height, width of images in turn
SBD = "benchmark_RELEASE/dataset"


def scene(number: int, kinds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(image, label) with a rectangle of each class, its grey level telling the class."""
    rng, (height, width) = np.random.default_rng(number), SIZES[number % len(SIZES)]
    image, label = rng.integers(90, 130, (height, width, 3)).astype(np.uint8), np.zeros((height, width), np.uint8)
    for place, kind in enumerate(kinds):
        rows, columns = slice(6 + 10 * place, 20 + 10 * place), slice(8, width - 8 - 4 * place)
        label[rows, columns] = kind
        image[rows, columns] = (10 * kind % 256, 255 - 10 * kind % 256, 40 * kind % 256)
    return image, label


def save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def make_voc_sbd(root: Path, images: dict[str, dict[str, tuple[int, ...]]] | None = None) -> Path:
    """VOC 2012 with SBD inside. `images` gives the classes in each mask of the lists train, val and sbd."""
    images = images or voc_images()
    number = {name: at for at, name in enumerate(sorted({name for listed in images.values() for name in listed}))}
    for part, listed in images.items():
        for name, kinds in listed.items():
            image, label = scene(number[name], kinds)
            save_image(root / "JPEGImages" / f"{name}.jpg", image)
            if part == "sbd":
                save_image(root / SBD / "img" / f"{name}.jpg", image)
                (root / SBD / "cls").mkdir(parents=True, exist_ok=True)
                savemat(root / SBD / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": label, "Boundaries": 0}})
            else:
                label[0] = 255
                write_label(root / "SegmentationClass" / f"{name}.png", label)
        folder = f"{SBD}/train_noval.txt" if part == "sbd" else f"ImageSets/Segmentation/{part}.txt"
        write_list(root / folder, list(listed))
    return root


def voc_images() -> dict[str, dict[str, tuple[int, ...]]]:
    """Every class somewhere; enough images without an unseen class for every K."""
    train = {f"2007_{number:06d}": (number, 15) for number in range(1, 21)}
    train |= {f"2007_{number:06d}": (2, 15) for number in range(21, 26)}
    sbd = {f"2008_{number:06d}": (number, 12) for number in range(1, 21)} | {"2007_000001": (15,)}
    val = {f"2009_{number:06d}": (number, 1 + number % 20) for number in range(1, 21)}
    return {"train": train, "sbd": sbd, "val": val}


def make_context(root: Path, images: dict[str, dict[str, tuple[int, ...]]] | None = None) -> Path:
    """Pascal-Context: 459 labels, `images` gives the classes (of 60) in each mask of the lists train and val."""
    numbers = write_labels(root)
    table = np.zeros(60, np.uint16)
    for number, name in enumerate(load_classes("context").names):
        table[number] = numbers[name] if number else 459  # background: any other label
    for part, listed in (images or context_images()).items():
        for at, (name, kinds) in enumerate(listed.items()):
            image, label = scene(at, kinds)
            save_image(root / "VOCdevkit/VOC2010/JPEGImages" / f"{name}.jpg", image)
            folder = root / "full_annotations/trainval"
            folder.mkdir(parents=True, exist_ok=True)
            savemat(folder / f"{name}.mat", {"LabelMap": table[label]})
        write_list(root / f"{part}.txt", list(listed))
    return root


def write_labels(root: Path) -> dict[str, int]:
    """labels.txt with 459 names, the 59 classes scattered among them; name -> number, from 1."""
    classes = load_classes("context").names[1:]
    names = [f"other {number}" for number in range(459)]
    for place, name in enumerate(classes):
        names[7 * place + 3] = name
    text = "".join(f"{number}: {name}\n" for number, name in enumerate(names, start=1))
    (root / "full_annotations").mkdir(parents=True, exist_ok=True)
    (root / "full_annotations/labels.txt").write_text(text)
    return {name: number for number, name in enumerate(names, start=1)}


def context_images() -> dict[str, dict[str, tuple[int, ...]]]:
    train = {f"2008_{number:06d}": (number, 36) for number in range(1, 60)}
    val = {f"2009_{number:06d}": (number, 1 + number % 59) for number in range(1, 60, 2)}
    return {"train": train, "val": val}
