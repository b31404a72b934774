"""The training steps that benchmarks/gpu.py measures, at the sizes of their configurations.

Networks have random weights, images are drawn photographs: nothing needs to be downloaded or trained before.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows.row import photographs
from data.contrast.builder import TwoViews
from data.crops import ScaleBlurCrop, ScaleCrop
from data.dataset import SegmentationDataset
from data.discovery.builder import DiscoveryData
from data.incremental.builder import IncrementalData, head_sizes
from data.loading import Source
from data.transforms import TrainTransform, WeakStrongTransform
from data.weakshot.builder import WeakShotData
from data.weakshot.crops import WeakCrop
from data.zeroshot.builder import ZeroShotData
from finetune_novel import EumsRecipe
from models.contrast.encoder import ContrastModel, build_encoder
from models.discovery.teacher_student import TeacherStudent
from models.incremental.network import build_incremental
from models.segmentation import build_network
from models.weakshot.simformer import build_weak_shot
from models.zeroshot.generators import ZeroShotNet
from pretrain_contrast import ContrastRecipe
from train_base import SupervisedRecipe
from train_incremental import Step, recipe_of
from train_weakshot import SingleImageRecipe
from train_zeroshot import Zs3Recipe
from utils.checkpoint import write_list
from utils.config.common import Training
from utils.config.contrast import ContrastConfig
from utils.config.discovery import DiscoveryConfig
from utils.config.incremental import IncrementalConfig
from utils.config.reader import load_config
from utils.config.weakshot import WeakShotConfig
from utils.config.zeroshot import ZeroShotConfig
from utils.recipe import Recipe

VOC_LISTS = {"trainaug": 10_582, "train": 1_464, "val": 1_449}  # names and lengths
RANDOM = "model.init=random"
WORDS = 600  # dimensions of a word vector
Read = tuple[tuple[str, ...], Callable[..., Any]]  # fields of a sample, and its transform


@dataclass(frozen=True)
class Work:
    """A training step of a configuration.

    settings  key of the configuration with the settings of the training
    build     configuration -> recipe on the CPU
    sources   configuration -> what each source reads
    waits     how often the host may wait for the device in a step: once to see whether the loss is finite, once more
              where a step reads labels or matching costs
    """

    name: str
    config: str
    settings: str
    build: Callable[[Any], Recipe]
    sources: Callable[[Any], Mapping[str, Read]]
    options: tuple[str, ...] = (RANDOM,)
    waits: int = 1

    def open(self, folder: Path, *options: str) -> Any:
        """The configuration, with a data root that holds lists of the published lengths and nothing else."""
        cfg = load_config([self.config, *self.options, *options], "")
        for name, length in VOC_LISTS.items():
            write_list(folder / "sets" / f"{name}.txt", [f"{name}{index}" for index in range(length)])
        if cfg.data.dataset == "coco":
            (folder / "train2014").mkdir(exist_ok=True)
        return cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": folder})})

    def training(self, cfg: Any) -> Training:
        """The settings of the training."""
        settings: Training = getattr(cfg, self.settings)
        return settings

    def recipe(self, cfg: Any) -> Recipe:
        """The recipe with the same random weights on every call."""
        torch.manual_seed(0)
        return self.build(cfg)

    def batches(self, cfg: Any, folder: Path, batch: int, workers: int, steps: int) -> Iterator[dict[str, dict]]:
        """Batches of drawn photographs; all sources read, decode and transform at the same time."""
        samples, pin = photographs(folder, min(64, 4 * batch)), torch.cuda.is_available()
        made = {
            name: Source(
                name,
                SegmentationDataset(samples, fields, transform=transform, mask_rule="any"),
                batch,
                seed=0,
                workers=workers,
                pin=pin,
            )
            for name, (fields, transform) in self.sources(cfg).items()
        }
        for parts in zip(*(source.epoch(0, range(steps)) for source in made.values()), strict=True):
            yield dict(zip(made, parts, strict=True))


# ---- recipes


def _base(cfg: DiscoveryConfig) -> Recipe:
    return SupervisedRecipe(build_network(cfg.model, DiscoveryData.open(cfg).num_known), cfg.base_training)


def _eums(cfg: DiscoveryConfig) -> Recipe:
    return EumsRecipe(TeacherStudent(build_network(cfg.model, DiscoveryData.open(cfg).num_outputs)), cfg.eums)


def _incremental(cfg: IncrementalConfig, step: int = 0) -> Recipe:
    """A recipe of SSUL, built like in train_incremental.build_recipe."""
    data, method = IncrementalData.open(cfg), recipe_of(cfg, step)
    model, old = build_incremental(cfg.model, head_sizes(data.task, max(step - 1, 0), True), method.linear), None
    if step:
        kept = method.keep(model)
        old = None if kept is None else copy.deepcopy(kept).requires_grad_(False).eval()
        model.classifier.add(len(data.task.groups[step]))
    return method(model, cfg, Step(step, data.num_seen(step - 1), data.num_seen(step)), old)


def _contrast(cfg: ContrastConfig) -> Recipe:
    options = cfg.contrast
    encoder = build_encoder(cfg.model, cfg.model.dim, init="random")
    return ContrastRecipe(ContrastModel(encoder, options.queue_size, options.momentum, options.freeze_layers), cfg)


def _zero_shot(cfg: ZeroShotConfig) -> Recipe:
    data = ZeroShotData.open(cfg)
    network = build_network(cfg.model, data.num_classes, init="random")
    model = ZeroShotNet(network, torch.randn(data.num_classes, WORDS), cfg.zs3, graph=cfg.method == "zs3_gc")
    return Zs3Recipe(model, cfg, data.unseen, background=data.groups.background)


def _weak_shot(cfg: WeakShotConfig) -> Recipe:
    data = WeakShotData.open(cfg)
    return SingleImageRecipe(build_weak_shot(cfg.model, data.num_classes, False, "random"), cfg, data.novel)


# ---- what they read


def _labelled(name: str, transform: Callable[[int], Any], *more: str) -> Callable[[Any], Mapping[str, Read]]:
    """One source of images with labels."""
    return lambda cfg: {name: (("image", "label", *more), transform(cfg.data.image_size))}


def _eums_sources(cfg: DiscoveryConfig) -> Mapping[str, Read]:
    plain, strong = TrainTransform(cfg.data.image_size), WeakStrongTransform(cfg.data.image_size)
    return {"base": (("image", "label"), plain), "easy": (("image", "pseudo"), plain), "hard": (("image",), strong)}


def _views(cfg: ContrastConfig) -> Mapping[str, Read]:
    return {"train": (("image", "saliency"), TwoViews(cfg.data.image_size))}


def _weak_crops(cfg: WeakShotConfig) -> Mapping[str, Read]:
    d = cfg.data
    crop = WeakCrop(d.image_size, d.sizes, d.longest, WeakShotData.open(cfg).num_classes)
    return {"images": (("image", "label"), crop)}


DISCOVERY, INCREMENTAL, WEAK_SHOT = (
    f"configs/{name}.yaml" for name in ("discovery/pascal", "incremental/voc", "weakshot/coco")
)
WORKS = (
    Work("NCDSS base, ResNet-50", DISCOVERY, "base_training", _base, _labelled("base", TrainTransform)),
    Work(
        "NCDSS base, ResNet-101",
        DISCOVERY,
        "base_training",
        _base,
        _labelled("base", TrainTransform),
        (RANDOM, "model.backbone=resnet101"),
    ),
    Work("EUMS, ResNet-50", DISCOVERY, "eums", _eums, _eums_sources),
    Work(
        "SSUL step 0, ResNet-101",
        INCREMENTAL,
        "training",
        _incremental,
        _labelled("new", ScaleCrop, "saliency"),
    ),
    Work(
        "SSUL later step, ResNet-101",
        INCREMENTAL,
        "training",
        lambda cfg: _incremental(cfg, IncrementalData.open(cfg).num_steps - 1),
        _labelled("new", ScaleCrop, "saliency"),
    ),
    Work("MaskContrast, ResNet-50", "configs/contrast/voc_supervised.yaml", "training", _contrast, _views, ()),
    Work(
        "ZS3 step 2, ResNet-101",
        "configs/zeroshot/voc.yaml",
        "zs3",
        _zero_shot,
        _labelled("all", ScaleBlurCrop),
        (),
        waits=2,
    ),
    Work("MaskFormer, ResNet-50", WEAK_SHOT, "training", _weak_shot, _weak_crops, (), waits=2),
)
