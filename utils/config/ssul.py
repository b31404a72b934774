"""Configuration keys of class-incremental segmentation (train_incremental.py)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from utils.config.common import Common, Data, DeepLab, Fraction, Section, Training, with_defaults


class Network(with_defaults(DeepLab, backbone="resnet101", output_stride=16, atrous_rates=(6, 12, 18), dropout=0.1)):
    plus: bool = Field(False, description="DeepLabV3+: adds features at stride 4")


SsulTraining = with_defaults(
    Training, epochs=50, batch_size=32, lr=0.01, schedule="poly_steps", nesterov=True, backbone_lr_factor=1.0
)
CroppedData = with_defaults(Data, image_size=513)


class StepTraining(SsulTraining):
    first_lr: PositiveFloat = Field(0.01, description="decoder learning rate of step 0")
    first_backbone_lr_factor: PositiveFloat = Field(0.1, description="backbone rate of step 0 as a multiple of it")


class Ssul(Section):
    unknown: Literal["saliency", "background", "off"] = Field(
        "saliency", description="background pixels that are of the unknown class: salient ones, all (ADE), or none"
    )
    pseudo_threshold: Fraction | None = Field(
        0.7, description="score above which the previous network's old class labels background; null: no pseudo-labels"
    )
    freeze: bool = Field(True, description="from step 1 on train the newest, unknown and background heads only")
    freeze_batchnorm: bool = Field(True, description="from step 1 on keep every BatchNorm as it is")
    transfer: bool = Field(True, description="start new classes as copies of the unknown class")
    background_lr_factor: NonNegativeFloat = Field(1e-4, description="rate of the background head as a multiple of lr")
    loss: Literal["bce", "ce"] = Field("bce", description="binary cross-entropy per class, or softmax cross-entropy")
    memory: PositiveInt = Field(100, description="exemplars of method=ssul_m (VOC 100, ADE 300)")
    memory_labels: Literal["official", "corrected"] = Field(
        "official",
        description="official: labels of exemplars are not moved by the unknown channel, so class k trains as k-1",
    )


class Mib(Section):
    distillation: NonNegativeFloat = Field(10.0, description="weight of the unbiased distillation")
    border: Literal["background", "ignore"] = Field(
        "background",
        description="label of pixels that are marked 255 (official code: background); ignore shares finetune's step 0",
    )


class Plop(Section):
    pod: NonNegativeFloat = Field(0.01, description="weight of local POD on feature maps")
    pod_logits: NonNegativeFloat = Field(0.0005, description="weight of local POD on the logits")
    entropy_floor: NonNegativeFloat = Field(0.001, description="least entropy threshold of a class")
    median: Literal["official", "exact"] = Field(
        "official", description="threshold of a class: the official histogram's median, or the true one"
    )


class StepEvaluation(Section):
    batch_size: PositiveInt = Field(4, description="images per forward pass")
    native: bool = Field(False, description="eval.py: images at their own size, one at a time, instead of the crop")
    later: Literal["ignore", "background"] = Field(
        "ignore",
        description="pixels of classes of later steps: not counted (SSUL, MiB), or background (PLOP)",
    )
    absent: Literal["zero", "skip"] = Field(
        "zero", description="a class without pixels in a mean: counts 0 (SSUL), or not at all (MiB, PLOP)"
    )
    select: Literal["official", "last"] = Field(
        "official",
        description="model that a step hands on: best on the new classes' validation images, or the last one",
    )


class IncrementalConfig(Common):
    """Class-incremental segmentation: one file configures every step of a task."""

    task: str = Field("15-1", description="a name in data/splits/<dataset>/tasks/, or the path of a YAML file")
    setting: Literal["overlap", "disjoint", "discovered"] = Field(
        "overlap",
        description="images of a step may hold future classes, or not; or later steps learn the clusters of pseudo_dir",
    )
    pseudo_dir: Path | None = Field(
        None,
        description="for setting=discovered: folder with base.txt, novel.txt, pseudo_labels/ (cluster_pseudolabel.py)",
    )
    method: Literal["ssul", "ssul_m", "mib", "plop", "finetune", "joint"] = Field("ssul", description="how steps learn")
    data: CroppedData = CroppedData()
    model: Network = Network()
    training: StepTraining = StepTraining()
    ssul: Ssul = Ssul()
    mib: Mib = Mib()
    plop: Plop = Plop()
    evaluation: StepEvaluation = StepEvaluation()

    @property
    def folder(self) -> Path:
        """Where the steps lie, below output_dir."""
        return Path(f"{Path(self.task).stem}-{self.setting}")
