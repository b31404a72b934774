"""The data sets that evaluations of features read."""

from dataclasses import dataclass
from pathlib import Path

from data.class_split import class_folder, class_names
from data.dataset import SegmentationDataset
from data.discovery import DRY_IMAGES, data_root
from data.label_map import LabelMap
from data.layouts import Sample, find_layout, index_samples
from data.lists import root_list
from data.loading import Source, eval_loader
from data.tasks import shipped_presence
from data.transforms import TrainTransform, ValTransform
from utils.config.probe import ProbeConfig
from utils.errors import UserError

TRAIN_FOLDER = "SegmentationClassAug"


@dataclass(frozen=True)
class ProbeData:
    """Classes and data root of a run, and the data sets made from them."""

    cfg: ProbeConfig
    root: Path
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: ProbeConfig) -> "ProbeData":
        """UserError when a class to leave out is none of the data set."""
        classes = class_names(class_folder(cfg.data.dataset) / "classes.yaml")
        unknown = next((name for name in cfg.retrieval.ignore if name not in classes[1:]), None)
        if unknown:
            raise UserError(f"retrieval.ignore: '{unknown}' is no class of {cfg.data.dataset}; it has {classes[1:]}")
        return cls(cfg, data_root(cfg), classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train(self) -> SegmentationDataset:
        """Augmented, for the linear probe."""
        d = self.cfg.data
        augment = TrainTransform(d.image_size, d.border)
        return self._dataset(d.train_list, ("image", "label"), TRAIN_FOLDER, augment)

    def val(self, *fields: str) -> SegmentationDataset:
        """Validation images with `fields` besides the image; the paths of the masks are known in any case."""
        name = self.cfg.data.val_list or find_layout(self.root).val_list
        return self._dataset(name, ("image", *fields), self.cfg.evaluation.label_folder)

    def memory(self, *fields: str) -> SegmentationDataset:
        """The labelled images of retrieval."""
        name = self.cfg.retrieval.memory
        folder = TRAIN_FOLDER if name.startswith("trainaug") else self.cfg.evaluation.label_folder
        return self._dataset(name, ("image", *fields), folder)

    def ids(self, name: str) -> list[str]:
        """A list of the data root's, else the official one that is shipped."""
        folders = find_layout(self.root)
        try:
            return root_list(self.root, name)
        except UserError:
            part = {"trainaug": "train", folders.val_list: "val"}.get(name)
            if part is None:
                raise
            return [image_id for image_id, _ in shipped_presence(self.cfg.data.dataset, part)]

    def _dataset(self, name, fields, label_folder, transform=None) -> SegmentationDataset:
        cfg = self.cfg
        ids = self.ids(name)[:DRY_IMAGES] if cfg.run.dry else self.ids(name)
        if not ids:
            raise UserError(f"{name}: the image list is empty")
        return SegmentationDataset(
            self._index(ids, tuple(dict.fromkeys((*fields, "label"))), label_folder),
            fields,
            transform=transform or ValTransform(cfg.data.image_size),
            label_map=LabelMap.from_pairs({number: number for number in range(self.num_classes)}),
            mask_rule=cfg.data.mask_rule,
            seed=cfg.seed,
            cache=cfg.data.cache,
            max_side=cfg.data.max_side,
        )

    def _index(self, ids: list[str], fields: tuple[str, ...], label_folder: str) -> list[Sample]:
        d = self.cfg.data
        options = {"label_folder": label_folder, "saliency_folder": d.saliency_folder, "missing": d.missing}
        return index_samples(self.root, ids, fields=fields, **options)

    def source(self, name: str, dataset: SegmentationDataset, pin: bool) -> Source:
        cfg = self.cfg
        return Source(name, dataset, cfg.training.batch_size, seed=cfg.seed, workers=cfg.data.workers, pin=pin)

    def loader(self, dataset: SegmentationDataset, pin: bool = False):
        return eval_loader(dataset, self.cfg.evaluation.batch_size, workers=self.cfg.data.workers, pin=pin)
