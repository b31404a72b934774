"""Configuration keys of class-incremental segmentation: SSUL, SSUL-M, MiB, PLOP (train_incremental.py)."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from utils.config.common import (
    LATER,
    NEUTRAL,
    SHARED,
    Absent,
    Common,
    Data,
    DeepLab,
    Fraction,
    Only,
    Section,
    Trained,
    Training,
)

TRAINS = "train_incremental.py"


class Network(
    DeepLab, defaults={"backbone": "resnet101", "output_stride": 16, "atrous_rates": (6, 12, 18), "dropout": 0.1}
):
    plus: bool = Field(False, description="DeepLabV3+: adds features at stride 4")


class CroppedData(Data, defaults={"image_size": 513}):
    """Crops of the published size."""


class StepTraining(Training, defaults={"batch_size": 32, "schedule": "poly_steps", "nesterov": True}):
    epochs: Annotated[PositiveInt, LATER] = Field(50, description="passes over the images of a step, from step 1 on")
    first_epochs: PositiveInt | None = Field(None, description="passes of step 0; default: training.epochs")
    lr: Annotated[PositiveFloat, LATER] = Field(0.01, description="decoder learning rate from step 1 on")
    backbone_lr_factor: Annotated[PositiveFloat, LATER] = Field(
        1.0, description="backbone learning rate from step 1 on, as a multiple of lr"
    )
    first_lr: PositiveFloat = Field(0.01, description="decoder learning rate of step 0")
    first_backbone_lr_factor: PositiveFloat = Field(0.1, description="backbone rate of step 0 as a multiple of it")

    @model_validator(mode="before")
    @classmethod
    def _fill_first_epochs(cls, values: Any) -> Any:
        """Step 0 as long as the others unless said; a value of its own, as `epochs` alone then decides later steps."""
        if isinstance(values, dict) and values.get("first_epochs") is None:
            return {**values, "first_epochs": values.get("epochs", cls.model_fields["epochs"].default)}
        return values

    def of_step(self, step: int, images: int, last_only: bool) -> "StepTraining":
        """For a step with so many images: full passes over them, validated every hundredth of the iterations, or every
        100, whichever is rarer; at the end only where the last network is taken anyway.
        """
        epochs = self.epochs if step else self.first_epochs or self.epochs
        length = self.iters_per_epoch or max(1, images // self.batch_size)
        total = epochs * length
        every = total if last_only else self.eval_steps or max(100, total // 100)
        return self.model_copy(update={"epochs": epochs, "iters_per_epoch": length, "eval_steps": every})


WITH_MEMORY = Only(where=TRAINS, key="method", values=("ssul_m",))


class Ssul(Section):
    unknown: Literal["saliency", "background", "off"] = Field(
        "saliency", description="background pixels that are of the unknown class: salient ones, all (ADE), or none"
    )
    pseudo_threshold: Annotated[Fraction | None, LATER] = Field(
        0.7, description="score above which the previous network's old class labels background; null: no pseudo-labels"
    )
    freeze: Annotated[bool, LATER] = Field(
        True, description="from step 1 on train the newest, unknown and background heads only"
    )
    freeze_batchnorm: Annotated[bool, LATER] = Field(True, description="from step 1 on keep every BatchNorm as it is")
    transfer: Annotated[bool, LATER] = Field(True, description="start new classes as copies of the unknown class")
    background_lr_factor: Annotated[NonNegativeFloat, LATER] = Field(
        1e-4, description="rate of the background head as a multiple of lr"
    )
    loss: Literal["bce", "ce", "focal"] = Field(
        "bce",
        description="binary cross-entropy per class, softmax cross-entropy, or focal loss over all pixels, ignored too",
    )
    focal_gamma: NonNegativeFloat = Field(
        0.0, description="exponent of the focal loss (official code: 0, the cross-entropy of all pixels)"
    )
    memory: Annotated[PositiveInt, LATER, WITH_MEMORY] = Field(100, description="exemplars (VOC 100, ADE 300)")
    memory_labels: Annotated[Literal["official", "corrected"], LATER, WITH_MEMORY] = Field(
        "official",
        description="official: labels of exemplars are not moved by the unknown channel, so class k trains as k-1",
    )


class Mib(Section):
    distillation: Annotated[NonNegativeFloat, LATER] = Field(10.0, description="weight of the unbiased distillation")
    border: Annotated[Literal["background", "ignore"], LATER] = Field(  # step 0 has a folder for each
        "background",
        description="label of pixels that are marked 255 (official code: background); ignore shares finetune's step 0",
    )


class Plop(Section):
    pod: Annotated[NonNegativeFloat, LATER] = Field(0.01, description="weight of local POD on feature maps")
    pod_logits: Annotated[NonNegativeFloat, LATER] = Field(0.0005, description="weight of local POD on the logits")
    entropy_floor: Annotated[NonNegativeFloat, LATER] = Field(0.001, description="least entropy threshold of a class")
    median: Annotated[Literal["official", "exact"], LATER] = Field(
        "official", description="threshold of a class: the official histogram's median, or the true one"
    )


class StepEvaluation(Section):
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(4, description="images per forward pass")
    native: Annotated[bool, Only(("eval.py",))] = Field(
        False, description="images at their own size, one at a time, instead of the crop"
    )
    later: Literal["ignore", "background"] = Field(
        "ignore",
        description="pixels of classes of later steps: not counted (SSUL, MiB), or background (PLOP)",
    )
    absent: Absent = Field(
        "zero", description="a class without pixels in a mean: counts 0 (SSUL), or not at all (MiB, PLOP)"
    )
    select: Literal["official", "last"] = Field(
        "official",
        description="model that a step hands on: best on the new classes' validation images, or the last one",
    )


class IncrementalConfig(Common):
    """Class-incremental segmentation: one file configures every step of a task."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "ssul")
    network_by: ClassVar[tuple[str, ...]] = ("model", "data", "ssul")

    system: Literal["ssul"] = Field("ssul", description="class-incremental segmentation")
    task: Annotated[str, SHARED] = Field(
        "15-1", description="a name in data/splits/<dataset>/tasks/, or the path of a YAML file"
    )
    setting: Annotated[Literal["overlap", "disjoint", "discovered"], SHARED] = Field(
        "overlap",
        description="images of a step may hold future classes, or not; or later steps learn the clusters of pseudo_dir",
    )
    pseudo_dir: Annotated[Path | None, Only(key="setting", values=("discovered",))] = Field(
        None,
        description="for setting=discovered: folder with base.txt, novel.txt, pseudo_labels/ (cluster_pseudolabel.py)",
    )
    method: Literal["ssul", "ssul_m", "mib", "plop", "finetune", "joint"] = Field("ssul", description="how steps learn")
    data: Annotated[CroppedData, SHARED] = CroppedData()
    model: Annotated[Network, SHARED] = Network()
    training: StepTraining = StepTraining()
    ssul: Annotated[Ssul, Only(where=TRAINS, key="method", values=("ssul", "ssul_m"))] = Ssul()
    mib: Annotated[Mib, Only(where=TRAINS, key="method", values=("mib",))] = Mib()
    plop: Annotated[Plop, Only(where=TRAINS, key="method", values=("plop",))] = Plop()
    evaluation: StepEvaluation = StepEvaluation()

    @property
    def trained(self) -> Trained:
        selected = "best" if self.evaluation.select == "official" else "last"
        return Trained(
            f"{self.own_method or self.method}/step*", f"train_incremental.py CONFIG method={self.method}", (selected,)
        )

    @property
    def folder(self) -> Path:
        """Where the steps lie, below output_dir."""
        return Path(f"{Path(self.task).stem}-{self.setting}")
