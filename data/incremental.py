"""The data sets that the steps of a class-incremental task read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.crops import CentreCrop, ResizedCrop, ScaleCrop, whole
from data.dataset import SegmentationDataset
from data.discovered import Discovered
from data.discovery import DRY_IMAGES, data_root
from data.label_map import IGNORE, LabelMap
from data.layouts import find_layout, index_samples
from data.lists import presence, root_list
from data.loading import Source, eval_loader
from data.tasks import Presence, Task, load_task, shipped_presence
from utils.config.ssul import SsulConfig
from utils.errors import UserError
from utils.incremental import Outcome


@dataclass(frozen=True)
class Steps:
    """Task, data root and image lists of a run, and the data sets made from them."""

    cfg: SsulConfig
    root: Path
    task: Task
    num_first: int  # classes of step 0 with background; joint training merges the steps, and still tells them apart
    train_images: Presence
    val_images: Presence
    discovered: Discovered | None = None  # what steps from 1 on learn in setting=discovered

    @classmethod
    def open(cls, cfg: SsulConfig) -> "Steps":
        root, d = data_root(cfg), cfg.data
        task = load_task(cfg.task, d.dataset)
        if d.train_list:
            names = root_list(root, d.train_list), root_list(root, d.val_list or find_layout(root).val_list)
            train, val = (list(zip(ids, presence(root, ids), strict=True)) for ids in names)
        else:
            train, val = (shipped_presence(d.dataset, part) for part in ("train", "val"))
        num_first = task.num_seen(0)
        if cfg.setting == "discovered":
            discovered = Discovered.open(cfg, task, dict(train))
            return cls(cfg, root, discovered.task, num_first, discovered.labelled, val, discovered)
        if cfg.method == "joint":
            task = replace(task, steps=(tuple(task.order[1:]),))
        return cls(cfg, root, task, num_first, train, val)

    def outcome(self, step: int) -> Outcome:
        """What the network of a step is measured by."""
        seen, clusters = self.task.num_seen(step), bool(self.discovered and step)
        names = self.discovered.truth.names if clusters else self.task.names[:seen]
        return Outcome(names, seen, self.num_first, clusters, complete=step == self.task.num_steps - 1)

    def output_classes(self, step: int, metrics: dict) -> list[tuple[int, str]]:
        """(class number in the masks, name) of each output after a step, the unknown one left out."""
        known = [(number, self.task.classes[number]) for number in self.task.order[: self.task.num_seen(step)]]
        if not (self.discovered and step):
            return known
        truth, unmatched = self.discovered.truth, (IGNORE, "unmatched cluster")
        later = [(number, truth.classes[number]) for number in truth.order[self.num_first :]]
        return known[: self.num_first] + [unmatched if k < 0 else later[k] for _, k in metrics["match"]]

    def train_ids(self, step: int) -> list[str]:
        """Images of a step, in list order; UserError when there are none."""
        images = self.discovered.images if self.discovered and step else self.train_images
        ids = self.task.select(images, step, self.cfg.setting)
        if not ids:
            raise UserError(f"task={self.cfg.task}: step {step} has no training image; no image holds its classes")
        return ids

    @property
    def fields(self) -> tuple[str, ...]:
        """What training images are read with."""
        wants_saliency = self.cfg.method.startswith("ssul") and self.cfg.ssul.unknown == "saliency"
        return ("image", "label", "saliency") if wants_saliency else ("image", "label")

    def train(self, step: int) -> SegmentationDataset:
        return self._dataset(self.train_ids(step), self.fields, self.task.step_map(step), train=True)

    def exemplars(self, ids: Sequence[str], step: int, *, train: bool = True) -> SegmentationDataset:
        """Exemplars with the labels of every class up to a step; for looking at, whole."""
        dataset = self._dataset(ids, self.fields, self.task.seen_map(step), train=train)
        if not train:
            dataset.transform = whole
        return dataset

    def candidates(self, step: int) -> SegmentationDataset:
        """The training images of a step as evaluation sees them, to choose exemplars from."""
        return self._dataset(self.train_ids(step), self.fields, self.task.step_map(step))

    def val(self, step: int) -> SegmentationDataset:
        """Validation images with a class of a step, its classes only; clusters: all images, their true classes."""
        if self.discovered and step:
            return self.test()
        ids = self.task.select(self.val_images, step, self.cfg.setting)
        return self._dataset(ids or self.test_ids, ("image", "label"), self.task.step_map(step))

    def test(self, native: bool = False) -> SegmentationDataset:
        """All validation images with all classes; `native` leaves them as they are."""
        truth = self.discovered.truth if self.discovered else self.task
        dataset = self._dataset(self.test_ids, ("image", "label"), truth.full_map())
        if native:
            dataset.transform = whole
        return dataset

    @property
    def test_ids(self) -> list[str]:
        return [name for name, _ in self.val_images]

    def _dataset(
        self, ids: Sequence[str], fields: tuple[str, ...], label_map: LabelMap, *, train: bool = False
    ) -> SegmentationDataset:
        cfg = self.cfg
        kept = list(ids)[:DRY_IMAGES] if cfg.run.dry else list(ids)
        resized = cfg.method in ("mib", "plop", "finetune")
        augment = ResizedCrop if resized else ScaleCrop
        transform = (augment if train else CentreCrop)(cfg.data.image_size)
        pseudo = self.discovered.samples(self.root, kept, fields) if self.discovered else {}
        masked = index_samples(self.root, [name for name in kept if name not in pseudo], fields=fields)
        samples = pseudo | {sample.id: sample for sample in masked}
        return SegmentationDataset(
            [samples[name] for name in kept],
            fields,
            transform=transform,
            label_map=label_map,
            pseudo_map=self.discovered.label_map(label_map) if self.discovered else None,
            seed=cfg.seed,
            cache=cfg.data.cache,
            max_side=cfg.data.max_side,
        )

    def source(self, name: str, dataset: SegmentationDataset, pin: bool) -> Source:
        cfg = self.cfg
        return Source(name, dataset, cfg.training.batch_size, seed=cfg.seed, workers=cfg.data.workers, pin=pin)

    def loader(self, dataset: SegmentationDataset, pin: bool = False, batch_size: int | None = None):
        batch_size = batch_size or self.cfg.evaluation.batch_size
        return eval_loader(dataset, batch_size, workers=self.cfg.data.workers, pin=pin)
