"""What benchmarks.gpu measures: training steps of every system, as its configuration has them, and their batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cost import with_lists
from benchmarks.cost_stages import STAGES, Stage
from benchmarks.rows import blocks
from data.dataset import SegmentationDataset
from data.layouts import Sample
from data.loading import Source
from data.weakshot.builder import WeakShotData
from data.zeroshot.builder import ZeroShotData
from models.deeplab_plus import build_deeplab_plus
from models.weakshot.simformer import build_weak_shot
from models.zeroshot.generators import ZeroShotNet
from train_weakshot import SingleImageRecipe
from train_zeroshot import Zs3Recipe
from utils.config.common import Common
from utils.config.reader import load_config
from utils.recipe import Recipe

CLASSES = 4  # in the labels, which change nothing but the generator's steps and the assignment
WORDS = 600  # numbers of a word vector


@dataclass(frozen=True)
class Work:
    """A training step of a configuration. `stage` is the one of benchmarks.cost_stages, whose operations are counted;
    `real` makes the recipe where that one leaves out what depends on values, `source` is then what it reads, and
    `waits` how often a step may wait for the device: to see whether its loss is finite, and once to read labels there.
    """

    name: str
    config: str
    stage: str
    section: str  # of the configuration, that has the settings of the training
    options: tuple[str, ...] = ()
    real: Callable[[Any, Stage], Recipe] | None = None
    source: str = ""
    waits: int = 1

    def open(self, folder: Path, *options: str) -> tuple[Common, Stage]:
        """The configuration, with a data root that holds lists only, and the stage."""
        folder.mkdir(exist_ok=True)
        cfg = with_lists(load_config([self.config, *self.options, *options], ""), folder)
        return cfg, next(stage for stage in STAGES[cfg.system](cfg) if stage.name == self.stage)

    def recipe(self, cfg: Common, stage: Stage) -> Recipe:
        """With random weights, on the CPU."""
        torch.manual_seed(0)
        return self.real(cfg, stage) if self.real else stage.build()

    def batch(self, cfg: Common, stage: Stage) -> dict[str, dict[str, torch.Tensor]]:
        """Random images and maps of blocks, in the page-locked memory that loaders give."""
        torch.manual_seed(0)
        sources = {source: {n: _filled(n, v) for n, v in fields.items()} for source, fields in stage.batch().items()}
        if cfg.system == "simformer":
            number = WeakShotData.open(cfg).num_classes
            for fields in sources.values():
                label = fields["label"]
                fields["present"] = torch.stack([(label == c).flatten(1).any(1) for c in range(number)], 1).byte()
        pinned = torch.cuda.is_available()
        sources = {s: {n: v.pin_memory() if pinned else v for n, v in fields.items()} for s, fields in sources.items()}
        return {self.source or source: fields for source, fields in sources.items()}

    def loaders(self, stage: Stage, samples: list[Sample], workers: int, steps: int) -> Iterator[dict[str, dict]]:
        """Batches that the sources read, decode and transform side by side from photographs."""
        made = []
        for (name, batch), (fields, transform) in zip(stage.fields.items(), stage.reads, strict=True):
            fields = tuple("pseudo" if field == "label" and "pseudo" in batch else field for field in fields)
            dataset = SegmentationDataset(samples, fields, transform=transform, mask_rule="any")
            pin = torch.cuda.is_available()
            made.append(
                (self.source or name, Source(name, dataset, stage.batch_size, seed=0, workers=workers, pin=pin))
            )
        for parts in zip(*(source.epoch(0, range(steps)) for _, source in made), strict=True):
            yield {name: part for (name, _), part in zip(made, parts, strict=True)}


def _filled(name: str, values: torch.Tensor) -> torch.Tensor:
    if values.dim() == 4:
        return torch.randint(0, 256, values.shape, dtype=torch.uint8)
    if name == "padding":
        return values
    label = blocks(CLASSES if name in ("label", "pseudo") else 2, len(values), values.shape[-1])
    return (label if name in ("label", "pseudo") else label == 1).to(torch.uint8)


def zero_shot(cfg: Any, _stage: Stage) -> Recipe:
    """Step 2 with its generator, and vectors that stand for no word."""
    data = ZeroShotData.open(cfg)
    network = build_deeplab_plus(cfg.model, data.num_classes, init="random")
    model = ZeroShotNet(network, torch.randn(data.num_classes, WORDS), cfg.zs3, graph=cfg.method == "zs3_gc")
    return Zs3Recipe(model, cfg, data.unseen, background=data.groups.background)


def weak_shot(cfg: Any, _stage: Stage) -> Recipe:
    """Single images: MaskFormer's losses, and that of classes without masks."""
    data = WeakShotData.open(cfg)
    return SingleImageRecipe(build_weak_shot(cfg.model, data.num_classes, False, "random"), cfg, data.novel)


R101 = "model.backbone=resnet101"
WORKS = (
    Work("NCDSS base, ResNet-50", "configs/discovery/pascal.yaml", "base", "base_training"),
    Work("NCDSS base, ResNet-101", "configs/discovery/pascal.yaml", "base", "base_training", (R101,)),
    Work("EUMS, ResNet-50", "configs/discovery/pascal.yaml", "EUMS", "eums"),
    Work("SSUL step 0, ResNet-101", "configs/incremental/voc.yaml", "step 0", "training"),
    Work("SSUL later step, ResNet-101", "configs/incremental/voc.yaml", "later steps", "training"),
    Work("MaskContrast, ResNet-50", "configs/contrast/voc_supervised.yaml", "pre-training", "training"),
    Work("ZS3 step 2, ResNet-101", "configs/zeroshot/voc.yaml", "step 2", "zs3", real=zero_shot, source="all", waits=2),
    Work("MaskFormer, ResNet-50", "configs/weakshot/coco.yaml", "single", "training", real=weak_shot, waits=2),
)
