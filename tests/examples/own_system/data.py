"""Data of supervised segmentation: images, classes and evaluation."""

from dataclasses import dataclass, replace

from data.classes import load_classes
from data.dataset import SegmentationDataset
from data.protocol import SystemData, TrainedNetwork, labelled_sets
from data.source import DataContext
from data.transforms import TrainTransform, ValTransform
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec

from .config import SupervisedConfig


@dataclass(frozen=True)
class SupervisedData(SystemData[SupervisedConfig]):
    """Classes, data root and data sets of a run."""

    context: DataContext[SupervisedConfig]
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: SupervisedConfig) -> "SupervisedData":
        return cls(DataContext.open(cfg), load_classes(cfg.data.dataset).names)

    def train(self) -> SegmentationDataset:
        d = self.context.cfg.data
        images, _ = labelled_sets(self.context)
        return images.dataset(TrainTransform(d.image_size, d.border, d.transforms))

    def val(self) -> SegmentationDataset:
        _, images = labelled_sets(self.context)
        return images.dataset(ValTransform(self.context.cfg.data.image_size))

    def protocol(self) -> EvalProtocol:
        """At network resolution, during training."""
        options, numbered = self.context.cfg.evaluation, list(enumerate(self.classes))
        loader = self.context.loader(self.val(), options.batch_size)
        spec = Spec(self.classes, len(self.classes), absent=options.absent)
        return EvalProtocol(loader, spec, classes=lambda metrics: numbered)

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: at the size of the mask files. Raises UserError for another number of classes."""
        if network.num_outputs != len(self.classes):
            found = (
                f"has {network.num_outputs} outputs, {self.context.cfg.data.dataset} has {len(self.classes)} classes"
            )
            raise UserError(f"{network.path}: {found}; give its own data.dataset")
        return replace(self.protocol(), native=True, name="image size", stage="train")
