"""Configuration keys of weak-shot segmentation: SimFormer on a MaskFormer, and its upper bound (train_weakshot.py).

`stage=train` trains a network by `method`; `stage=pseudo` has it label training images, which `method=retrain` learns.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from utils.config.common import (
    NEUTRAL,
    SHARED,
    Absent,
    BackboneName,
    Common,
    Fraction,
    Only,
    Section,
    Trained,
    Training,
    WordedData,
)
from utils.errors import UserError

TRAINS = "train_weakshot.py"
STRIDE = 4  # stride of the pixel embeddings
WEAK = ("simformer", "single")  # methods that learn novel classes from tags only
LABELLERS = (*WEAK, "clusters")


class WeakImages(WordedData, defaults={"dataset": "cocostuff10k", "image_size": 640}):
    sizes: tuple[PositiveInt, ...] = Field(
        tuple(range(320, 961, 64)),
        min_length=1,
        description="shorter sides of training images; one is drawn per image",
    )
    longest: PositiveInt = Field(2560, description="maximum longer side after scaling, in training and evaluation")
    tags: str = Field(
        "crop",
        description="source of image tags for novel classes: crop: the mask of the crop (published); image: the mask"
        " of the image; or a CSV or YAML file with the tags of each image",
    )
    masks: str = Field(
        "all",
        description="training images with masks: all; base: those without a novel class; or the name of an image "
        "list. Other images have tags only, for base classes too",
    )
    background: Literal["class", "ignore"] = Field(
        "class", description="background of a data set that has one: a base class with masks, or unlabelled"
    )


class MaskTransformer(Section):
    backbone: BackboneName | Literal["vit"] = Field("resnet50", description="trunk; vit: a vision transformer of timm")
    vit: str = Field("vit_small_patch14_dinov2", description="timm name for backbone=vit; weights from init")
    output_stride: Literal[8, 16, 32] = Field(32, description="output stride of the coarsest features")
    init: str = Field("imagenet", description="backbone start: imagenet, random, or the path of a weights file")
    freeze: bool = Field(False, description="freeze the trunk")
    classes: Literal["learned", "words"] = Field(
        "learned",
        description="classifier of proposals: learned: linear layer (published); words: similarity to the word "
        "vectors of the classes (data.embeddings)",
    )
    queries: PositiveInt = Field(100, description="mask proposals per image")
    layers: PositiveInt = Field(6, description="decoder layers; every layer is supervised")
    width: PositiveInt = Field(256, description="width of queries and pixel embeddings; a multiple of 32 and of heads")
    heads: PositiveInt = Field(8, description="attention heads")
    feedforward: PositiveInt = Field(2048, description="hidden width of a decoder layer")
    dropout: Fraction = Field(0.1, description="dropout in the decoder")
    simnet_width: PositiveInt = Field(256, description="width inside SimNet")
    simnet_blocks: PositiveInt = Field(3, description="residual blocks of SimNet")
    simnet_norm: bool = Field(True, description="BatchNorm inside SimNet (published)")

    @model_validator(mode="after")
    def _width_divides(self) -> "MaskTransformer":
        wrong = next((name for name, part in (("32", 32), ("heads", self.heads)) if self.width % part), None)
        if wrong:
            raise PydanticCustomError(
                "keys", f"width={self.width}, heads={self.heads}: width is no multiple of {wrong}"
            )
        return self


class WeakTraining(
    Training,
    defaults={
        "epochs": 6,
        "iters_per_epoch": 10_000,
        "batch_size": 8,
        "optimizer": "adamw",
        "lr": 1e-4,
        "backbone_lr_factor": 0.1,
        "weight_decay": 1e-4,
        "schedule": "poly_to_zero",
        "clip_norm": 0.01,
    },
):
    """Training of every method. An image and its partner count as two images of `batch_size`."""


class Losses(Section):
    """Loss weights shared by all methods."""

    cls: NonNegativeFloat = Field(1.0, description="weight of the classification loss")
    focal: NonNegativeFloat = Field(20.0, description="weight of the focal mask loss")
    dice: NonNegativeFloat = Field(1.0, description="weight of the dice mask loss")
    no_object: PositiveFloat = Field(0.1, description="class weight of 'no object'")
    matcher: Literal["fixed", "official"] = Field(
        "fixed",
        description="matching of proposals to masks: fixed, or official with the published code's swap of vanished "
        "masks",
    )


class Complement(Section):
    weight: NonNegativeFloat = Field(0.15, description="weight of the complementary loss (COCO 0.15, ADE 0.2)")
    floor: float | None = Field(-2.9444, description="minimum logit of the novel score of a pixel; null: no minimum")
    unlabelled: bool = Field(True, description="unlabelled pixels belong to the complement (published)")


class Similarity(Section):
    weight: NonNegativeFloat = Field(1.0, description="weight of SimNet's loss")
    points: PositiveInt = Field(100, description="sampled pixels per image; all cross-image pairs are compared")
    detach: bool = Field(True, description="SimNet's loss trains only SimNet")
    partner: Literal["official", "fixed", "binter", "ninter", "rand"] = Field(
        "official", description="pairing of images (data/weakshot/pairs.py)"
    )


class Distillation(Section):
    weight: NonNegativeFloat = Field(0.1, description="weight of the similarity distillation loss")
    points: PositiveInt = Field(100, description="sampled non-base pixels per image")
    function: str = Field("cce", pattern=r"^(ce|cce|b-?\d+(\.\d+)?)$", description="ce, cce, or bX with a number X")
    pairing: Literal["released", "paper"] = Field(
        "released",
        description="second pixel of the student's pair: from the same image (published code), or from the partner "
        "image (paper)",
    )
    student: Literal["score", "logit", "positive_logit"] = Field(
        "score", description="class score of a proposal in the student's score maps"
    )
    classes: Literal["novel", "all"] = Field("novel", description="classes of the student's score maps")
    detach: bool = Field(True, description="the distillation loss does not train SimNet")
    valid: bool = Field(
        False,
        description="count only pairs with at least one non-base pixel",
    )
    padding: bool = Field(True, description="sample pixels from padding too (published)")
    unlabelled: bool = Field(True, description="sample unlabelled pixels too (published)")


class Views(Section):
    tta: bool = Field(False, description="test-time augmentation: average over all tta_sizes and horizontal flips")
    tta_sizes: tuple[PositiveInt, ...] = Field(
        (320, 480, 640, 800, 960), min_length=1, description="shorter sides of test-time augmentation in pixels"
    )
    tta_longest: PositiveInt = Field(4480, description="maximum longer side of test-time augmentation")


class PseudoLabels(Views):
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(
        1, description="images per forward pass; more than 1 only for images of equal size"
    )


class Retraining(Section):
    labels_by: Literal["simformer", "single", "clusters"] = Field(
        "simformer", description="method whose network made the pseudo-labels, or clusters"
    )


class WeakEvaluation(Views):
    size: PositiveInt = Field(640, description="shorter side of the image (COCO 640, ADE 512)")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(
        1, description="images per forward pass; more than 1 only for images of equal size"
    )
    absent: Absent = Field("labelled", description="classes in the mean: see utils/measure/metrics.py")


class WeakShotConfig(Common):
    """Weak-shot segmentation: base classes have masks, novel classes only image tags."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation",)
    network_by: ClassVar[tuple[str, ...]] = ("model", "data", "method", "split", "evaluation")

    system: Literal["simformer"] = Field("simformer", description="weak-shot segmentation")
    split: Annotated[str, SHARED] = Field(
        "split1", description="novel classes: a name in data/splits/<dataset>/ or a YAML file"
    )
    method: Literal["simformer", "single", "retrain", "supervised", "clusters"] = Field(
        "simformer",
        description="single: classification, mask and complementary losses; simformer: plus the losses on image "
        "pairs; retrain: all classes on pseudo-labels; supervised: all classes on their masks (upper "
        "bound); clusters: with stage=pseudo, the clusters of class discovery serve as masks",
    )
    stage: Annotated[Literal["train", "pseudo"], Only((TRAINS,))] = Field(
        "train", description="train: train the network; pseudo: let it pseudo-label the training images"
    )
    labels_checkpoint: Annotated[Path | None, Only((TRAINS,), TRAINS, "stage", ("pseudo",))] = Field(
        None, description="network that pseudo-labels the training images; default: that of the method"
    )
    pseudo_dir: Annotated[Path | None, Only((TRAINS,), TRAINS, "method", ("retrain",))] = Field(
        None, description="pseudo-label folder; default: that of the pseudo stage"
    )
    clusters_dir: Annotated[Path | None, Only((TRAINS,), TRAINS, "method", ("clusters",))] = Field(
        None, description="folder of cluster_pseudolabel.py; default: <output_dir>/<split>/pseudo"
    )
    init_from: Annotated[Path | None, Only((TRAINS,))] = Field(
        None, description="initial checkpoint, ours or official; the class layer is reinitialised if the classes differ"
    )
    data: Annotated[WeakImages, SHARED] = WeakImages()
    model: Annotated[MaskTransformer, SHARED] = MaskTransformer()
    training: WeakTraining = WeakTraining()
    losses: Losses = Losses()
    complement: Annotated[Complement, Only(where=TRAINS, key="method", values=WEAK)] = Complement()
    similarity: Annotated[Similarity, Only(where=TRAINS, key="method", values=("simformer",))] = Similarity()
    distillation: Annotated[Distillation, Only(where=TRAINS, key="method", values=("simformer",))] = Distillation()
    pseudo: Annotated[PseudoLabels, Only(where=TRAINS, key="stage", values=("pseudo",))] = PseudoLabels()
    retraining: Annotated[Retraining, Only(where=TRAINS, key="method", values=("retrain",))] = Retraining()
    evaluation: WeakEvaluation = WeakEvaluation()

    @property
    def stage_folder(self) -> str:
        """Folder of the stage: of the method or of its pseudo-labels."""
        method = self.own_method or self.method
        return f"{method}_pseudo" if self.stage == "pseudo" else method

    @property
    def trained(self) -> Trained:
        return Trained(self.own_method or self.method, f"{TRAINS} CONFIG method={self.method}", ("last",))

    @property
    def folder(self) -> Path:
        """Folder of the stages, relative to output_dir: the name of the split or of its file."""
        return Path(Path(self.split).stem)


def require_sense(cfg: WeakShotConfig) -> None:
    """Raises UserError for contradictory settings."""
    if cfg.stage == "pseudo" and cfg.method not in LABELLERS:
        raise UserError(f"stage=pseudo: labels are made by method={' or '.join(LABELLERS)}, not by method={cfg.method}")
    if cfg.stage == "train" and cfg.method == "clusters":
        raise UserError("method=clusters: trains no network; give stage=pseudo, then method=retrain")
    if cfg.method == "supervised" and cfg.data.masks != "all":
        raise UserError(f"data.masks={cfg.data.masks}: method=supervised learns from all masks; leave it out")
    if cfg.data.tags == "crop" and cfg.data.masks != "all":
        raise UserError(
            f"data.masks={cfg.data.masks}: data.tags=crop reads the mask of every crop; give data.tags=image, or a file"
        )
    if cfg.method not in WEAK:
        return
    cells = (cfg.data.image_size // STRIDE) ** 2
    for section in ("similarity", "distillation") if cfg.stage_folder == "simformer" else ():
        if getattr(cfg, section).points > cells:
            raise UserError(
                f"{section}.points={getattr(cfg, section).points}: a crop of data.image_size={cfg.data.image_size} has "
                f"{cells} cells only; take fewer points"
            )
    if cfg.data.tags != "crop":  # novel pixels are unlabelled then
        for section in ("complement", "distillation"):
            if not getattr(cfg, section).unlabelled:
                raise UserError(
                    f"{section}.unlabelled=false: with data.tags={cfg.data.tags} novel pixels are unlabelled, and "
                    "none would be left; leave it true"
                )
    if cfg.method == "simformer" and cfg.distillation.weight and not cfg.similarity.weight:
        raise UserError(
            "similarity.weight=0: SimNet would not train, and distillation learns from it; set "
            "distillation.weight=0, too"
        )
