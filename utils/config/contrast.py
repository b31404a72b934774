"""Configuration keys of MaskContrast (pretrain_contrast.py)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from utils.config.common import SHARED, Common, Data, DeepLab, Fraction, Section, Trained, Training


class Encoder(DeepLab):
    dim: PositiveInt = Field(32, description="dimension of the pixel embeddings")


class PretrainData(Data, defaults={"image_size": 224, "missing": "drop"}):
    train_list: str = Field("trainaug", description="training list in the root's sets/")
    saliency_folder: str | None = Field(
        None, description="folder of the object masks; default: saliency_supervised_model, or the layout's"
    )
    mask_rule: Literal["any", "official"] = Field(
        "any",
        description="object pixels of the masks: any: value 1, 255 or grey level >= 128; official: only 255 in "
        "channel 1",
    )


class ContrastTraining(
    Training,
    defaults={
        "epochs": 40,
        "batch_size": 64,
        "lr": 0.004,
        "backbone_lr_factor": 1.0,
        "schedule": "poly_epochs",
        "log_every": 20,
    },
):
    """Training of the encoder."""


class Contrast(Section):
    temperature: PositiveFloat = Field(0.5, description="temperature T of the cosine similarities")
    queue_size: PositiveInt = Field(128, description="queue size K: prototypes of earlier batches used as negatives")
    momentum: Fraction = Field(0.999, description="m, EMA factor of the key encoder")
    freeze_layers: bool = Field(
        False, description="freeze the trunk up to stride 8 (conv1, bn1, layer1, layer2) in both encoders"
    )


class ContrastConfig(Common):
    """Pre-training of MaskContrast."""

    system: Literal["maskcontrast"] = Field("maskcontrast", description="pixel embeddings from object masks")
    init_from: Path | None = Field(None, description="initial checkpoint of the encoder")
    data: Annotated[PretrainData, SHARED] = PretrainData()
    model: Annotated[Encoder, SHARED] = Encoder()
    training: ContrastTraining = ContrastTraining()
    contrast: Contrast = Contrast()

    @property
    def trained(self) -> Trained:
        return Trained(self.own_method or "pretrain", "pretrain_contrast.py", ("last",))
