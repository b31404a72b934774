"""Configuration keys of zero-shot segmentation: ZS3Net, its graph context, ZS5Net (train_base.py, train_zeroshot.py).

Step 1 trains a network on the seen classes; step 2 (`method=zs3` or `zs3_gc`) a generator of pixel features from word
vectors, and the classifier of all classes; step 3 (`method=zs5`) learns from step 2's labels.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from utils.config.common import (
    NEUTRAL,
    SHARED,
    Absent,
    Common,
    DeepLab,
    Fraction,
    Only,
    Section,
    Side,
    Trained,
    Training,
    WordedData,
)

TRAINS = "train_zeroshot.py"


class ZeroShotImages(WordedData, defaults={"image_size": 312}):
    train_list: str | None = Field(
        None, description="list of training images; default train with SBD and Pascal-Context, else trainaug"
    )
    images: Annotated[Path | None, NEUTRAL] = Field(
        None, description="folder of the photographs, where it is not below root (Pascal-Context: VOC 2010's or 2012's)"
    )
    use_sbd: bool = Field(False, description="add the SBD images to those of VOC's train list (published)")
    sbd_root: Annotated[Path | None, NEUTRAL] = Field(
        None, description="folder of SBD (img/, cls/), merged with VOC's train list; default: root, or what it holds"
    )
    background: Literal["class", "ignore"] = Field(
        "class", description="background is a seen class (published), or no class: its pixels are not looked at"
    )
    augment: Literal["official", "house"] = Field(
        "official", description="official: flip, scale 0.5-2, crop, blur through Pillow; house: without the blur"
    )
    step1_val: Literal["all", "seen"] = Field(
        "all", description="images that step 1 is validated on: all (VOC), or those without unseen class (Context)"
    )


class DeepLabPlus(
    DeepLab, defaults={"backbone": "resnet101", "output_stride": 16, "atrous_rates": (6, 12, 18), "dropout": 0.5}
):
    low_channels: PositiveInt = Field(48, description="width of the reduced features at stride 4")
    trained: tuple[str, ...] | None = Field(
        None, description="backbone parts that train in steps 1 and 3, e.g. [layer4]; default: all (published)"
    )
    multi_grid: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 2, 4), description="dilation of the three last blocks of a ResNet, times that of the stage"
    )


class SeenTraining(
    Training,
    defaults={
        "epochs": 200,
        "batch_size": 16,
        "lr": 0.07,
        "backbone_lr_factor": 0.1,
        "weight_decay": 5e-4,
        "schedule": "poly_to_zero",
        "eval_every": 10,
    },
):
    """Of the network on the seen classes; also of method=devise and of step 3."""


class GeneratorTraining(
    Training,
    defaults={
        "epochs": 30,
        "batch_size": 8,
        "lr": 0.07,
        "weight_decay": 5e-4,
        "schedule": "poly_to_zero",
    },
):
    generator_lr: PositiveFloat = Field(2e-4, description="Adam rate of the generators, constant")
    hidden: Annotated[int, Field(ge=0)] = Field(256, description="width inside the generator; 0: a linear map")
    noise_dim: PositiveInt = Field(300, description="length of the noise beside the word vector")
    noise: Literal["uniform", "gaussian"] = Field("uniform", description="uniform in [0, 1) (code), gaussian (paper)")
    samples: PositiveInt = Field(128, description="features of a class and image, real and generated, in one MMD")
    bandwidths: tuple[PositiveFloat, ...] = Field(
        (2, 5, 10, 20, 40, 80), min_length=1, description="sigma^2 of the MMD's kernels"
    )
    pace: Literal["sequential", "image", "batch"] = Field(
        "sequential", description="a step of the generator per image and class (published), per image, or per batch"
    )
    unseen_weight: PositiveFloat = Field(100.0, description="weight of unseen pixels in the classifier's loss")
    classifier: Literal["uniform", "keep"] = Field(
        "uniform", description="start of the classifier: uniform in [0, 1) (published), or step 1's"
    )
    bn: Literal["train", "frozen"] = Field(
        "train", description="real features with batch statistics and dropout, running ones moving (published), or not"
    )
    real_seen_features: bool = Field(
        True, description="images without unseen class train the classifier on their real features"
    )


class Graph(Section):
    weight: NonNegativeFloat = Field(0.1, description="of the loss of the nodes")
    features: Literal["first", "mean"] = Field(
        "first", description="real feature of a node: that of its first pixel (published code), or their mean"
    )
    self_loops: bool = Field(False, description="every node is its own neighbour, too")
    normalize: bool = Field(False, description="mean over neighbours instead of their sum")


class SelfTraining(Section):
    labels_by: Literal["zs3", "zs3_gc"] = Field("zs3", description="method whose network labels the images")
    percent: Annotated[float, Field(gt=0, le=100)] = Field(
        25.0, description="most certain part that stays of the unseen labels of an image (VOC 25, Context 75)"
    )
    pooling: Literal["image", "class"] = Field(
        "image", description="rank the unseen pixels of an image together, or by class"
    )
    others: Literal["ignore", "keep"] = Field("ignore", description="pixels that got a seen label: ignored, or kept")


class Strict(Section):
    share: Fraction = Field(
        0.5, description="strict_unseen: part of the images whose features are generated, with unseen classes pasted in"
    )


class ZeroShotEvaluation(Section):
    size: Side = Field(513, description="shorter side of image and label in eval.py, pixels")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(1, description="images per forward pass; more if equal in size")
    native: bool = Field(False, description="count at the size of the label files instead")
    absent: Absent = Field("zero", description="a class without any pixel counts as 0, or not at all")


class ZeroShotConfig(Common):
    """Zero-shot segmentation: one file configures all three steps."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "classes", "generator_checkpoint")
    network_by: ClassVar[tuple[str, ...]] = ("model", "data", "zs3", "method", "split", "evaluation")

    system: Literal["zs3"] = Field("zs3", description="zero-shot segmentation")
    split: Annotated[str, SHARED] = Field(
        "unseen2", description="unseen classes: a name in data/splits/<dataset>/ or the path of a YAML file"
    )
    method: Literal["step1", "devise", "zs3", "zs3_gc", "zs5"] = Field(
        "zs3", description="what train_zeroshot.py trains; for eval.py the stage to evaluate"
    )
    strict_unseen: bool = Field(
        False, description="no use of unseen pixels or labels in step 2: seen-only images, layouts pasted at random"
    )
    step1_checkpoint: Annotated[Path | None, Only(("train_zeroshot.py",))] = Field(
        None, description="step-1 network to use instead of the stage's"
    )
    labels_checkpoint: Annotated[Path | None, Only(("train_zeroshot.py",), TRAINS, "method", ("zs5",))] = Field(
        None, description="network that labels the images of step 3 instead of the stage's"
    )
    generator_checkpoint: Annotated[Path | None, Only(("eval.py",))] = Field(
        None, description="generator for `classes`, when the network's file holds none"
    )
    classes: Annotated[Path | None, Only(("eval.py",))] = Field(
        None, description="YAML list of class names of your own; the generator makes their classifier"
    )
    init_from: Annotated[Path | None, Only(("train_base.py",))] = Field(
        None, description="start the network of step 1 from this checkpoint (classifier anew if its classes differ)"
    )
    data: Annotated[ZeroShotImages, SHARED] = ZeroShotImages()
    model: Annotated[DeepLabPlus, SHARED] = DeepLabPlus()
    step1: SeenTraining = SeenTraining()
    zs3: GeneratorTraining = GeneratorTraining()
    graph: Annotated[Graph, Only(where=TRAINS, key="method", values=("zs3_gc",))] = Graph()
    strict: Annotated[Strict, Only(where=TRAINS, key="method", values=("zs3", "zs3_gc"))] = Strict()
    self_training: Annotated[SelfTraining, Only(where=TRAINS, key="method", values=("zs5",))] = SelfTraining()
    step3: SeenTraining = SeenTraining()
    evaluation: ZeroShotEvaluation = ZeroShotEvaluation()

    @property
    def stage(self) -> str:
        """Folder of the method's stage."""
        if self.own_method:
            return self.own_method
        strict = self.strict_unseen and self.method not in ("step1", "devise")
        return f"{self.method}_strict" if strict else self.method

    @property
    def trained(self) -> Trained:
        script = "train_base.py CONFIG" if self.method == "step1" else f"{TRAINS} CONFIG method={self.method}"
        return Trained(self.stage, script, ("last",))

    @property
    def folder(self) -> Path:
        """Where the stages lie, below output_dir; a split given as a file counts by its name."""
        return Path(Path(self.split).stem)
