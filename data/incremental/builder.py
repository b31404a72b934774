"""Data of class-incremental segmentation: images, label maps and evaluation of each step of a task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from data.classes import ClassGroups, class_files, load_task
from data.crops import CentreCrop, ResizedCrop, ScaleCrop, whole
from data.dataset import SegmentationDataset
from data.incremental.cluster_task import ClusterTask
from data.label_map import LabelMap
from data.lists import Presence, image_list, presence, shipped_presence, warn_of_overlap
from data.loading import Source
from data.protocol import SystemData, TrainedNetwork
from data.source import DataContext, ImageSet
from utils.config.incremental import IncrementalConfig
from utils.errors import UserError
from utils.labels import IGNORE, is_wide
from utils.measure.protocol import Classes, EvalProtocol
from utils.measure.spec import Spec

FIELDS = ("image", "label")
UNMATCHED = "unmatched cluster"
SHIPPED = ("train", "val")  # official lists with the classes of each image


@dataclass(frozen=True)
class IncrementalData(SystemData[IncrementalConfig]):
    """Task, data root, image lists and data sets of a run."""

    context: DataContext[IncrementalConfig]
    task: ClassGroups  # one group per step; with setting=discovered, clusters replace the classes of later steps
    num_first: int  # classes of step 0 with background, also for joint training, which merges the steps
    train_images: Presence
    val_images: Presence
    discovered: ClusterTask | None = None  # pseudo-labels of later steps with setting=discovered

    @classmethod
    def open(cls, cfg: IncrementalConfig) -> "IncrementalData":
        """Scans the masks of lists that do not ship. Raises UserError if task, lists or pseudo-labels do not fit."""
        context, d = DataContext.open(cfg), cfg.data
        task = load_task(cfg.task, d.dataset)
        context.files.add(class_files(d.dataset, cfg.task, kind="tasks"))
        names = list_names(context)
        if names:
            train, val = (presence(context, name, task.everything()) for name in names)
        else:
            train, val = (shipped_presence(d.dataset, part) for part in SHIPPED)
        warn_of_overlap((name for name, _ in train), (name for name, _ in val))
        num_first = task.num_seen(0)
        if is_wide(len(task.order)):
            raise UserError(
                f"task={cfg.task}: {len(task.order)} classes; class-incremental losses take at most {IGNORE}"
            )
        if cfg.setting == "discovered":
            discovered = ClusterTask.open(cfg, task, dict(train))
            return cls(context, discovered.task, num_first, discovered.labelled, val, discovered)
        if cfg.method == "joint":
            task = replace(task, groups=(tuple(number for step in task.groups for number in step),))
        return cls(context, task, num_first, train, val)

    @classmethod
    def reads(cls, context: DataContext[IncrementalConfig]) -> Iterator[ImageSet]:
        """Images of all steps, with saliency if the method reads it, and the validation images."""
        cfg, names = context.cfg, list_names(context)
        task = load_task(cfg.task, cfg.data.dataset)
        if names:
            train, val = (image_list(context, name) for name in names)
        else:
            train, val = ([name for name, _ in shipped_presence(cfg.data.dataset, part)] for part in SHIPPED)
        labels, steps = task.everything(), enumerate(task.groups)
        called = {number: f"step {step:<3}{task.classes[number]}" for step, numbers in steps for number in numbers}
        yield ImageSet("train", context, train, train_fields(cfg), label_map=labels, class_names=called)
        yield ImageSet("val", context, val, FIELDS, label_map=labels, validation=True)

    @property
    def cfg(self) -> IncrementalConfig:
        return self.context.cfg

    @property
    def num_steps(self) -> int:
        return len(self.task.groups)

    def num_seen(self, step: int) -> int:
        """Number of classes learned in steps 0 to `step`, including background; 0 before step 0."""
        return self.task.num_seen(step) if step >= 0 else 0

    # ---- images and labels

    def train_ids(self, step: int) -> list[str]:
        """Images of a step, in list order. Raises UserError if there are none."""
        images = self.discovered.images if self.discovered and step else self.train_images
        ids = select(self.task, images, step, self.cfg.setting)
        if not ids:
            raise UserError(f"task={self.cfg.task}: step {step} has no training image; no image holds its classes")
        return ids

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of training images."""
        return train_fields(self.cfg)

    def train(self, step: int) -> SegmentationDataset:
        """Training images of a step; only its own classes are labelled, all others are background."""
        return self._dataset(self.train_ids(step), self.fields, self.task.label_map([step]), train=True)

    def exemplars(self, ids: Sequence[str], step: int, *, train: bool = True) -> SegmentationDataset:
        """Exemplars with labels of all classes up to a step; whole images unless `train`."""
        label_map = self.task.label_map(range(step + 1))
        dataset = self._dataset(ids, self.fields, label_map, train=train)
        if not train:
            dataset.transform = whole
        return dataset

    def candidates(self, step: int) -> SegmentationDataset:
        """The training images of a step with the evaluation transform, to choose exemplars from."""
        return self._dataset(self.train_ids(step), self.fields, self.task.label_map([step]))

    def val(self, step: int) -> SegmentationDataset:
        """Validation images of a step with labels of its classes; for clusters all images with their true classes."""
        if self.discovered and step:
            return self.test()
        ids = select(self.task, self.val_images, step, self.cfg.setting)
        return self._dataset(ids or self.test_ids, FIELDS, self.task.label_map([step]))

    def test(self, native: bool = False) -> SegmentationDataset:
        """All validation images with all classes; `native`: at their own size."""
        truth = self.discovered.truth if self.discovered else self.task
        dataset = self._dataset(self.test_ids, FIELDS, truth.everything())
        if native:
            dataset.transform = whole
        return dataset

    @property
    def test_ids(self) -> list[str]:
        return [name for name, _ in self.val_images]

    def _dataset(
        self, ids: Sequence[str], fields: tuple[str, ...], label_map: LabelMap, *, train: bool = False
    ) -> SegmentationDataset:
        cfg, kept = self.cfg, self.context.cut(ids)
        augment = ResizedCrop if cfg.method in ("mib", "plop", "finetune") else ScaleCrop
        size = cfg.data.image_size
        transform = augment(size, cfg.data.transforms) if train else CentreCrop(size)
        pseudo = self.discovered.samples(self.context, kept, fields, label_map) if self.discovered else {}
        masked = self.context.index([name for name in kept if name not in pseudo], fields)
        samples = pseudo | {sample.id: sample for sample in masked}
        return self.context.dataset([samples[n] for n in kept], fields, transform=transform, label_map=label_map)

    def source(self, name: str, dataset: SegmentationDataset) -> Source:
        return self.context.source(name, dataset, self.cfg.training.batch_size)

    # ---- evaluation

    def protocol(self, images: SegmentationDataset, step: int, num_old: int | None = None) -> EvalProtocol:
        """Evaluation of the network of a step; `new` are train ids from `num_old` on, by default all after step 0.

        Pixels of later classes are ignored or background, by `evaluation.later`. Clusters are matched to the true later
        classes.
        """
        options, seen, discovered = self.cfg.evaluation, self.task.num_seen(step), self.discovered if step else None
        names, clusters = discovered.truth.names if discovered else self.task.names[:seen], discovered is not None
        first = self.num_first if num_old is None or clusters else num_old
        groups = {"old": range(first), "new": range(first, len(names))}
        spec = Spec(
            names,
            seen,
            {name: ids for name, ids in groups.items() if ids},
            unions={"foreground": range(1, len(names))},
            absent=options.absent,
            num_known=first if clusters else None,
            partial=clusters,
            complete=step == self.num_steps - 1,
        )
        later, loader = IGNORE if options.later == "ignore" else 0, self.context.loader(images, options.batch_size)
        return EvalProtocol(loader, spec, later=later, classes=partial(self.output_classes, step))

    def validation(self, step: int) -> EvalProtocol:
        """Evaluation on the validation images of a step; `new` are the classes that it adds."""
        return self.protocol(self.val(step), step, num_old=self.num_seen(step - 1))

    def test_protocol(self, step: int, native: bool = False) -> EvalProtocol:
        """Evaluation on all validation images, as centre crops or at image size."""
        images = self.test(native)
        made = self.protocol(images, step)
        if native:  # images differ in size
            made = replace(made, loader=self.context.loader(images, 1, native=True), native=True)
        name = "image size" if native else "shorter side and centre crop"
        return replace(made, name=name, about={"step": step, "images": len(images)}, stage=f"step{step}")

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: the network of a step, identified by its heads. Raises UserError if they fit no step."""
        native = self.cfg.evaluation.native
        if self.cfg.save_predictions and not native:
            raise UserError("save_predictions=true: for images at their own size only; add evaluation.native=true")
        heads, steps = network.heads, range(self.num_steps)
        step = next((number for number in steps if head_sizes(self.task, number, heads) == heads), None)
        if step is None:
            found = f"its heads have {list(heads)} outputs, which is no step of task={self.cfg.task}"
            raise UserError(f"{network.path}: {found}")
        return self.test_protocol(step, native)

    def output_classes(self, step: int, metrics: dict[str, Any]) -> Classes:
        """(class number in the masks, name) of each output after a step, without the unknown class."""
        known = [(number, self.task.classes[number]) for number in self.task.order[: self.task.num_seen(step)]]
        if not (self.discovered and step):
            return known
        truth, unmatched = self.discovered.truth, (IGNORE, UNMATCHED)
        later = [(number, truth.classes[number]) for number in truth.order[self.num_first :]]
        return known[: self.num_first] + [unmatched if k < 0 else later[k] for _, k in metrics["match"]]


def list_names(context: DataContext[IncrementalConfig]) -> tuple[str, str] | None:
    """Names of the training and the validation list; None for the official lists that ship."""
    d = context.cfg.data
    return (d.train_list or "trainaug", d.val_list or context.layout.val_list) if d.train_list or d.lists else None


def train_fields(cfg: IncrementalConfig) -> tuple[str, ...]:
    """Fields of training images; SSUL's unknown class needs saliency."""
    return (*FIELDS, "saliency") if cfg.method.startswith("ssul") and cfg.ssul.unknown == "saliency" else FIELDS


def select(task: ClassGroups, images: Presence, step: int, setting: str) -> list[str]:
    """Images with a class of the step; with setting=disjoint, without a class of a later step.

    The official code compares class numbers instead of steps, which is equal for tasks in numerical order.
    """
    later = frozenset(number for group in task.groups[step + 1 :] for number in group)
    own = task.having(step)
    return [name for name, found in images if found & own and not (setting == "disjoint" and found & later)]


def head_sizes(task: ClassGroups, step: int, like: Sequence[int] | bool) -> tuple[int, ...]:
    """Outputs of each head after a step: 1, 1, C0, C1, ... with an unknown class, else 1 + C0, C1, ...

    `like`: whether there is an unknown class, or the heads of a network, whose first one has a single output then.
    """
    unknown = like if isinstance(like, bool) else like[0] == 1
    first, *later = (len(classes) for classes in task.groups[: step + 1])
    return (1, 1, first, *later) if unknown else (1 + first, *later)


def step_folder(cfg: IncrementalConfig, step: int) -> str:
    """Stage folder of a step below <output_dir>/<task>-<setting>; methods with the same step 0 share its folder."""
    if cfg.own_method:
        return f"{cfg.own_method}/step{step}"
    shared = {"ssul_m": "ssul", "plop": "finetune", **({"mib": "finetune"} if cfg.mib.border == "ignore" else {})}
    return f"{shared.get(cfg.method, cfg.method) if step == 0 else cfg.method}/step{step}"
