"""Configuration keys of plain supervised segmentation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from utils.config.common import NEUTRAL, SHARED, Absent, Common, Section, Trained, Training
from utils.config.ncdss import Model


class Evaluation(Section):
    absent: Absent = Field("zero", description="a class without any pixel counts as 0, or not at all")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")


class SupervisedConfig(Common):
    """All classes of a data set, learned at once."""

    serves: ClassVar[str] = "plain supervised segmentation"

    system: Literal["supervised"] = Field("supervised", description="plain supervised segmentation")
    model: Annotated[Model, SHARED] = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @property
    def trained(self) -> Trained:
        return Trained("supervised", "-m tests.examples.own_system.train_supervised CONFIG")
