"""A data set small enough to train on in seconds, and the configuration that goes with it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image

from data.io import read_label, write_label
from utils.checkpoint import read_list, write_list

# the same examples each time; scripts/faults.sh tries many
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile("many", derandomize=True, deadline=None, database=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

CLASSES = ["background", "disc", "square", "bar", "dot"]
SIZE = 40


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def draw(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image with one object of class `kind` and its mask: colour and outline give the class away."""
    image = rng.integers(90, 130, (SIZE, SIZE, 3)).astype(np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE] - rng.integers(16, 24)
    mask = [x**2 + y**2 < 150, (abs(x) < 11) & (abs(y) < 11), (abs(x) < 14) & (abs(y) < 6), x**2 + y**2 < 80][kind - 1]
    color = np.array([[230, 40, 40], [40, 200, 40], [50, 60, 220], [230, 220, 40]][kind - 1])
    image[mask] = np.clip(color + rng.integers(-20, 20, (int(mask.sum()), 3)), 0, 255)
    return image, mask


def make_voc(root: Path, train: int = 48, val: int = 12) -> Path:
    """VOC layout with classes 1..4 in turn, one object per image, 255 on one corner pixel."""
    rng = np.random.default_rng(0)
    names = {"trainaug": [f"t{i:03d}" for i in range(train)], "val": [f"v{i:03d}" for i in range(val)]}
    for part, ids in names.items():
        write_list(root / "sets" / f"{part}.txt", ids)
        for i, name in enumerate(ids):
            image, mask = draw(1 + i % 4, rng)
            (root / "images").mkdir(exist_ok=True)
            Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=95)
            label = mask.astype(np.uint8) * (1 + i % 4)
            label[0, 0] = 255
            write_label(root / "SegmentationClassAug" / f"{name}.png", label)
            write_label(root / "saliency_supervised_model" / f"{name}.png", mask.astype(np.uint8))
    return root


TINY = {
    "system": "ncdss",
    "split": "two",
    "seed": 7,
    "data": {"train_list": "trainaug", "image_size": 32, "workers": 0},
    "model": {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": [1, 2, 3]},
    "base_training": {"epochs": 3, "iters_per_epoch": 2, "batch_size": 4, "milestones": [2], "lr": 0.05},
    "cluster": {"k": 3, "pca_dim": 4, "min_pixels": 20, "n_init": 2, "features": "base", "threshold": 0.99},
    "basic": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4},
    "eums": {"epochs": 3, "iters_per_epoch": 2, "batch_size": 4, "reassign_epochs": [1]},
    "evaluation": {"batch_size": 5},
}


TASK = {
    "system": "ssul",
    "task": "abc",
    "seed": 3,
    "data": {"train_list": "trainaug", "image_size": 32, "workers": 0},
    "model": {"backbone": "mobilenet_v2", "init": "random", "head_channels": 8, "atrous_rates": [1, 2], "dropout": 0.0},
    "training": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "eval_steps": 2, "save_every": 1},
    "ssul": {"memory": 5, "pseudo_threshold": 0.1},
    "evaluation": {"batch_size": 6},
}


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    """The data root; read only."""
    return make_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def tiny(voc, tmp_path) -> Path:
    """A configuration file for `voc`: base classes disc and square, novel bar and dot; output in tmp_path/out."""
    return write_tiny(tmp_path, voc)


def make_pseudo(folder: Path, voc: Path) -> Path:
    """What clustering and ranking would leave for the split of `tiny`: bar is cluster 1, dot cluster 2."""
    names = read_list(voc / "sets" / "trainaug.txt")
    novel = [name for i, name in enumerate(names) if i % 4 >= 2]
    for name in novel:
        label = read_label(voc / "SegmentationClassAug" / f"{name}.png")
        write_label(folder / "pseudo_labels" / f"{name}.png", np.where(label == 255, 0, label))
    write_list(folder / "novel.txt", novel)
    write_list(folder / "base.txt", [name for name in names if name not in novel])
    write_list(folder / "easy_split.txt", novel[: 2 * len(novel) // 3])
    write_list(folder / "hard_split.txt", novel[2 * len(novel) // 3 :])
    return folder


def balance(model, voc: Path):
    """Shift and scale the last layer of a random network so that each output wins somewhere in the val images."""
    paths = sorted((voc / "images").glob("v*.jpg"))
    images = torch.stack([torch.from_numpy(np.array(Image.open(path).resize((32, 32)))) for path in paths])
    last = model.eval().classifier
    with torch.no_grad():
        logits = model(model.normalize(images.permute(0, 3, 1, 2))).logits
        mean, std = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        last.weight /= std[:, None, None, None]
        last.bias.copy_((last.bias - mean) / std)
    return model


@pytest.fixture(scope="session")
def pseudo(voc, tmp_path_factory) -> Path:
    """A folder for `pseudo_dir` and `split_dir`; read only."""
    return make_pseudo(tmp_path_factory.mktemp("pseudo"), voc)


def write_tiny(folder: Path, voc: Path) -> Path:
    dataset = folder / "shapes"
    dataset.mkdir()
    (dataset / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    (dataset / "two.yaml").write_text("novel: [bar, dot]\n")
    tree = {
        **TINY,
        "output_dir": str(folder / "out"),
        "data": {**TINY["data"], "dataset": str(dataset), "root": str(voc)},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def task_shapes(tmp_path_factory) -> Path:
    """Classes and the task `abc`: disc and square first, then bar, then dot; read only."""
    return make_task_shapes(tmp_path_factory.mktemp("task_shapes"))


def make_task_shapes(folder: Path) -> Path:
    (folder / "tasks").mkdir(parents=True)
    (folder / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    (folder / "tasks" / "abc.yaml").write_text("steps: [[disc, square], [bar], [dot]]\n")
    return folder


def write_task(path: Path, shapes: Path, voc: Path) -> Path:
    data = {**TASK["data"], "dataset": str(shapes), "root": str(voc)}
    path.write_text(yaml.safe_dump({**TASK, "output_dir": str(path.parent / "out"), "data": data}))
    return path


@pytest.fixture
def task_config(voc, task_shapes, tmp_path) -> Path:
    """A class-incremental configuration; output in tmp_path/out."""
    return write_task(tmp_path / "small.yaml", task_shapes, voc)


def official_abn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of AbnDeepLab under the official names; those of a ResNet with basic blocks follow the same rule."""

    def rename(key: str) -> str:
        key = key.replace("downsample.0", "proj_conv").replace("downsample.1", "proj_bn")
        if not key.startswith("backbone.layer"):
            return "module." + key.replace("backbone.", "body.mod1.")
        _, layer, block, rest = key.split(".", 3)
        inner = rest if rest.startswith("proj") else f"convs.{rest}"
        return f"module.body.mod{int(layer[-1]) + 1}.block{int(block) + 1}.{inner}"

    return {rename(k): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
