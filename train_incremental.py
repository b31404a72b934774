"""Class-incremental segmentation: train the steps of a task in order and evaluate after each.

method=ssul      unknown class, frozen trunk, binary cross-entropy, pseudo-labels (SSUL, Cha et al., NeurIPS 2021)
method=ssul_m    SSUL with a memory of exemplars (SSUL-M)
method=mib       unbiased cross-entropy and distillation (MiB, Cermelli et al., CVPR 2020)
method=plop      pseudo-labels where the old network is confident, local POD (PLOP, Douillard et al., CVPR 2021)
method=finetune  cross-entropy only: the lower bound
method=joint     all classes in one step: the upper bound

reads   images and masks; for ssul on VOC also saliency maps
writes  <output_dir>/<task>-<setting>/<method>/step<t>/{best.pth, last.pth, metrics.json, memory.json, ...}

    python train_incremental.py configs/demo/incremental.yaml task=15-1 setting=overlap method=ssul
"""

from utils.entry import answer
from utils.report.scores import show_steps

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ssul",), show=show_steps)

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.incremental.builder import IncrementalData, head_sizes, step_folder
from data.incremental.exemplars import MEMORY_FILE, choose_exemplars, describe, draw_memory, read_memory, write_memory
from data.io import write_picture
from losses.cross_entropy import cross_entropy
from losses.mib import unbiased_cross_entropy, unbiased_distillation
from losses.plop import background_entropies, pod_loss, thresholds_and_trust, trusted_label
from losses.ssul import binary_cross_entropy, focal_loss, pseudo_label, training_target
from models.incremental.files import load_incremental
from models.incremental.network import IncrementalNet, build_incremental, forward_with_taps
from models.incremental.scores import best_channel, predicted_ids
from models.output import Output
from models.segmentation import SegmentationNet
from utils import checkpoint, dist
from utils.config.incremental import IncrementalConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.labels import IGNORE
from utils.log import log
from utils.loop import fit
from utils.measure.confusion import predict
from utils.recipe import Recipe, own_keys, own_recipe, trainable
from utils.report.steps import log_trust, write_summary
from utils.report.tables import print_steps
from utils.run import Run, entry, start_run
from utils.run_folder import require_stage, stage_dir

MEMORY_THRESHOLD = 0.7  # confidence of the pseudo-labels that select exemplars


@dataclass(frozen=True)
class Step:
    """One step of a task: numbers of classes before it (0 at step 0) and after it, with background."""

    number: int
    num_old: int
    num_seen: int
    names: Sequence[str] = ()  # class names for the log


class StepRecipe(Recipe):
    """L = CE(f(x), y), y the classes of the step, all other pixels background (fine-tuning, joint training, step 0).

    `old` is the part of the previous step's network that the method keeps; None at step 0.
    """

    score = "new_miou"
    linear = True  # each head is one 1x1 convolution
    unknown = False  # whether output 0 is the unknown class
    loss_kind = "ce"

    def __init__(self, model: IncrementalNet, settings: IncrementalConfig, step: Step, old: Any = None, **data: Any):
        super().__init__(model, settings, **data)
        self.number, self.num_old, self.num_seen, self.old = step.number, step.num_old, step.num_seen, old
        self.names = step.names or [f"class {number}" for number in range(step.num_seen)]

    @staticmethod
    def start_new_head(model: IncrementalNet, settings: IncrementalConfig) -> None:
        """Initialise the newest head. Default: like any convolution."""

    @staticmethod
    def keep(network: IncrementalNet) -> nn.Module | None:
        """The part of the previous network that is kept, frozen, as `old`."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        training, first = self.settings.training, self.number == 0
        rate = training.first_lr if first else training.lr
        return self.whole_network(rate, training.first_backbone_lr_factor if first else training.backbone_lr_factor)

    def whole_network(self, rate: float, factor: float) -> list[dict[str, Any]]:
        """Parameter groups of the whole network; the backbone has the learning rate `rate * factor`."""
        return [
            {"name": "decoder", "params": self.model.decoder_parameters(), "lr": rate},
            {"name": "backbone", "params": self.model.backbone_parameters(), "lr": rate * factor},
        ]

    def inputs(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images float [B, 3, H, W] and labels int64 [B, H, W]."""
        return self.model.normalize(batch["new"]["image"]), batch["new"]["label"].long()

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.inputs(batch)
        return {"ce": cross_entropy(self.model(image).logits, label, pixels=dist.labelled_pixels(label))}

    def decide(self, output: Output) -> torch.Tensor:
        return predicted_ids(output.logits, self.unknown, self.loss_kind)


class SsulRecipe(StepRecipe):
    """L = BCE(f(x), y~): y~ is y with salient background as the unknown class and the confident old classes of f_(t-1).

    From step 1 on, only the newest, the unknown and the background head train. With a memory, exemplars replace a
    random half of each batch.
    """

    linear = False

    def __init__(self, model: IncrementalNet, settings: IncrementalConfig, step: Step, old: Any = None, **data: Any):
        super().__init__(model, settings, step, old, **data)
        self.options = settings.ssul
        self.unknown, self.loss_kind = self.options.unknown != "off", self.options.loss
        self.last_background = 1 if self.unknown else 0  # last channel that is not a class
        self.frozen = bool(step.number) and self.options.freeze
        if self.frozen:
            self.model.requires_grad_(False)
            for head in self.trained_heads().values():
                head.requires_grad_(True)
        if step.number and self.options.freeze_batchnorm:  # includes those of the trained heads
            self.model.freeze_batchnorm()

    @staticmethod
    def start_new_head(model: IncrementalNet, settings: IncrementalConfig) -> None:
        if settings.ssul.unknown != "off" and settings.ssul.transfer:
            model.classifier.transfer_unknown()

    @staticmethod
    def keep(network: IncrementalNet) -> nn.Module | None:
        return network

    def trained_heads(self) -> dict[str, nn.Module]:
        """The heads that train from step 1 on if everything else is frozen."""
        head = self.model.classifier.head
        return {"new": head[-1], **({"unknown": head[0], "background": head[1]} if self.unknown else {})}

    def parameter_groups(self) -> list[dict[str, Any]]:
        training = self.settings.training
        if not self.frozen:  # step 0, or nothing is frozen
            return self.whole_network(training.first_lr, training.first_backbone_lr_factor)
        factors = {"background": self.options.background_lr_factor}
        return [
            {"name": name, "params": trainable(head), "lr": training.lr * factors.get(name, 1.0)}
            for name, head in self.trained_heads().items()
        ]

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.mixed(batch)
        image = self.model.normalize(image)
        if self.old is not None:
            with torch.no_grad():
                label = self.with_pseudo(label, self.old(image).logits)
        return self.loss(self.model.cell_logits(image), label)

    def mixed(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets; with a memory, exemplars replace a random half of the batch."""
        image, label = batch["new"]["image"], self.target(batch["new"])
        if "memory" in batch:
            half = torch.randperm(len(image))[: len(image) // 2]  # pinned, so that the copy is asynchronous
            chosen = (half.pin_memory() if image.is_cuda else half).to(image.device, non_blocking=True)
            image, label = image.clone(), label.clone()
            image[chosen] = batch["memory"]["image"][chosen]
            moved = self.options.memory_labels == "corrected"
            exemplars = self.target(batch["memory"]) if moved else batch["memory"]["label"].long()
            label[chosen] = exemplars[chosen]
        return image, label

    def target(self, source: dict) -> torch.Tensor:
        return training_target(source["label"], source.get("saliency"), self.options.unknown)

    def with_pseudo(self, label: torch.Tensor, old_logits: torch.Tensor) -> torch.Tensor:
        if self.options.pseudo_threshold is None:
            return label
        score, old = best_channel(old_logits, self.loss_kind)
        return pseudo_label(label, score, old, self.options.pseudo_threshold, self.last_background)

    def loss(self, cells: torch.Tensor, label: torch.Tensor, channels: list[int] | None = None) -> dict:
        if self.options.loss == "bce":
            return {"bce": binary_cross_entropy(cells, label, channels, dist.labelled_pixels(label))}
        logits = self.model.upsample(cells, label.shape[-2:])
        if self.options.loss == "focal":
            return {"focal": focal_loss(logits, label, self.options.focal_gamma)}
        return {"ce": cross_entropy(logits, label, pixels=dist.labelled_pixels(label))}


class SharedTrunkSsulRecipe(SsulRecipe):
    """SSUL in half the time if all but three heads are frozen: old and new network share trunk and decoder.

    One forward pass serves both. `old` holds the previous unknown and background heads; all other heads are equal in
    both networks. Frozen channels are left out of the loss because they have no gradient.
    """

    @staticmethod
    def keep(network: IncrementalNet) -> nn.Module | None:
        heads = network.classifier
        unknown = heads.num_classes[0] == 1  # otherwise head 0 contains background and the classes of step 0
        return heads.head[: 2 if unknown else 1]

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.mixed(batch)
        image, size = self.model.normalize(image), image.shape[-2:]
        decoder, classifier, heads = self.model.decoder, self.model.classifier, self.model.classifier.head
        with torch.no_grad():
            parts = decoder.parts(self.model.levels(image))
            old = classifier(decoder.join(parts), [*self.old, *heads[len(self.old) : -1]])
            label = self.with_pseudo(label, self.model.upsample(old, size))
            features = decoder.join(decoder.drop(parts))
        if self.options.loss != "bce" or not self.unknown:  # softmax needs all channels
            return self.loss(classifier(features), label)
        trained = classifier(features, [heads[0], heads[1], heads[-1]])
        newest = range(1 + self.num_old, 1 + self.num_seen)
        return self.loss(trained, label, [0, 1, *newest])


class DistillationRecipe(StepRecipe):
    """Common part of MiB and PLOP: keeps the whole old network; a new head starts from the background head."""

    @staticmethod
    def start_new_head(model: IncrementalNet, settings: IncrementalConfig) -> None:
        model.classifier.transfer_background()

    @staticmethod
    def keep(network: IncrementalNet) -> nn.Module | None:
        return network


class MibRecipe(DistillationRecipe):
    """L = unbiased CE + 10 unbiased KD: background contains old classes in labels, new classes in the old network."""

    def inputs(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = super().inputs(batch)
        return image, torch.where(label == IGNORE, 0, label) if self.settings.mib.border == "background" else label

    def step(self, batch: dict, epoch: int) -> dict:
        if self.old is None:
            return super().step(batch, epoch)
        image, label = self.inputs(batch)
        with torch.no_grad():
            old = self.old(image).logits
        logits = self.model(image).logits
        distillation = self.settings.mib.distillation * unbiased_distillation(logits, old)
        return {"ce": unbiased_cross_entropy(logits, label, self.num_old), "distillation": distillation}


class PlopRecipe(DistillationRecipe):
    """L = nu CE(f(x), y~) + local POD: on background, y~ is the old network's class where its entropy is below the
    median of that class, else 255.
    """

    def __init__(self, model: IncrementalNet, settings: IncrementalConfig, step: Step, old: Any = None, **data: Any):
        if settings.model.decoder == "deeplabv3plus":
            raise UserError(
                "model.decoder=deeplabv3plus: method=plop distils one feature map; use model.decoder=deeplabv3 or mlp"
            )
        super().__init__(model, settings, step, old, **data)
        self.thresholds: torch.Tensor | None = None  # median entropy of each old class, float [num_old]

    def sources(self, epoch: int, run: Run) -> Any:
        if self.old is not None and self.thresholds is None:
            self.thresholds = self.median_entropies(run)
        return super().sources(epoch, run)

    @torch.no_grad()
    def median_entropies(self, run: Run) -> torch.Tensor:
        """Median entropy of each old class over the background of the training images, float [num_old]."""
        options, source, counts = self.settings.plop, self.feed["new"], {}
        for batch in source.epoch(0, range(max(source.steps_per_pass, 1))):
            image, label = (batch[name].to(run.device) for name in ("image", "label"))
            found = background_entropies(label, self.old(self.model.normalize(image)).logits, self.num_seen)
            counts = {bins: counts.get(bins, 0) + more for bins, more in found.items()}
        summed = {bins: dist.sum_(found).cpu().numpy() for bins, found in counts.items()}
        thresholds, shares = thresholds_and_trust(summed, self.num_seen, options.median, options.entropy_floor)
        log_trust(self.number, self.names, thresholds, shares)
        return torch.tensor(thresholds, dtype=torch.float32, device=run.device)

    def step(self, batch: dict, epoch: int) -> dict:
        if self.old is None:
            return super().step(batch, epoch)
        image, label = self.inputs(batch)
        with torch.no_grad():
            old, old_taps = forward_with_taps(self.old, image)
            label, trust = trusted_label(label, old.logits, self.thresholds, self.num_seen)
        output, taps = forward_with_taps(self.model, image)
        per_pixel = nn.functional.cross_entropy(output.logits.float(), label, ignore_index=IGNORE, reduction="none")
        options, num_new = self.settings.plop, self.num_seen - self.num_old
        pod = pod_loss(old_taps, taps, self.num_seen, num_new, options.pod, options.pod_logits)
        return {"ce": (trust[:, None, None] * per_pixel).mean(), "pod": pod}


def recipe_of(cfg: IncrementalConfig, step: int) -> type[StepRecipe]:
    """The recipe class of a method. SSUL uses the faster form of its step where possible."""
    shared = step > 0 and cfg.ssul.freeze and cfg.ssul.freeze_batchnorm
    ssul = SharedTrunkSsulRecipe if shared else SsulRecipe
    builtin = {"ssul": ssul, "ssul_m": ssul, "mib": MibRecipe, "plop": PlopRecipe}.get(cfg.method, StepRecipe)
    return own_recipe(cfg, builtin)


def build_network(
    cfg: IncrementalConfig, data: IncrementalData, step: int, previous: Path | None
) -> tuple[IncrementalNet, nn.Module | None]:
    """(network, `old`) of a step: the previous network with one more head, or a new network and None at step 0."""
    method = recipe_of(cfg, step)
    if previous is None:
        unknown = not method.linear and cfg.ssul.unknown != "off"
        return build_incremental(cfg.model, head_sizes(data.task, 0, unknown), method.linear), None
    model = load_incremental(cfg.model, previous)
    assert isinstance(model, SegmentationNet)  # our own steps; only official MiB and PLOP files give another type
    kept = method.keep(model)
    old = None if kept is None else copy.deepcopy(kept).requires_grad_(False)
    model.classifier.add(len(data.task.groups[step]))
    method.start_new_head(model, cfg)
    return model, old


def build_recipe(
    cfg: IncrementalConfig,
    data: IncrementalData,
    step: int,
    previous: Path | None,
    run: Run,
    memory: list[str] | None = None,
) -> StepRecipe:
    """The recipe of a step, with network, images and protocol; `memory` are ids of exemplars."""
    model, old = build_network(cfg, data, step, previous)
    feed = {"new": data.source("new", data.train(step))}
    if memory:
        feed["memory"] = data.source("memory", data.exemplars(memory, step))
    about = Step(step, data.num_seen(step - 1), data.num_seen(step), data.task.names)
    old = None if old is None else run.place(old).eval()
    return recipe_of(cfg, step)(run.place(model), cfg, about, old, feed=feed, protocol=data.validation(step))


def choose_memory(data: IncrementalData, step: int, previous: Path, run: Run) -> list[str]:
    """Select exemplars among the previous ones and the previous step's images, which the previous network labels."""
    options, last = data.cfg.ssul, step - 1
    last_background = int(options.unknown != "off")
    model = run.place(load_incremental(data.cfg.model, previous))
    dataset, found = data.candidates(last), {}
    loader = data.context.loader(dataset, data.cfg.evaluation.batch_size)
    for batch, output in predict(lambda x: model(model.normalize(x)), model, loader, run, "exemplars"):
        label = training_target(batch["label"], batch.get("saliency"), options.unknown).to(run.device)
        if last:  # the labels of step 0 are complete already
            score, old = best_channel(output.logits, "ce" if options.loss == "ce" else "bce")  # official: focal as bce
            label = pseudo_label(label, score, old, MEMORY_THRESHOLD, last_background)
        for index, values in zip(batch["index"].tolist(), label.cpu().numpy(), strict=True):
            found[index] = describe(dataset.samples[index].id, values, last_background)
    everywhere = {index: candidate for part in dist.gather(found) for index, candidate in part.items()}
    kept = read_memory(previous.parent / MEMORY_FILE) if last else []  # none at step 0
    candidates = [*kept, *(everywhere[index] for index in sorted(everywhere))]
    rng = np.random.RandomState(run.cfg.seed % 2**32)
    chosen = choose_exemplars(candidates, data.num_seen(last), options.memory, rng)
    ids = sorted(candidate.id for picked in chosen.values() for candidate in picked)
    if dist.is_main():
        write_memory(run.dir / MEMORY_FILE, chosen, data.task.names)
        picture = draw_memory(chosen, data.exemplars(ids, last, train=False), data.task.names)
        write_picture(run.dir / "memory.jpg", picture)
    log.info("memory: %d exemplars of %d candidates", len(ids), len(candidates))
    return ids


def run_step(data: IncrementalData, step: int, earlier: Sequence[dict] = ()) -> list[dict]:
    """Train and evaluate a step unless it is finished; return the metrics of all steps so far.

    The last step writes the summary.
    """
    cfg, place = data.cfg, (step + 1, data.num_steps)
    selected = cfg.trained.files[0] + ".pth"  # the network that the next step starts from
    previous = stage_dir(cfg, step_folder(cfg, step - 1)) / selected if step else None
    reads = ("training", "evaluation", "ssul" if cfg.method == "ssul_m" else cfg.method, *own_keys(cfg))
    inputs = {
        **({"previous": previous} if previous else {}),
        **(data.discovered.inputs if data.discovered else {}),
    }
    if step > 1 and cfg.method == "ssul_m":
        inputs["memory"] = require_stage(cfg, step_folder(cfg, step - 1), MEMORY_FILE, "train_incremental.py CONFIG")
    without = () if step else ("later steps",)
    stage, files = step_folder(cfg, step), data.context.files
    with start_run(cfg, stage, reads, inputs, without=without, files=files, place=place) as run:
        if not run.finished:
            memory = choose_memory(data, step, previous, run) if step and cfg.method == "ssul_m" else None
            recipe = build_recipe(cfg, data, step, previous, run, memory)
            settings = cfg.training.of_step(step, len(data.train_ids(step)), last_only=selected == "last.pth")
            best = fit(recipe, settings, run)
            recipe.model.load_state_dict(checkpoint.load(run.dir / selected)["model"])
            scores = data.test_protocol(step).score(recipe.model, run, recipe.decide, "test")
            run.finish(scores | {"epoch": best["epoch"], "validation": best["new_miou"], "checkpoint": selected})
        metrics = [*earlier, run.metrics()]
        if len(metrics) == data.num_steps and dist.is_main():  # inside start_run, so before the command is recorded
            groups = [[data.task.names[number] for number in data.task.ids(step)] for step in range(data.num_steps)]
            write_summary(metrics, groups, stage_dir(cfg, cfg.own_method or cfg.method))
        return metrics


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ssul",))
    data = IncrementalData.open(cfg)
    metrics: list[dict] = []
    for step in range(data.num_steps):
        metrics = run_step(data, step, metrics)
    if dist.is_main():
        method = cfg.own_method or cfg.method
        print_steps(metrics, f"{method}, {data.task.name}, {cfg.setting}")


if __name__ == "__main__":
    entry(main)
