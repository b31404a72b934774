"""Data of feature evaluation: linear probe, k-means and retrieval."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch.utils.data import DataLoader

from data.classes import class_files, load_classes
from data.dataset import SegmentationDataset
from data.label_map import LabelMap
from data.layouts import TRAIN_FOLDER
from data.lists import image_list, warn_of_overlap
from data.loading import Source
from data.protocol import SystemData, TrainedNetwork
from data.source import DataContext, ImageSet
from data.transforms import TrainTransform, ValTransform
from utils.config.probe import ProbeConfig
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec


@dataclass(frozen=True)
class ProbeData(SystemData[ProbeConfig]):
    """Classes, data root and data sets of a run."""

    context: DataContext[ProbeConfig]
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: ProbeConfig) -> "ProbeData":
        """Raises UserError if `retrieval.ignore` names an unknown class."""
        classes = load_classes(cfg.data.dataset).names
        unknown = next((name for name in cfg.retrieval.ignore if name not in classes[1:]), None)
        if unknown:
            raise UserError(f"retrieval.ignore: '{unknown}' is no class of {cfg.data.dataset}; it has {classes[1:]}")
        context = DataContext.open(cfg)
        context.files.add(class_files(cfg.data.dataset))
        return cls(context, classes)

    @classmethod
    def reads(cls, context: DataContext[ProbeConfig]) -> Iterator[ImageSet]:
        """Images that a linear probe or the memory of retrieval learns from, and the validation images."""
        data, mode = cls(context, load_classes(context.cfg.data.dataset).names), context.cfg.mode
        names = dict(enumerate(data.classes))
        objects = ("saliency",) if mode != "linear" and data.foreground == "saliency" else ()
        if mode != "kmeans":
            learned = data._train_set() if mode == "linear" else data._memory_set(*objects)
            yield replace(learned, class_names=names)
        yield data._val_set(*objects)

    @property
    def cfg(self) -> ProbeConfig:
        return self.context.cfg

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def foreground(self) -> Literal["head", "saliency"]:
        """Source of the object masks: the network's saliency head, or saliency maps of the data."""
        return self.cfg.foreground or ("head" if self.cfg.model.kind == "maskcontrast" else "saliency")

    def train(self) -> SegmentationDataset:
        """Augmented training images with labels, for the linear probe."""
        d = self.cfg.data
        augment = TrainTransform(d.image_size, d.border, d.transforms)
        return self._unlike_val(self._train_set().dataset(augment))

    def val(self, *fields: str) -> SegmentationDataset:
        """Validation images with further `fields`; the paths of their masks are known in any case."""
        return self._val_set(*fields).dataset(ValTransform(self.cfg.data.image_size), ("image", *fields))

    def memory(self, *fields: str) -> SegmentationDataset:
        """The labelled images of retrieval with further `fields`."""
        images = self._memory_set(*fields).dataset(ValTransform(self.cfg.data.image_size), ("image", *fields))
        return self._unlike_val(images)

    def _train_set(self) -> ImageSet:
        return self._set("train", self.cfg.data.train_list, TRAIN_FOLDER)

    def _memory_set(self, *fields: str) -> ImageSet:
        name = self.cfg.retrieval.memory
        folder = TRAIN_FOLDER if name.startswith("trainaug") else self.cfg.evaluation.label_folder
        return self._set("train", name, folder, *fields)

    def _val_set(self, *fields: str) -> ImageSet:
        found = self._set("val", self._val_list, self.cfg.evaluation.label_folder, *fields)
        return replace(found, validation=True)

    def _set(self, role: str, name: str, folder: str, *fields: str) -> ImageSet:
        """The images of list `name` with masks from `folder`. Raises UserError for an empty list."""
        d, ids = self.cfg.data, image_list(self.context, name)
        if not ids:
            raise UserError(f"{name}: the image list is empty")
        return ImageSet(
            role,
            self.context,
            ids,
            ("image", *dict.fromkeys((*fields, "label"))),
            label_map=LabelMap.from_pairs({number: number for number in range(self.num_classes)}),
            mask_rule=d.mask_rule,
            missing=d.missing,
            label_folder=folder,
            saliency_folder=d.saliency_folder,
        )

    @property
    def _val_list(self) -> str:
        return self.cfg.data.val_list or self.context.layout.val_list

    def _unlike_val(self, images: SegmentationDataset) -> SegmentationDataset:
        """The images, with a warning if some of them are validation images."""
        warn_of_overlap((sample.id for sample in images.samples), image_list(self.context, self._val_list))
        return images

    def source(self, name: str, dataset: SegmentationDataset) -> Source:
        return self.context.source(name, dataset, self.cfg.training.batch_size)

    def loader(self, dataset: SegmentationDataset, native: bool = False) -> DataLoader:
        return self.context.loader(dataset, self.cfg.evaluation.batch_size, native)

    # ---- evaluation of a linear probe

    def protocol(self, images: SegmentationDataset) -> EvalProtocol:
        """Evaluation at network resolution, which selects the best epoch."""
        spec = Spec(self.classes, self.num_classes, absent=self.cfg.evaluation.absent)
        return EvalProtocol(self.loader(images), spec, classes=lambda metrics: list(enumerate(self.classes)))

    def test_protocol(self) -> EvalProtocol:
        """Evaluation at the size of the mask files."""
        name = "image size, CRF" if self.cfg.evaluation.crf else "image size"
        images = self.val()
        loader = self.loader(images, native=True)
        return replace(self.protocol(images), loader=loader, native=True, name=name, stage="linear")

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: a linear probe. Raises UserError if it has another number of classes."""
        if network.num_outputs != self.num_classes:
            found = f"has {network.num_outputs} outputs, {self.cfg.data.dataset} has {self.num_classes} classes"
            raise UserError(f"{network.path}: {found}; give its own data.dataset")
        return self.test_protocol()
