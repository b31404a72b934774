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
    Fraction,
    Only,
    Section,
    Segmentation,
    Trained,
    Training,
)

TRAINS = "train_incremental.py"


class Model(
    Segmentation, defaults={"backbone": "resnet101", "output_stride": 16, "atrous_rates": (6, 12, 18), "dropout": 0.1}
):
    """Keys of the network of every step."""


class CroppedData(Data, defaults={"image_size": 513}):
    """Images in crops of the published size."""


class StepTraining(Training, defaults={"batch_size": 32, "schedule": "poly_steps", "nesterov": True}):
    epochs: Annotated[PositiveInt, LATER] = Field(50, description="epochs of each step from step 1 on")
    first_epochs: PositiveInt | None = Field(None, description="epochs of step 0; default: training.epochs")
    lr: Annotated[PositiveFloat, LATER] = Field(0.01, description="decoder learning rate from step 1 on")
    backbone_lr_factor: Annotated[PositiveFloat, LATER] = Field(
        1.0, description="learning rate of the trunk from step 1 on as a multiple of lr"
    )
    first_lr: PositiveFloat = Field(0.01, description="decoder learning rate of step 0")
    first_backbone_lr_factor: PositiveFloat = Field(
        0.1, description="learning rate of the trunk in step 0 as a multiple of first_lr"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_first_epochs(cls, values: Any) -> Any:
        """Sets first_epochs to epochs if it is missing, so that `epochs` affects only later steps."""
        if isinstance(values, dict) and values.get("first_epochs") is None:
            return {**values, "first_epochs": values.get("epochs", cls.model_fields["epochs"].default)}
        return values

    def of_step(self, step: int, images: int, last_only: bool) -> "StepTraining":
        """Settings of one step: whole passes over its `images`, validated every max(100, total / 100) iterations.

        With `last_only`, only the end is validated.
        """
        epochs = self.epochs if step else self.first_epochs or self.epochs
        length = self.iters_per_epoch or max(1, images // self.batch_size)
        total = epochs * length
        every = total if last_only else self.eval_steps or max(100, total // 100)
        return self.model_copy(update={"epochs": epochs, "iters_per_epoch": length, "eval_steps": every})


WITH_MEMORY = Only(where=TRAINS, key="method", values=("ssul_m",))


class Ssul(Section):
    unknown: Literal["saliency", "background", "off"] = Field(
        "saliency", description="background pixels labelled as the unknown class: salient ones, all (ADE), or none"
    )
    pseudo_threshold: Annotated[Fraction | None, LATER] = Field(
        0.7, description="score above which background pixels get the previous network's class; null: no pseudo-labels"
    )
    freeze: Annotated[bool, LATER] = Field(
        True, description="from step 1 on, train only the newest, unknown and background heads"
    )
    freeze_batchnorm: Annotated[bool, LATER] = Field(True, description="from step 1 on, fix every BatchNorm layer")
    transfer: Annotated[bool, LATER] = Field(True, description="initialise new classes from the unknown class")
    background_lr_factor: Annotated[NonNegativeFloat, LATER] = Field(
        1e-4, description="learning rate of the background head as a multiple of lr"
    )
    loss: Literal["bce", "ce", "focal"] = Field(
        "bce",
        description="binary cross-entropy per class, softmax cross-entropy, or focal loss; the focal loss includes "
        "ignored pixels",
    )
    focal_gamma: NonNegativeFloat = Field(
        0.0, description="exponent of the focal loss (official code: 0, the cross-entropy of all pixels)"
    )
    memory: Annotated[PositiveInt, LATER, WITH_MEMORY] = Field(100, description="exemplars (VOC 100, ADE 300)")
    memory_labels: Annotated[Literal["official", "corrected"], LATER, WITH_MEMORY] = Field(
        "official",
        description="official: exemplar labels are not shifted by the unknown channel, so that class k trains as "
        "k-1; corrected: shifted",
    )


class Mib(Section):
    distillation: Annotated[NonNegativeFloat, LATER] = Field(10.0, description="weight of the unbiased distillation")
    border: Annotated[Literal["background", "ignore"], LATER] = Field(  # step 0 has a folder for each
        "background",
        description="label of 255 pixels (official code: background); ignore: step 0 is shared with method=finetune",
    )


class Plop(Section):
    pod: Annotated[NonNegativeFloat, LATER] = Field(0.01, description="weight of local POD on feature maps")
    pod_logits: Annotated[NonNegativeFloat, LATER] = Field(0.0005, description="weight of local POD on the logits")
    entropy_floor: Annotated[NonNegativeFloat, LATER] = Field(0.001, description="minimum entropy threshold per class")
    median: Annotated[Literal["official", "exact"], LATER] = Field(
        "official", description="median entropy per class: from the official histogram, or exact"
    )


class StepEvaluation(Section):
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(4, description="images per forward pass")
    native: Annotated[bool, Only(("eval.py",))] = Field(
        False, description="score images at their original size, one at a time; default: the crop"
    )
    later: Literal["ignore", "background"] = Field(
        "ignore",
        description="pixels of future classes: ignored (SSUL, MiB) or background (PLOP)",
    )
    absent: Absent = Field(
        "zero", description="IoU of a class without any pixel: 0 (SSUL), or left out of the mean (MiB, PLOP)"
    )
    select: Literal["official", "last"] = Field(
        "official",
        description="checkpoint that the next step starts from: best on the validation images of the new classes, or"
        " last",
    )


class IncrementalConfig(Common):
    """Class-incremental segmentation. One file configures every step of a task."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "ssul")
    network_by: ClassVar[tuple[str, ...]] = ("model", "data", "ssul")

    system: Literal["ssul"] = Field("ssul", description="class-incremental segmentation")
    task: Annotated[str, SHARED] = Field(
        "15-1", description="task: a name in data/splits/<dataset>/tasks/ or a YAML file"
    )
    setting: Annotated[Literal["overlap", "disjoint", "discovered"], SHARED] = Field(
        "overlap",
        description="overlap: images may contain future classes; disjoint: they do not; discovered: later steps "
        "learn the clusters of pseudo_dir",
    )
    pseudo_dir: Annotated[Path | None, Only(key="setting", values=("discovered",))] = Field(
        None,
        description="pseudo-label folder of cluster_pseudolabel.py with base.txt, novel.txt, pseudo_labels/",
    )
    method: Literal["ssul", "ssul_m", "mib", "plop", "finetune", "joint"] = Field(
        "ssul", description="method of the incremental steps"
    )
    data: Annotated[CroppedData, SHARED] = CroppedData()
    model: Annotated[Model, SHARED] = Model()
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
        """Folder of the steps, relative to output_dir."""
        return Path(f"{Path(self.task).stem}-{self.setting}")
