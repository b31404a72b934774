"""Configuration keys of MaskContrast (pretrain_contrast.py)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from utils.config.common import SHARED, Common, Data, DeepLab, Fraction, Section, Trained, Training


class Encoder(DeepLab):
    dim: PositiveInt = Field(32, description="length of a pixel embedding")


class PretrainData(Data, defaults={"image_size": 224, "missing": "drop"}):
    train_list: str = Field("trainaug", description="list under the root's sets/ of the images to train on")
    saliency_folder: str | None = Field(
        None, description="folder of the masks; default saliency_supervised_model, or the layout's"
    )
    mask_rule: Literal["any", "official"] = Field(
        "any",
        description="what is object in them: 1, 255 or grey from 128 on; or, as officially, 255 of channel 1 alone",
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
    """Of the encoder."""


class Contrast(Section):
    temperature: PositiveFloat = Field(0.5, description="T, divides the cosines")
    queue_size: PositiveInt = Field(128, description="K, prototypes of earlier batches that serve as negatives")
    momentum: Fraction = Field(0.999, description="m, EMA factor of the key encoder")
    freeze_layers: bool = Field(
        False, description="keep the backbone up to stride 8 (conv1, bn1, layer1, layer2) as it is in both encoders"
    )


class ContrastConfig(Common):
    """MaskContrast: one file configures pre-training and everything that reads its encoder."""

    system: Literal["maskcontrast"] = Field("maskcontrast", description="pixel embeddings from object masks")
    init_from: Path | None = Field(None, description="start the encoder from this pre-training checkpoint")
    data: Annotated[PretrainData, SHARED] = PretrainData()
    model: Annotated[Encoder, SHARED] = Encoder()
    training: ContrastTraining = ContrastTraining()
    contrast: Contrast = Contrast()

    @property
    def trained(self) -> Trained:
        return Trained(self.own_method or "pretrain", "pretrain_contrast.py", ("last",))
