"""Class-incremental segmentation: train the steps of a task one after the other, and evaluate after each.

method=ssul      unknown class, frozen trunk, binary cross-entropy, pseudo-labels (SSUL, Cha et al., NeurIPS 2021)
method=ssul_m    the same with a memory of exemplars (SSUL-M)
method=mib       unbiased cross-entropy and distillation (MiB, Cermelli et al., CVPR 2020)
method=plop      pseudo-labels where the old network is sure, local POD (PLOP, Douillard et al., CVPR 2021)
method=finetune  cross-entropy alone: what is forgotten without any of these
method=joint     all classes at once: the upper bound

reads   images, masks, for ssul on VOC also saliency maps
writes  <output_dir>/<task>-<setting>/<method>/step<t>/{best.pth, last.pth, metrics.json, memory.json, ...}

    python train_incremental.py configs/demo/ssul.yaml task=15-1 setting=overlap method=ssul
"""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.exemplars import MEMORY_FILE, choose_exemplars, describe, draw_memory, read_memory, write_memory
from data.incremental import Steps
from data.io import write_picture
from data.tasks import Task, head_sizes
from losses.cross_entropy import cross_entropy
from losses.incremental import (
    binary_cross_entropy,
    old_class_entropy,
    pod_loss,
    unbiased_cross_entropy,
    unbiased_distillation,
)
from models.incremental import IncrementalDeepLab, StepWeights, build_incremental, load_incremental, upsample
from utils import checkpoint, dist
from utils.config.reader import load_config
from utils.config.ssul import Ssul, SsulConfig, StepTraining
from utils.errors import UserError
from utils.incremental import (
    IGNORE,
    add_unknown,
    class_scores,
    entropy_thresholds,
    measure,
    pseudo_label,
    step_settings,
    write_summary,
)
from utils.log import log
from utils.loop import Recipe, fit
from utils.measure.evaluation import predict
from utils.measure.metrics import confusion_matrix
from utils.report.tables import print_steps
from utils.run import Run, entry, start_run
from utils.run_folder import stage_dir

BINS = 10_000  # of the exact median
MEMORY_THRESHOLD = 0.7  # of the pseudo-labels that exemplars are chosen by


class StepRecipe(Recipe):
    """Cross-entropy on the labels of the step, everything else background (fine-tuning, joint training, step 0)."""

    score = "new_miou"
    linear = True  # heads of one 1x1 convolution
    unknown = False
    loss_kind = "ce"

    def __init__(self, steps: Steps, number: int, previous: Path | None, run: Run):
        self.steps, self.number, self.run, self.cfg = steps, number, run, run.cfg
        self.task: Task = steps.task
        self.num_old = self.task.num_seen(number - 1) if number else 0
        self.num_seen = self.task.num_seen(number)
        self.pin = run.device.type == "cuda"
        self.model = run.place(self.build(previous))
        self.new_source = steps.source("new", steps.train(number), self.pin)
        self.val_loader = steps.loader(steps.val(number), self.pin)

    # ---- the network

    def build(self, previous: Path | None) -> IncrementalDeepLab:
        """The network of the step before with one more head, or a new one."""
        if previous is None:
            return build_incremental(self.cfg.model, head_sizes(self.task, 0, self.unknown), self.linear)
        model = load_incremental(self.cfg.model, StepWeights.read(previous))
        self.remember(model)
        model.add_head(len(self.task.steps[self.number]))
        self.start_new_head(model)
        return model

    def remember(self, model: IncrementalDeepLab) -> None:
        """Keep of the previous network what the method needs."""

    def start_new_head(self, model: IncrementalDeepLab) -> None:
        """Initialise the newest head."""

    def frozen(self, network: nn.Module) -> nn.Module:
        """A copy that never changes, on the device."""
        return self.run.place(copy.deepcopy(network).requires_grad_(False)).eval()

    # ---- training

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"decoder": list(self.model.classifier.parameters()), "backbone": list(self.model.backbone.parameters())}

    def learning_rates(self, settings: StepTraining) -> dict[str, float]:
        first = self.number == 0
        rate = settings.first_lr if first else settings.lr
        factor = settings.first_backbone_lr_factor if first else settings.backbone_lr_factor
        return {"decoder": rate, "backbone": rate * factor}

    def sources(self, epoch: int) -> dict:
        return {"new": self.new_source}

    def inputs(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images and train ids."""
        return self.model.normalize(batch["new"]["image"]), batch["new"]["label"].long()

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.inputs(batch)
        return {"ce": cross_entropy(self.model(image), label, pixels=dist.labelled_pixels(label))}

    # ---- evaluation

    def evaluate(self) -> dict:
        """Figures on the validation images of the step, `new` being the classes that it adds."""
        options = {"unknown": self.unknown, "loss": self.loss_kind, "title": "validation"}
        outcome = self.steps.outcome(self.number)
        return measure(self.model, self.val_loader, self.run, outcome, first=self.num_old, **options)

    def test(self) -> dict:
        return final_metrics(self.model, self.steps, self.number, self.run, unknown=self.unknown, loss=self.loss_kind)

    def output_classes(self, metrics: dict) -> list[tuple[int, str]]:
        return self.steps.output_classes(self.number, metrics)


class SsulRecipe(StepRecipe):
    """L = BCE(f(x), y~): y~ is y with unknown objects apart from background, and old classes where f_(t-1) is sure.

    From step 1 on only the newest, the unknown and the background head train: the previous network is then the same
    trunk with two heads of its own, so that one pass through the trunk serves both.
    """

    linear = False

    def __init__(self, steps: Steps, number: int, previous: Path | None, run: Run, memory: list[str] | None = None):
        self.options = run.cfg.ssul
        self.unknown, self.loss_kind = self.options.unknown != "off", self.options.loss
        self.last_vague = 1 if self.unknown else 0  # the last channel that is no class
        self.shares_trunk = bool(previous) and self.options.freeze and self.options.freeze_batchnorm
        super().__init__(steps, number, previous, run)
        self.model.freeze_batchnorm = bool(previous) and self.options.freeze_batchnorm
        if previous and self.options.freeze:
            self.model.requires_grad_(False)
            for parameters in self.trained_heads().values():
                for parameter in parameters:
                    parameter.requires_grad_(True)
        self.memory_source = None
        if memory:
            self.memory_source = steps.source("memory", steps.exemplars(memory, number), self.pin)

    def remember(self, model: IncrementalDeepLab) -> None:
        if self.shares_trunk:
            vague = model.classifier.head[: self.last_vague + 1]
            self.old_heads = [self.frozen(head) for head in vague]
        else:
            self.old_network = self.frozen(model)

    def start_new_head(self, model: IncrementalDeepLab) -> None:
        if self.unknown and self.options.transfer:
            model.transfer_unknown()

    def trained_heads(self) -> dict[str, list[nn.Parameter]]:
        """Convolutions of the heads that train from step 1 on; their BatchNorm does not."""
        head = self.model.classifier.head
        heads = {"new": head[-1], **({"unknown": head[0], "background": head[1]} if self.unknown else {})}
        return {
            name: [p for m in part.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()]
            for name, part in heads.items()
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        frozen = self.number and self.options.freeze
        return self.trained_heads() if frozen else super().parameter_groups()

    def learning_rates(self, settings: StepTraining) -> dict[str, float]:
        if not (self.number and self.options.freeze):  # as step 0, also later when nothing is frozen
            return {"decoder": settings.first_lr, "backbone": settings.first_lr * settings.first_backbone_lr_factor}
        rate = settings.lr
        return {"new": rate, "unknown": rate, "background": rate * self.options.background_lr_factor}

    def sources(self, epoch: int) -> dict:
        return {"new": self.new_source, **({"memory": self.memory_source} if self.memory_source else {})}

    def mixed(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets; with a memory, exemplars replace a random half of the batch."""
        image, label = batch["new"]["image"], ssul_target(batch["new"], self.options)
        if "memory" in batch:
            chosen = torch.randperm(len(image))[: len(image) // 2].to(image.device)
            image, label = image.clone(), label.clone()
            image[chosen] = batch["memory"]["image"][chosen]
            moved = self.options.memory_labels == "corrected"
            exemplars = ssul_target(batch["memory"], self.options) if moved else batch["memory"]["label"].long()
            label[chosen] = exemplars[chosen]
        return image, label

    def loss(self, logits: torch.Tensor, label: torch.Tensor, channels: list[int] | None = None) -> dict:
        pixels = dist.labelled_pixels(label)
        if self.options.loss == "bce":
            return {"bce": binary_cross_entropy(logits, label, channels, pixels)}
        return {"ce": cross_entropy(logits, label, pixels=pixels)}

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.mixed(batch)
        image = self.model.normalize(image)
        if not self.number:
            return self.loss(self.model(image), label)
        if not self.shares_trunk:
            with torch.no_grad():
                label = self.with_pseudo(label, self.old_network(image))
            return self.loss(self.model(image), label)
        heads, size = self.model.classifier.head, image.shape[-2:]
        first = len(self.old_heads)
        with torch.no_grad():
            features, low = self.model.features(image)
            old = self.model.decode(features, low, [*self.old_heads, *heads[first:-1]])
            label = self.with_pseudo(label, upsample(old, size))
            dropped = self.model.drop(features)
        if self.options.loss == "ce" or not self.unknown:  # softmax needs every class
            return self.loss(upsample(self.model.decode(dropped, low), size), label)
        trained = self.model.decode(dropped, low, [heads[0], heads[1], heads[-1]])
        newest = range(1 + self.num_old, 1 + self.num_seen)
        return self.loss(upsample(trained, size), label, [0, 1, *newest])

    def with_pseudo(self, label: torch.Tensor, old_logits: torch.Tensor) -> torch.Tensor:
        if self.options.pseudo_threshold is None:
            return label
        scores = class_scores(old_logits, self.loss_kind)
        return pseudo_label(label, scores, self.options.pseudo_threshold, self.last_vague)


class MibRecipe(StepRecipe):
    """L = unbiased CE + 10 unbiased KD: background may hide old classes in the labels, new ones in the old network."""

    def remember(self, model: IncrementalDeepLab) -> None:
        self.old_network = self.frozen(model)

    def start_new_head(self, model: IncrementalDeepLab) -> None:
        model.transfer_background()

    def inputs(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = super().inputs(batch)
        return image, torch.where(label == IGNORE, 0, label) if self.cfg.mib.border == "background" else label

    def step(self, batch: dict, epoch: int) -> dict:
        if not self.number:
            return super().step(batch, epoch)
        image, label = self.inputs(batch)
        with torch.no_grad():
            old = self.old_network(image)
        logits = self.model(image)
        distillation = self.cfg.mib.distillation * unbiased_distillation(logits, old)
        return {"ce": unbiased_cross_entropy(logits, label, self.num_old), "distillation": distillation}


class PlopRecipe(StepRecipe):
    """L = nu CE(f(x), y~) + local POD: y~ is the old network's class where its entropy is below that class's median."""

    remember, start_new_head = MibRecipe.remember, MibRecipe.start_new_head

    def __init__(self, steps: Steps, number: int, previous: Path | None, run: Run):
        if run.cfg.model.plus:
            raise UserError("model.plus=true: method=plop compares features of DeepLabV3 only; use model.plus=false")
        super().__init__(steps, number, previous, run)
        self.thresholds = self.entropy_thresholds() if number else None

    @torch.no_grad()
    def entropy_thresholds(self) -> torch.Tensor:
        """Median entropy of each old class over the background of the training images, float [num_old]."""
        official, options = self.cfg.plop.median == "official", self.cfg.plop
        top, bins = (1.0, 100) if official else (1 / (self.num_old * np.log(self.num_seen)), BINS)
        counts = torch.zeros(self.num_old, bins, dtype=torch.int64, device=self.run.device)
        for batch in self.new_source.epoch(0, range(max(self.new_source.steps_per_pass, 1))):
            image, label = (batch[name].to(self.run.device) for name in ("image", "label"))
            logits = self.old_network(self.model.normalize(image))
            place = (old_class_entropy(logits, self.num_seen) / top * bins).long().clamp(max=bins - 1)
            counts += confusion_matrix(place, torch.where(label == 0, logits.argmax(1), IGNORE), bins, self.num_old)
        histograms = dist.sum_(counts).cpu().numpy()
        thresholds = entropy_thresholds(histograms, top, options.median, options.entropy_floor)
        return torch.tensor(thresholds, dtype=torch.float32, device=self.run.device)

    def step(self, batch: dict, epoch: int) -> dict:
        if not self.number:
            return super().step(batch, epoch)
        image, label = self.inputs(batch)
        with torch.no_grad():
            old_logits, old_taps = self.old_network.forward_with_taps(image)
            label, trust = self.trusted(label, old_logits)
        logits, taps = self.model.forward_with_taps(image)
        per_pixel = nn.functional.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="none")
        options, num_new = self.cfg.plop, self.num_seen - self.num_old
        pod = pod_loss(old_taps, taps, self.num_seen, num_new, options.pod, options.pod_logits)
        return {"ce": (trust[:, None, None] * per_pixel).mean(), "pod": pod}

    def trusted(self, label: torch.Tensor, old_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels with old classes where the old network is sure and 255 elsewhere in the background; its share [B]."""
        old = old_logits.argmax(1)
        vague = label < self.num_old
        sure = vague & (old_class_entropy(old_logits, self.num_seen) < self.thresholds[old])
        share = sure.sum((1, 2)) / (vague.sum((1, 2)) + 1e-6)
        return torch.where(sure, old, torch.where(vague, IGNORE, label)), share


RECIPES = {"ssul": SsulRecipe, "ssul_m": SsulRecipe, "mib": MibRecipe, "plop": PlopRecipe}


def ssul_target(source: dict, options: Ssul) -> torch.Tensor:
    """Train ids of a batch as channel numbers."""
    if options.unknown == "off":
        return source["label"].long()
    return add_unknown(source["label"], source["saliency"] if options.unknown == "saliency" else None)


def choose_memory(steps: Steps, number: int, previous: Path, run: Run) -> list[str]:
    """Exemplars for a step from those of the step before and from its training images, which that network labels."""
    options, last = run.cfg.ssul, number - 1
    unknown = options.unknown != "off"
    model = run.place(load_incremental(run.cfg.model, StepWeights.read(previous)))
    dataset, found = steps.candidates(last), {}
    for batch, logits in predict(lambda x: model(model.normalize(x)), model, steps.loader(dataset), run, "exemplars"):
        label = ssul_target(batch, options).to(run.device)
        if last:  # the labels of step 0 are complete
            label = pseudo_label(label, class_scores(logits, options.loss), MEMORY_THRESHOLD, int(unknown))
        for index, values in zip(batch["index"].tolist(), label.cpu().numpy(), strict=True):
            found[index] = describe(dataset.samples[index].id, values, int(unknown))
    everywhere = {index: candidate for part in dist.gather(found) for index, candidate in part.items()}
    kept = read_memory(previous.parent / MEMORY_FILE)
    candidates = [*kept, *(everywhere[index] for index in sorted(everywhere))]
    rng = np.random.RandomState(run.cfg.seed % 2**32)
    chosen = choose_exemplars(candidates, steps.task.num_seen(last), options.memory, rng)
    ids = sorted(candidate.id for picked in chosen.values() for candidate in picked)
    if dist.is_main():
        write_memory(run.dir / MEMORY_FILE, chosen, steps.task.names)
        picture = draw_memory(chosen, steps.exemplars(ids, last, train=False), steps.task.names)
        write_picture(run.dir / "memory.jpg", picture)
    log.info("memory: %d exemplars of %d candidates", len(ids), len(candidates))
    return ids


def final_metrics(model, steps: Steps, number: int, run: Run, *, native: bool = False, **options) -> dict:
    """Metrics of the network of a step on all validation images, at the crop or at their own size."""
    images = steps.test(native)
    loader = steps.loader(images, run.device.type == "cuda", batch_size=1 if native else None)
    metrics = measure(model, loader, run, steps.outcome(number), title="test", **options)
    protocol = "image size" if native else "shorter side and centre crop"
    return metrics | {"step": number, "images": len(images), "protocol": protocol}


def step_folder(cfg: SsulConfig, number: int) -> str:
    """Stage of a step below <output_dir>/<task>-<setting>; methods that share step 0 find it in one place."""
    shared = {"ssul_m": "ssul", "plop": "finetune", **({"mib": "finetune"} if cfg.mib.border == "ignore" else {})}
    return f"{shared.get(cfg.method, cfg.method) if number == 0 else cfg.method}/step{number}"


def run_step(steps: Steps, number: int) -> dict:
    """Train and test one step, unless that is done; its metrics."""
    cfg = steps.cfg
    handed_on = "best.pth" if cfg.evaluation.select == "official" else "last.pth"
    previous = stage_dir(cfg, step_folder(cfg, number - 1)) / handed_on if number else None
    reads = ("training", "evaluation", *({"ssul_m": ("ssul",)}.get(cfg.method, (cfg.method,))))
    inputs = {**({"previous": previous} if previous else {}), **(steps.discovered.inputs if steps.discovered else {})}
    with start_run(cfg, step_folder(cfg, number), reads, inputs, without=() if number else ("later steps",)) as run:
        if not run.finished:
            memory = {}
            if number and cfg.method == "ssul_m":
                memory = {"memory": choose_memory(steps, number, previous, run)}
            recipe = RECIPES.get(cfg.method, StepRecipe)(steps, number, previous, run, **memory)
            best = fit(recipe, step_settings(cfg.training, cfg.evaluation.select, len(steps.train_ids(number))), run)
            recipe.model.load_state_dict(checkpoint.load(run.dir / handed_on)["model"])
            metrics = recipe.test() | {"epoch": best["epoch"], "validation": best["new_miou"]}
            run.finish(metrics | {"checkpoint": handed_on})
        return checkpoint.read_json(run.dir / "metrics.json")


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ssul",))
    steps = Steps.open(cfg)
    metrics = [run_step(steps, number) for number in range(steps.task.num_steps)]
    if dist.is_main():
        folder = stage_dir(cfg, cfg.method)
        write_summary(metrics, folder)
        print_steps(metrics, f"{cfg.method}, {steps.task.name}, {cfg.setting}")


if __name__ == "__main__":
    entry(main)
