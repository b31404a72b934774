"""Evaluations of features: which images and fields they read, and how a linear probe is scored."""

from dataclasses import dataclass, replace

from data.classes import class_files, load_classes
from data.dataset import SegmentationDataset
from data.label_map import LabelMap
from data.lists import image_list, warn_of_overlap
from data.loading import Source
from data.source import DataContext
from data.transforms import TrainTransform, ValTransform
from utils.config.probe import ProbeConfig
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec

TRAIN_FOLDER = "SegmentationClassAug"


@dataclass(frozen=True)
class ProbeData:
    """Classes and data root of a run, and the data sets made from them."""

    context: DataContext[ProbeConfig]
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: ProbeConfig) -> "ProbeData":
        """UserError when a class to leave out is none of the data set."""
        classes = load_classes(cfg.data.dataset).names
        unknown = next((name for name in cfg.retrieval.ignore if name not in classes[1:]), None)
        if unknown:
            raise UserError(f"retrieval.ignore: '{unknown}' is no class of {cfg.data.dataset}; it has {classes[1:]}")
        context = DataContext.open(cfg)
        context.files.add(class_files(cfg.data.dataset))
        return cls(context, classes)

    @property
    def cfg(self) -> ProbeConfig:
        return self.context.cfg

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train(self) -> SegmentationDataset:
        """Augmented, for the linear probe."""
        d = self.cfg.data
        augment = TrainTransform(d.image_size, d.border, d.transforms)
        return self._unlike_val(self._dataset(d.train_list, ("image", "label"), TRAIN_FOLDER, augment))

    def val(self, *fields: str) -> SegmentationDataset:
        """Validation images with `fields` besides the image; the paths of the masks are known in any case."""
        return self._dataset(self._val_list, ("image", *fields), self.cfg.evaluation.label_folder)

    def memory(self, *fields: str) -> SegmentationDataset:
        """The labelled images of retrieval."""
        name = self.cfg.retrieval.memory
        folder = TRAIN_FOLDER if name.startswith("trainaug") else self.cfg.evaluation.label_folder
        return self._unlike_val(self._dataset(name, ("image", *fields), folder))

    @property
    def _val_list(self) -> str:
        return self.cfg.data.val_list or self.context.layout.val_list

    def _unlike_val(self, images: SegmentationDataset) -> SegmentationDataset:
        warn_of_overlap((sample.id for sample in images.samples), image_list(self.context, self._val_list))
        return images

    def _dataset(self, name, fields, label_folder, transform=None) -> SegmentationDataset:
        context, d = self.context, self.cfg.data
        ids = image_list(context, name)
        if not ids:
            raise UserError(f"{name}: the image list is empty")
        where = {"label_folder": label_folder, "saliency_folder": d.saliency_folder, "missing": d.missing}
        return context.dataset(
            context.index(ids, tuple(dict.fromkeys((*fields, "label"))), **where),
            fields,
            transform=transform or ValTransform(d.image_size),
            label_map=LabelMap.from_pairs({number: number for number in range(self.num_classes)}),
            mask_rule=d.mask_rule,
        )

    def source(self, name: str, dataset: SegmentationDataset) -> Source:
        return self.context.source(name, dataset, self.cfg.training.batch_size)

    def loader(self, dataset: SegmentationDataset, native: bool = False):
        return self.context.loader(dataset, self.cfg.evaluation.batch_size, native)

    # ---- how a linear probe is scored

    def protocol(self, images: SegmentationDataset) -> EvalProtocol:
        """At network resolution: only to choose an epoch."""
        spec = Spec(self.classes, self.num_classes, absent=self.cfg.evaluation.absent)
        return EvalProtocol(self.loader(images), spec, classes=lambda metrics: list(enumerate(self.classes)))

    def test_protocol(self) -> EvalProtocol:
        """At the size of the masks."""
        name = "image size, CRF" if self.cfg.evaluation.crf else "image size"
        images = self.val()
        loader = self.loader(images, native=True)
        return replace(self.protocol(images), loader=loader, native=True, name=name, stage="linear")

    def evaluation(self, network) -> EvalProtocol:
        """For eval.py: how a linear probe (models.segmenter.Segmenter) is scored."""
        if network.num_outputs != self.num_classes:
            found = f"has {network.num_outputs} outputs, {self.cfg.data.dataset} has {self.num_classes} classes"
            raise UserError(f"{network.path}: {found}; give its own data.dataset")
        return self.test_protocol()
