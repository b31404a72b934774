"""What tests of the feature probes share: a small configuration on the drawn VOC, and a random encoder for it."""

import json
from pathlib import Path

import cv2
import torch
import yaml

import probe_features
from data.io import read_image
from models.contrast.encoder import ContrastModel, build_encoder
from tests.conftest import CLASSES
from utils.config.probe import ProbeConfig
from utils.config.reader import load_config
from utils.run import guarded

SMALL = {
    "system": "probe",
    "seed": 3,
    "name": "net",
    "data": {"image_size": 32, "workers": 0},
    "model": {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": [1, 2], "dim": 6},
    "training": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "save_every": 1, "milestones": [0]},
    "kmeans": {"pca_dim": 4, "seeds": [1, 2], "patches": 3},
    "retrieval": {"memory": "trainaug", "ignore": ["disc", "bar"], "patches": 3},
    "evaluation": {"batch_size": 5},
}
BACKBONE = ("model.kind=backbone", "checkpoint=null", "name=plain")


def write_encoder(voc: Path, path: Path) -> Path:
    """A random encoder whose saliency head takes about a third of the pixels, as an official checkpoint."""
    torch.manual_seed(0)
    section = ProbeConfig.model_validate({"model": SMALL["model"]}).model
    model = ContrastModel(build_encoder(section, section.dim), 8).eval()
    query, paths = model.model_q, sorted((voc / "images").glob("v*.jpg"))
    with torch.no_grad():
        images = torch.stack([torch.from_numpy(cv2.resize(read_image(path), (32, 32))) for path in paths])
        features = query.features(query.normalize(images.permute(0, 3, 1, 2))).movedim(1, -1)
        mean, weight = features.flatten(0, 2).mean(0), torch.randn(8)
        weight -= mean * (mean @ weight) / (mean @ mean)  # logits of mean 0
        query.classification_head.weight.copy_((weight / (features @ weight).std())[None, :, None, None])
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"optimizer": {}, "model": state, "epoch": 40}, path)
    return path


def write_config(voc: Path, encoder: Path, folder: Path) -> Path:
    shapes = folder / "shapes"
    shapes.mkdir()
    (shapes / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    data = {**SMALL["data"], "dataset": str(shapes), "root": str(voc)}
    tree = {**SMALL, "data": data, "checkpoint": str(encoder), "output_dir": str(folder / "out")}
    (folder / "small.yaml").write_text(yaml.safe_dump(tree))
    return folder / "small.yaml"


def run(config, *overrides) -> int:
    return guarded(probe_features.main, [str(config), *overrides])


def read(path) -> dict:
    return json.loads(path.read_text())


def loaded(config, *overrides) -> ProbeConfig:
    return load_config([str(config), *overrides], "")
