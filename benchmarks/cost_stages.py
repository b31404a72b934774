"""What the training stages of each system compute, for benchmarks.cost: recipe, batch, number of steps, images read."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from data.contrast.builder import TwoViews
from data.crops import ResizedCrop, ScaleBlurCrop, ScaleCrop
from data.discovery.builder import DiscoveryData
from data.incremental.builder import IncrementalData, head_sizes, select
from data.lists import image_list
from data.source import DataContext
from data.transforms import TrainTransform, WeakStrongTransform
from data.weakshot.builder import WeakShotData
from data.weakshot.crops import WeakCrop
from data.zeroshot.builder import ZeroShotData
from finetune_novel import BasicRecipe, EumsRecipe
from losses.maskformer import enlarge, mask_losses
from losses.simformer import at_points
from losses.zs3 import weighted_cross_entropy
from models.contrast.encoder import ContrastModel, build_encoder
from models.contrast.probes import build_probe
from models.deeplab import build_model
from models.deeplab_plus import build_deeplab_plus
from models.incremental.network import build_incremental
from models.teacher_student import TeacherStudent
from models.weakshot.simformer import build_weak_shot
from pretrain_contrast import ContrastRecipe
from probe_features import LinearRecipe
from train_base import SeenRecipe, SupervisedRecipe
from train_incremental import Step, recipe_of
from train_weakshot import MaskFormerRecipe, in_pairs
from utils import dist
from utils.config.common import Training
from utils.recipe import Recipe

Read = tuple[tuple[str, ...], Callable[..., Any]]  # fields of a source, and their transform
MATCHED = 8  # masks of an image, about as many as classes
MAPS = ("padding", "label", "pseudo", "saliency", "key_saliency", "query_saliency")
RANDOM = {"init": "random"}  # no weights are needed to count
TRAIN = {"pascal": 5953, "context": 4998, "cocostuff": 9000}  # images of the zero-shot papers' lists


@dataclass(frozen=True)
class Stage:
    """A training stage; `fields` are those of the batch of each source."""

    name: str
    build: Callable[[], Recipe]
    fields: dict[str, tuple[str, ...]]
    size: int  # of images, pixels
    batch_size: int
    steps: int  # over the whole stage
    validated: int  # images, over all its validations
    reads: tuple[Read, ...]  # a source each

    def batch(self) -> dict[str, dict[str, torch.Tensor]]:
        """Images [B, 3, S, S] and maps [B, S, S] of zeros, uint8."""
        shapes = {True: (self.batch_size, self.size, self.size), False: (self.batch_size, 3, self.size, self.size)}
        return {
            source: {field: torch.zeros(shapes[field in MAPS], dtype=torch.uint8) for field in fields}
            for source, fields in self.fields.items()
        }


def discovery(cfg) -> Iterator[Stage]:
    """Base model, basic framework and EUMS; every novel image is taken to be kept by clustering."""
    data, size = DiscoveryData.open(cfg), cfg.data.image_size
    model = cfg.model.model_copy(update=RANDOM)
    plain: Read = (("image", "label"), TrainTransform(size))
    strong: Read = (("image",), WeakStrongTransform(size))
    base, basic, eums = cfg.base_training, cfg.basic, cfg.eums
    num_base, num_novel, num_val = len(data.lists.base), len(data.lists.novel), len(data.lists.val)
    labelled, pseudo = ("image", "label"), ("image", "pseudo")

    def stage(name: str, build, fields, settings: Training, steps: int, val: int, reads) -> Stage:
        validated = val * -(-settings.epochs // settings.eval_every)
        return Stage(name, build, fields, size, settings.batch_size, steps, validated, reads)

    yield stage(
        "base",
        lambda: SupervisedRecipe(build_model(model, data.num_known), base),
        {"base": labelled},
        base,
        base.epochs * steps_per_epoch(base, len(data.lists.base_train)),
        len(data.lists.base_val),
        (plain,),
    )
    yield stage(
        "basic",
        lambda: BasicRecipe(build_model(model, data.num_outputs), basic),
        {"base": labelled, "novel": pseudo},
        basic,
        basic.epochs * steps_per_epoch(basic, num_base, num_novel),
        num_val,
        (plain, plain),
    )
    yield stage(
        "EUMS",
        lambda: EumsRecipe(TeacherStudent(build_model(model, data.num_outputs)), eums),
        {"base": labelled, "easy": pseudo, "hard": ("image", "strong")},
        eums,
        sum(eums_steps(cfg, epoch, num_base, num_novel) for epoch in range(eums.epochs)),
        num_val,
        (plain, plain, strong),
    )


def eums_steps(cfg, epoch: int, num_base: int, num_novel: int) -> int:
    """Steps of an epoch: the shortest of base, clean and unclean images ends it; a reassignment moves some of them."""
    clean = first = part_of(num_novel, cfg.ranking.proportion)
    if any(epoch >= reassigned for reassigned in cfg.eums.reassign_epochs):
        clean = part_of(first, cfg.eums.reassign_proportion)
    return steps_per_epoch(cfg.eums, num_base, clean, num_novel - clean)


def part_of(count: int, proportion: float) -> int:
    return int(proportion * count) if proportion < 1 else int(proportion)


def steps_per_epoch(settings: Training, *images: int) -> int:
    return settings.iters_per_epoch or min(images) // settings.batch_size


def incremental(cfg) -> Iterator[Stage]:
    """Step 0, then all later steps as the last one, which has the most outputs."""
    data, training, size = IncrementalData.open(cfg), cfg.training, cfg.data.image_size
    crop = ResizedCrop if cfg.method in ("mib", "plop", "finetune") else ScaleCrop
    last_only = cfg.evaluation.select == "last"
    for name, steps in (("step 0", [0]), ("later steps", list(range(1, data.num_steps)))):
        if not steps:
            continue
        settings = [training.of_step(step, len(data.train_ids(step)), last_only) for step in steps]
        totals = [s.epochs * s.iters_per_epoch for s in settings]
        validations = [total // s.eval_steps for total, s in zip(totals, settings, strict=True)]
        images = [len(select(data.task, data.val_images, step, cfg.setting)) for step in steps]
        validated = sum(number * count for number, count in zip(images, validations, strict=True))
        yield Stage(
            name,
            lambda last=steps[-1]: step_recipe(cfg, data, last),
            {"new": data.fields},
            size,
            training.batch_size,
            sum(totals),
            validated,
            ((data.fields, crop(size)),),
        )


def step_recipe(cfg, data: IncrementalData, step: int) -> Recipe:
    """As train_incremental.build_recipe, with random weights and without data."""
    method, model_cfg = recipe_of(cfg, step), cfg.model.model_copy(update=RANDOM)
    unknown = not method.linear and cfg.ssul.unknown != "off"
    model, old = build_incremental(model_cfg, head_sizes(data.task, max(step - 1, 0), unknown), method.linear), None
    if step:
        kept = method.keep(model)
        old = None if kept is None else copy.deepcopy(kept).requires_grad_(False).eval()
        model.add_head(len(data.task.groups[step]))
    recipe = method(model, cfg, Step(step, data.num_seen(step - 1), data.num_seen(step)), old)
    if hasattr(recipe, "thresholds") and step:
        recipe.thresholds = torch.zeros(data.num_seen(step - 1))
    return recipe


def contrast(cfg) -> Iterator[Stage]:
    """Pre-training; its few validations are left out, and every listed image is taken to have a mask."""
    training, options, size = cfg.training, cfg.contrast, cfg.data.image_size
    images = len(image_list(DataContext.open(cfg), cfg.data.train_list))

    def build() -> Recipe:
        encoder = build_encoder(cfg.model, init="random")
        return ContrastRecipe(ContrastModel(encoder, options.queue_size, options.momentum, options.freeze_layers), cfg)

    views = ("key", "query", "key_saliency", "query_saliency")
    steps = training.epochs * steps_per_epoch(training, images)
    reads: tuple[Read, ...] = ((("image", "saliency"), TwoViews(size)),)
    yield Stage("pre-training", build, {"train": views}, size, training.batch_size, steps, 0, reads)


def probe(cfg) -> Iterator[Stage]:
    """The linear probe; k-means and retrieval pass over the images once."""
    context, training, size = DataContext.open(cfg), cfg.training, cfg.data.image_size
    train, val = (len(image_list(context, n)) for n in (cfg.data.train_list, cfg.data.val_list or "val"))
    kind = "untrained" if cfg.model.is_encoder else cfg.model.kind
    network = cfg.model_copy(update={"model": cfg.model.model_copy(update=RANDOM | {"kind": kind})})
    yield Stage(
        "linear probe",
        lambda: LinearRecipe(build_probe(network, 21), training),
        {"train": ("image", "label")},
        size,
        training.batch_size,
        training.epochs * steps_per_epoch(training, train),
        val * -(-training.epochs // training.eval_every),
        ((("image", "label"), TrainTransform(size)),),
    )


class ClassifierRecipe(SeenRecipe):
    """Step 2 of ZS3 without its generators, which compute next to nothing: features, and a classifier that learns."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"name": "classifier", "params": list(self.model.classifier.parameters()), "lr": self.settings.lr}]

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["seen"]["image"]), batch["seen"]["label"]
        with torch.no_grad():
            features = self.model.features(images)
        logits = self.model.classify(features.detach(), label.shape[-2:])
        pixels = dist.labelled_pixels(label)
        return {"classifier": weighted_cross_entropy(logits, label, images=len(label), total=pixels)}


def zero_shot(cfg) -> Iterator[Stage]:
    """Steps 1 to 3; step 1 is taken to read all images, those with unseen classes too, which only masks would tell."""
    outputs, size = ZeroShotData.open(cfg).num_classes, cfg.data.image_size
    listed = cfg.data.train_list  # without one, those of the paper
    images = len(image_list(DataContext.open(cfg), listed)) if listed else TRAIN[cfg.data.dataset]
    recipes: dict[str, tuple[type[SeenRecipe], Training]] = {
        "step 1": (SeenRecipe, cfg.step1),
        "step 2": (ClassifierRecipe, cfg.zs3),
        "step 3": (SeenRecipe, cfg.step3),  # the same loss, on pseudo-labels too
    }
    for name, (recipe, settings) in recipes.items():
        yield Stage(
            name,
            lambda recipe=recipe, s=settings: recipe(build_deeplab_plus(cfg.model, outputs, init="random"), s),
            {"seen": ("image", "label")},
            size,
            settings.batch_size,
            settings.epochs * steps_per_epoch(settings, images),
            0,  # a few validations, left out
            ((("image", "label"), ScaleBlurCrop(size)),),
        )


class ProposalRecipe(MaskFormerRecipe):
    """A step of weak-shot training without what depends on values: so many proposals of each image have a mask."""

    def step(self, batch: dict, epoch: int) -> dict:
        image = batch["images"]["image"]
        output, losses = self.model(self.model.normalize(image)), []
        truth = torch.zeros(len(image) * MATCHED, *image.shape[-2:], dtype=torch.bool)
        for classes, masks in zip(output.class_logits, output.mask_logits, strict=True):
            large = enlarge(masks[:, :MATCHED].flatten(0, 1), image.shape[-2:])
            losses += [*(part.mean() for part in mask_losses(large, truth)), classes.float().log_softmax(-1).mean()]
        if self.model.simnet is not None:
            cells = torch.zeros(len(image) // 2, 2, self.cfg.similarity.points, dtype=torch.int64)
            points = at_points(in_pairs(output.features), cells).detach()
            losses.append(self.model.simnet.pairs(points).mean())
            with torch.no_grad():
                self.model.simnet.pairs(points)
        return {"all": torch.stack(losses).sum()}


def weak_shot(cfg) -> Iterator[Stage]:
    """Training on single images, on pairs, and on pseudo-labels; matching and labelling are left out."""
    data, d, training = WeakShotData.open(cfg), cfg.data, cfg.training
    reads: Read = (("image", "label"), WeakCrop(d.image_size, d.sizes, d.longest, data.num_classes))
    for method in ("single", "simformer", "retrain"):

        def build(pairs: bool = method == "simformer") -> Recipe:
            return ProposalRecipe(build_weak_shot(cfg.model, data.num_classes, pairs, "random"), cfg, data.novel)

        fields = {"images": ("image", "label", "padding")}
        steps = training.epochs * steps_per_epoch(training)
        yield Stage(method, build, fields, d.image_size, training.batch_size, steps, 0, (reads,))


STAGES: dict[str, Callable[[Any], Iterator[Stage]]] = {
    "ncdss": discovery,
    "ssul": incremental,
    "maskcontrast": contrast,
    "probe": probe,
    "zs3": zero_shot,
    "simformer": weak_shot,
}
