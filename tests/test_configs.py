"""Every shipped configuration starts: two steps of every stage, through saving, loading and evaluation.

Each configured network is built once and trains on a batch. The dry runs, which save it many times, replace the large
networks by a small one.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cluster_pseudolabel
import entropy_rank
import eval as evaluation
import finetune_novel
import pretrain_contrast
import probe_features
import train_base
import train_incremental
from data.classes import load_split, load_task
from data.discovery.lists import load_lists
from data.incremental.builder import select
from data.io import write_label
from data.lists import shipped_presence
from data.source import DRY_IMAGES, DataContext
from models.contrast.encoder import build_encoder
from models.incremental.network import build_incremental
from models.segmentation import build_network
from utils.checkpoint import write_list
from utils.config.keys import flatten
from utils.config.reader import load_config
from utils.config.strict_yaml import read_yaml
from utils.run import guarded

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
DISCOVERY, INCREMENTAL, CONTRAST, PROBES = (
    [path for path in CONFIGS if read_yaml(path)["system"] == system]
    for system in ("ncdss", "ssul", "maskcontrast", "probe")
)
SIZE = 40
CHAIN = (
    (train_base.main, "method=eums"),
    (cluster_pseudolabel.main, "method=eums"),
    (finetune_novel.main, "method=basic"),
    (entropy_rank.main, "method=basic"),
    (finetune_novel.main, "method=eums"),
    (evaluation.main, "method=base"),
    (evaluation.main, "method=eums"),
)
RATE = ("base_training.eval_every", "basic.eval_every", "eums.eval_every")
VARIANTS = {
    "pascal_r101": ("model.backbone",),
    "coco_r101": ("model.backbone",),
    "coco_quick": RATE,
}  # and what differs
LARGE = ("resnet50", "resnet101")
STAND_IN = ("model.backbone=resnet18", "model.head_channels=16")
SMALLEST = ("model.backbone=mobilenet_v2", "model.head_channels=16")
BUILD = {
    "ncdss": lambda model: build_network(model, 21),
    "ssul": lambda model: build_incremental(model, [17, 5], linear=False),
    "maskcontrast": lambda model: build_encoder(model, model.dim),
}
# what makes it fit a test: small images and batches, no download
SMALL = (
    *("run.dry=true", "model.init=random", "data.image_size=32", "data.workers=0", "cluster.min_pixels=100"),
    *("base_training.batch_size=2", "basic.batch_size=2", "eums.batch_size=2", "evaluation.batch_size=8"),
    *("cluster.features_size=32", "cluster.n_init=1", "cluster.features=base", "cluster.pca_dim=4"),
)


def stand_in(cfg) -> tuple[str, ...]:
    return STAND_IN if cfg.model.backbone in LARGE else ()


def networks() -> dict[str, tuple]:
    """Every network that a configuration describes: name -> (system, model section). Weights are random."""
    found = {}
    for path in [*DISCOVERY, *INCREMENTAL, *CONTRAST]:
        cfg = load_config([str(path), "model.init=random"], "")
        key = (cfg.system, json.dumps(cfg.model.model_dump(mode="json"), sort_keys=True))
        found.setdefault(key, (f"{path.parent.name}/{path.stem}", cfg.system, cfg.model))
    return {name: (system, model) for name, system, model in found.values()}


@pytest.mark.parametrize(("system", "model"), networks().values(), ids=networks().keys())
def test_configured_networks_train(system, model):
    torch.manual_seed(0)
    network = BUILD[system](model).train()
    output = network(network.normalize(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)))
    assert output.logits.shape == (2, {"ncdss": 21, "ssul": 22, "maskcontrast": 1}[system], 32, 32)
    output.logits.square().mean().backward()
    trained = network.decoder if getattr(model, "freeze", False) else network.backbone
    gradients = [p.grad for p in trained.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert getattr(model, "freeze", False) == (not any(p.requires_grad for p in network.backbone.parameters()))


def make_root(root: Path, cfg) -> Path:
    """The images that a dry run reads: the first of each list, drawn, with two classes and full saliency each."""
    split = load_split(cfg.split, cfg.data.dataset)
    base, novel = split.groups
    folder = cfg.cluster.saliency_folder or "saliency_supervised_model"
    coco = cfg.data.dataset == "coco"
    if coco:
        (root / "train2014").mkdir(parents=True)
    if cfg.data.train_list:
        lists = {name: [f"{name}{i}" for i in range(3 * DRY_IMAGES)] for name in ("trainaug", "val")}
        for name, ids in lists.items():
            write_list(root / "sets" / f"{name}.txt", ids)
    else:
        write_list(root / "sets" / "val.txt", ["2007_000033"])
        data = cfg.data.model_copy(update={"root": root})
        found = load_lists(split, DataContext.open(cfg.model_copy(update={"data": data})))
        lists = {role: ids[:DRY_IMAGES] for role, ids in vars(found).items()}
    rng = np.random.default_rng(0)
    for role, names in lists.items():
        for i, name in enumerate(names):
            number = base[i % len(base)] if "base" in role or i % 2 else novel[i % len(novel)]
            part = name.split("_")[1] if coco else ""
            image = root / (part or "images") / f"{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)).save(image)
            masks = root / (f"masks_{part}" if coco else "SegmentationClassAug")
            write_label(masks / f"{name}.png", np.full((SIZE, SIZE), number, np.uint8))
            write_label(root / folder / f"{name}.png", np.ones((SIZE, SIZE), np.uint8))
    return root


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_differ_in_little(name):
    folder = Path(__file__).parents[1] / "configs" / "discovery"
    one, other = (
        flatten(load_config([str(folder / f"{n}.yaml")], "").model_dump()) for n in (name, name.rsplit("_", 1)[0])
    )
    assert {key for key in one if one[key] != other[key]} == {*VARIANTS[name], "output_dir"}


def test_no_configuration_asks_for_fast_transforms():
    """They change values."""
    paths = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
    assert len(paths) > 20
    for path in paths:
        assert load_config([str(path)], "").data.transforms == "official", path


CHAINS = [path for path in DISCOVERY if path.stem not in VARIANTS]


@pytest.mark.parametrize("path", CHAINS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run_of_the_whole_chain(path, tmp_path):
    cfg = load_config([str(path)], "")
    root = make_root(tmp_path / "data", cfg)
    given = [*SMALL, *stand_in(cfg), f"data.root={root}", f"output_dir={tmp_path / 'out'}"]
    for main, method in CHAIN:
        assert guarded(main, [str(path), *given, method]) == 0, (main.__module__, method)
    (folder,) = (tmp_path / "out" / "dry").iterdir()
    metrics = json.loads((folder / "eval_eums" / "metrics.json").read_text())
    assert metrics["images"] > 0 and "novel_miou" in metrics and metrics["match"]
    for file in folder.rglob("*.pth"):  # hundreds of MB
        file.unlink()


METHODS = {"ssul": "plop", "ssul_baselines": "mib", "voc_baselines": "plop", "ade_baselines": "plop"}  # others: ssul_m


@pytest.mark.parametrize("path", INCREMENTAL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run_of_the_incremental_steps(path, tmp_path):
    """The first images of each step, drawn where the layout of the data set has them."""
    cfg, method = load_config([str(path)], ""), METHODS.get(path.stem, "ssul_m")
    root, ade = tmp_path / "data", cfg.data.dataset == "ade"
    task = "100-50" if ade else "15-5"
    steps = load_task(task, cfg.data.dataset)
    if cfg.data.train_list:
        names = {part: [(f"{part}{i}", frozenset({1 + i % 20})) for i in range(60)] for part in ("trainaug", "val")}
        for part, images in names.items():
            write_list(root / "sets" / f"{part}.txt", [name for name, _ in images])
        images = [*names["trainaug"], *names["val"]]
    else:
        presence = {part: shipped_presence(cfg.data.dataset, part) for part in ("train", "val")}
        wanted = {name for name, _ in presence["val"][:DRY_IMAGES]}
        for part, step in ((part, step) for part in presence for step in range(len(steps.groups))):
            wanted |= set(select(steps, presence[part], step, cfg.setting)[:DRY_IMAGES])
        images = [(name, classes) for part in presence.values() for name, classes in part if name in wanted]
    rng = np.random.default_rng(0)
    for name, classes in images:
        part = ("training" if "train" in name else "validation") if ade else ""
        image = root / ("images" if ade or cfg.data.train_list else "JPEGImages") / part / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)).save(image)
        masks = root / ("annotations" if ade else "SegmentationClassAug") / part
        write_label(masks / f"{name}.png", np.full((SIZE, SIZE), min(classes, default=0), np.uint8))
        if not ade:
            write_label(root / "saliency" / f"{name}.png", np.ones((SIZE, SIZE), np.uint8))
    small = ["run.dry=true", "model.init=random", "data.image_size=32", "data.workers=0", "training.batch_size=2"]
    small += ["evaluation.batch_size=8", f"task={task}", f"method={method}"]
    small += ["ssul.memory=6"] if method == "ssul_m" else []
    small += ["training.first_lr=1e-4", "training.lr=1e-4"]  # the weights are random
    given = [*small, *SMALLEST, f"data.root={root}", f"output_dir={tmp_path / 'out'}"]
    assert guarded(train_incremental.main, [str(path), *given]) == 0
    (folder,) = (tmp_path / "out" / "dry").iterdir()
    metrics = json.loads((folder / method / "step1" / "metrics.json").read_text())
    assert len(metrics["per_class"]) == (151 if ade else 21)
    for file in folder.rglob("*.pth"):
        file.unlink()


@pytest.mark.parametrize("path", CONTRAST, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run_of_pre_training(path, tmp_path):
    """A square on each image."""
    cfg, root = load_config([str(path)], ""), tmp_path / "data"
    folder = root / (cfg.data.saliency_folder or "saliency_supervised_model")
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[10:30, 10:30] = 255
    for part in ("trainaug", "val"):
        names = [f"{part}{i}" for i in range(8)]
        write_list(root / "sets" / f"{part}.txt", names)
        for name in names:
            (root / "images").mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
            Image.fromarray(noise).save(root / "images" / f"{name}.jpg")
            write_label(folder / f"{name}.png", mask)
    small = ["run.dry=true", "model.init=random", "data.image_size=32", "data.workers=0", "training.batch_size=4"]
    given = [*small, *SMALLEST, f"data.root={root}", f"output_dir={tmp_path}"]
    assert guarded(pretrain_contrast.main, [str(path), *given]) == 0
    metrics = json.loads((tmp_path / "dry" / "pretrain" / "metrics.json").read_text())
    assert metrics["training_images"] == metrics["images"] == 8
    (tmp_path / "dry" / "pretrain" / "last.pth").unlink()


@pytest.mark.parametrize("path", PROBES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run_of_the_probes(path, tmp_path):
    """A square of some class on each image; all three modes on a plain backbone."""
    root = tmp_path / "data"
    for part in ("train", "trainaug", "val"):
        names = [f"{part}{i}" for i in range(DRY_IMAGES)]
        write_list(root / "sets" / f"{part}.txt", names)
        for i, name in enumerate(names):
            (root / "images").mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
            Image.fromarray(noise).save(root / "images" / f"{name}.jpg")
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[10:30, 10:30] = 1
            write_label(root / "saliency_supervised_model" / f"{name}.png", mask)
            write_label(root / "SegmentationClassAug" / f"{name}.png", mask * np.uint8(1 + i % 20))
    small = ["run.dry=true", "model.kind=backbone", "model.init=random", "model.backbone=resnet18", "name=net"]
    small += ["data.image_size=32", "data.workers=0"]
    own = {"linear": ["training.batch_size=4"], "kmeans": ["kmeans.seeds=[1]"], "retrieval": []}
    for mode, more in own.items():
        given = [str(path), *small, *more, f"mode={mode}", f"data.root={root}", f"output_dir={tmp_path}"]
        assert guarded(probe_features.main, given) == 0, mode
        stage = "eval_linear" if mode == "linear" else mode
        metrics = json.loads((tmp_path / "dry" / "net" / stage / "metrics.json").read_text())
        assert metrics["images"] == DRY_IMAGES and len(metrics["per_class"]) == 21


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.parent.name != "demo"], ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_heads_say_what_a_run_takes(path):
    """Estimates are marked as such until they are measured."""
    head = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert re.search(r"(Estimated, not measured,|Measured) .* \d+ GiB, [\d.]+ (h|min)", head)
