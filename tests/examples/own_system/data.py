"""Supervised segmentation: which images and classes it reads, and how a network is scored."""

from dataclasses import dataclass, replace

from data.classes import load_classes
from data.dataset import SegmentationDataset
from data.label_map import LabelMap
from data.lists import image_list
from data.protocol import SystemData, TrainedNetwork
from data.source import DataContext
from data.transforms import TrainTransform, ValTransform
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec

from .config import SupervisedConfig


@dataclass(frozen=True)
class SupervisedData(SystemData):
    """Classes and data root of a run, and the data sets made from them."""

    context: DataContext[SupervisedConfig]
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: SupervisedConfig) -> "SupervisedData":
        return cls(DataContext.open(cfg), load_classes(cfg.data.dataset).names)

    def train(self) -> SegmentationDataset:
        d = self.context.cfg.data
        return self._dataset(d.train_list or "trainaug", TrainTransform(d.image_size, d.border, d.transforms))

    def val(self) -> SegmentationDataset:
        d = self.context.cfg.data
        return self._dataset(d.val_list or self.context.layout.val_list, ValTransform(d.image_size))

    def _dataset(self, name: str, transform: ValTransform) -> SegmentationDataset:
        fields = ("image", "label")
        samples = self.context.index(image_list(self.context, name), fields)
        same = LabelMap.from_pairs({number: number for number in range(len(self.classes))})
        return self.context.dataset(samples, fields, transform=transform, label_map=same)

    def protocol(self) -> EvalProtocol:
        """At network resolution, while training."""
        options, numbered = self.context.cfg.evaluation, list(enumerate(self.classes))
        loader = self.context.loader(self.val(), options.batch_size)
        spec = Spec(self.classes, len(self.classes), absent=options.absent)
        return EvalProtocol(loader, spec, classes=lambda metrics: numbered)

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: how a network (models.segmenter.Segmenter) is scored, at the size of the masks."""
        if network.num_outputs != len(self.classes):
            found = (
                f"has {network.num_outputs} outputs, {self.context.cfg.data.dataset} has {len(self.classes)} classes"
            )
            raise UserError(f"{network.path}: {found}; give its own data.dataset")
        return replace(self.protocol(), native=True, name="image size", stage="train")
