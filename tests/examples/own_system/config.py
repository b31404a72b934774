"""Configuration keys of supervised segmentation (train_supervised.py)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from utils.config.common import NEUTRAL, SHARED, Absent, Common, Section, Segmentation, Trained, Training


class Evaluation(Section):
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")
    absent: Absent = Field("zero", description="a class without any pixel counts as 0, or not at all")


class SupervisedConfig(Common):
    """Supervised segmentation: one network learns every class."""

    system: Literal["supervised"] = Field("supervised", description="supervised segmentation")
    model: Annotated[Segmentation, SHARED] = Segmentation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @property
    def folder(self) -> Path:
        """Folder of the stages below output_dir."""
        return Path(Path(self.data.dataset).name)

    @property
    def trained(self) -> Trained:
        return Trained("train", "train_supervised.py CONFIG")
