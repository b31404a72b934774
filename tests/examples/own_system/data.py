"""Plain supervised segmentation: which images, fields and label maps are read, and how networks are scored."""

from dataclasses import dataclass, replace

from data.classes import load_classes
from data.dataset import SegmentationDataset
from data.label_map import LabelMap
from data.lists import image_list
from data.source import DataContext
from data.transforms import TrainTransform, ValTransform
from tests.examples.own_system.config import SupervisedConfig
from utils.errors import UserError
from utils.measure.protocol import Protocol
from utils.measure.spec import Spec


@dataclass(frozen=True)
class SupervisedData:
    context: DataContext
    classes: tuple[str, ...]  # background first

    @classmethod
    def open(cls, cfg: SupervisedConfig) -> "SupervisedData":
        return cls(DataContext.open(cfg), load_classes(cfg.data.dataset).names)

    def train(self) -> SegmentationDataset:
        d = self.context.cfg.data
        return self._labelled(d.train_list or "trainaug", TrainTransform(d.image_size, d.border))

    def val(self) -> SegmentationDataset:
        d = self.context.cfg.data
        return self._labelled(d.val_list or self.context.layout.val_list, ValTransform(d.image_size))

    def _labelled(self, name: str, transform) -> SegmentationDataset:
        fields = ("image", "label")
        every = LabelMap.from_pairs({number: number for number in range(len(self.classes))})
        samples = self.context.index(image_list(self.context, name), fields)
        return self.context.dataset(samples, fields, transform=transform, label_map=every)

    def protocol(self) -> Protocol:
        """At the network's size, while training."""
        options, classes = self.context.cfg.evaluation, list(enumerate(self.classes))
        spec = Spec(self.classes, len(classes), absent=options.absent)
        return Protocol(self.context.loader(self.val(), options.batch_size), spec, classes=lambda metrics: classes)

    def evaluation(self, network) -> Protocol:
        """For eval.py: at the size of the masks."""
        if network.num_outputs != len(self.classes):
            raise UserError(f"{network.path}: has {network.num_outputs} outputs, not one for each class")
        return replace(self.protocol(), native=True, name="image size", stage="supervised")
