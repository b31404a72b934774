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
    Fraction,
    Only,
    Section,
    Segmentation,
    Side,
    Trained,
    Training,
    WordedData,
)

TRAINS = "train_zeroshot.py"


class ZeroShotImages(WordedData, defaults={"image_size": 312}):
    train_list: str | None = Field(
        None, description="training list; default: train with SBD and Pascal-Context, else trainaug"
    )
    images: Annotated[Path | None, NEUTRAL] = Field(
        None, description="image folder outside the data root (Pascal-Context: that of VOC 2010 or 2012)"
    )
    use_sbd: bool = Field(False, description="add the SBD images to VOC's train list (published)")
    sbd_root: Annotated[Path | None, NEUTRAL] = Field(
        None, description="SBD folder (img/, cls/); default: found in the data root"
    )
    background: Literal["class", "ignore"] = Field(
        "class", description="background as a seen class (published), or ignored"
    )
    augment: Literal["official", "house"] = Field(
        "official", description="official: flip, scale 0.5-2, crop, blur with Pillow; house: without blur"
    )
    step1_val: Literal["all", "seen"] = Field(
        "all", description="validation images of step 1: all (VOC), or those without unseen classes (Context)"
    )


class Model(
    Segmentation,
    defaults={
        "backbone": "resnet101",
        "decoder": "deeplabv3plus",
        "output_stride": 16,
        "atrous_rates": (6, 12, 18),
        "multi_grid": (1, 2, 4),
    },
):
    """Keys of the network of every step."""


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
    """Training of step 1, of step 3 and of method=devise."""


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
    generator_lr: PositiveFloat = Field(2e-4, description="Adam learning rate of the generators, constant")
    hidden: Annotated[int, Field(ge=0)] = Field(256, description="hidden width of the generator; 0: a linear map")
    noise_dim: PositiveInt = Field(300, description="dimension of the noise vector")
    noise: Literal["uniform", "gaussian"] = Field(
        "uniform", description="noise distribution: uniform in [0, 1) (code) or gaussian (paper)"
    )
    samples: PositiveInt = Field(128, description="features per class and image in one MMD, real and generated")
    bandwidths: tuple[PositiveFloat, ...] = Field(
        (2, 5, 10, 20, 40, 80), min_length=1, description="sigma^2 of the MMD kernels"
    )
    pace: Literal["sequential", "image", "batch"] = Field(
        "sequential", description="generator steps: per image and class (published), per image, or per batch"
    )
    unseen_weight: PositiveFloat = Field(100.0, description="weight of unseen pixels in the classifier's loss")
    classifier: Literal["uniform", "keep"] = Field(
        "uniform", description="initial classifier: uniform in [0, 1) (published), or that of step 1"
    )
    bn: Literal["train", "frozen"] = Field(
        "train",
        description="train (published): real features use batch statistics and dropout, and update the running "
        "statistics; frozen: neither",
    )
    real_seen_features: bool = Field(
        True, description="images without unseen classes train the classifier on real features"
    )


class Graph(Section):
    weight: NonNegativeFloat = Field(0.1, description="weight of the node loss")
    features: Literal["first", "mean"] = Field(
        "first", description="real feature of a node: its first pixel (published code), or the mean over its pixels"
    )
    self_loops: bool = Field(False, description="add self-loops to the graph")
    normalize: bool = Field(False, description="average over neighbours; default: sum")


class SelfTraining(Section):
    labels_by: Literal["zs3", "zs3_gc"] = Field("zs3", description="method whose network pseudo-labels the images")
    percent: Annotated[float, Field(gt=0, le=100)] = Field(
        25.0, description="percentage of most confident unseen pixels kept per image (VOC 25, Context 75)"
    )
    pooling: Literal["image", "class"] = Field(
        "image", description="rank unseen pixels over the whole image, or per class"
    )
    others: Literal["ignore", "keep"] = Field("ignore", description="pixels predicted as a seen class: ignored or kept")


class Strict(Section):
    share: Fraction = Field(
        0.5, description="strict_unseen: fraction of images with generated features and pasted unseen classes"
    )


class ZeroShotEvaluation(Section):
    size: Side = Field(513, description="shorter side of image and label in eval.py in pixels")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(
        1, description="images per forward pass; more than 1 only for images of equal size"
    )
    native: bool = Field(False, description="score at the size of the label files")
    absent: Absent = Field("zero", description="IoU of a class without any pixel: 0, or left out of the mean")


class ZeroShotConfig(Common):
    """Zero-shot segmentation. One file configures all three steps."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "classes", "generator_checkpoint")
    network_by: ClassVar[tuple[str, ...]] = ("model", "data", "zs3", "method", "split", "evaluation")

    system: Literal["zs3"] = Field("zs3", description="zero-shot segmentation")
    split: Annotated[str, SHARED] = Field(
        "unseen2", description="unseen classes: a name in data/splits/<dataset>/ or a YAML file"
    )
    method: Literal["step1", "devise", "zs3", "zs3_gc", "zs5"] = Field(
        "zs3", description="method that train_zeroshot.py trains; in eval.py, the stage to evaluate"
    )
    strict_unseen: bool = Field(
        False,
        description="strict protocol: step 2 uses no pixels or labels of unseen classes, only seen images with "
        "randomly pasted layouts",
    )
    step1_checkpoint: Annotated[Path | None, Only(("train_zeroshot.py",))] = Field(
        None, description="step-1 network; default: that of the step-1 stage"
    )
    labels_checkpoint: Annotated[Path | None, Only(("train_zeroshot.py",), TRAINS, "method", ("zs5",))] = Field(
        None, description="network that pseudo-labels the images of step 3; default: that of self_training.labels_by"
    )
    generator_checkpoint: Annotated[Path | None, Only(("eval.py",))] = Field(
        None, description="generator for `classes` if the network's file has none"
    )
    classes: Annotated[Path | None, Only(("eval.py",))] = Field(
        None, description="YAML list of additional class names; the generator creates their classifier"
    )
    init_from: Annotated[Path | None, Only(("train_base.py",))] = Field(
        None, description="initial checkpoint of step 1; the classifier is reinitialised if the classes differ"
    )
    data: Annotated[ZeroShotImages, SHARED] = ZeroShotImages()
    model: Annotated[Model, SHARED] = Model()
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
        """Folder of the stages, relative to output_dir: the name of the split or of its file."""
        return Path(Path(self.split).stem)
