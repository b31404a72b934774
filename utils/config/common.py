"""Every configuration key: its type, default, range and meaning. Nothing else defines a key."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
    model_validator,
)

from utils.measure.metrics import MatchingRule

Fraction = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)]  # true stays a word


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def with_defaults(schema: type[S], **values: Any) -> type[S]:
    """A section with other defaults, which also hold when a file sets some of its keys only."""
    fields = {name: schema.model_fields[name] for name in values}
    changed = {
        name: (info.rebuild_annotation(), Field(values[name], description=info.description))
        for name, info in fields.items()
    }
    return create_model(schema.__name__, __base__=schema, **changed)


class Data(Section):
    dataset: str = Field("pascal", description="class list: a folder of data/splits, or a folder with classes.yaml")
    root: Path | None = Field(None, description="data folder; default $DATA_ROOT, then datasets/<dataset>")
    lists: Path | None = Field(None, description="folder with image lists of your own, in the official file format")
    train_list: str | None = Field(
        None,
        description="list under the root's sets/ whose masks decide base and novel; default: shipped official lists",
    )
    val_list: str | None = Field(None, description="validation list under the root's sets/; default val, or val2014")
    image_size: PositiveInt = Field(512, description="side of the square network input, pixels")
    border: Literal["background", "ignore"] = Field(
        "background", description="label of pixels that rotation brings in from outside (official code: background)"
    )
    missing: Literal["error", "drop"] = Field(
        "error", description="novel image without saliency or label file: stop, or drop it as the official code does"
    )
    max_side: PositiveInt | None = Field(None, description="shrink decoded images to this longest side first, pixels")
    cache: bool = Field(False, description="keep decoded images in memory (small data sets)")
    workers: NonNegativeInt = Field(4, description="loader processes per data source; 0 loads in the main process")


class DeepLab(Section):
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_lite0"] = Field(
        "resnet50", description="network under the DeepLabV3 decoder"
    )
    output_stride: Literal[8, 16, 32] = Field(8, description="input pixels per feature cell")
    atrous_rates: tuple[PositiveInt, ...] = Field((12, 24, 36), description="dilation of the ASPP branches")
    head_channels: PositiveInt = Field(256, description="width of the decoder")
    dropout: Fraction = Field(0.5, description="dropout after the ASPP projection")
    init: str = Field("imagenet", description="backbone start: imagenet, random, or the path of a weights file")


class Model(DeepLab):
    freeze_batchnorm: Literal["none", "backbone", "first_layers", "all"] = Field(
        "backbone", description="BatchNorm layers whose running statistics stay fixed in training"
    )
    trained: tuple[str, ...] | None = Field(
        None, description="backbone parts that train, e.g. [layer4]; default: those behind stride 8 (layer3, layer4)"
    )


class Training(Section):
    epochs: PositiveInt = Field(30, description="passes; every epoch-wise rule below counts these, from 0")
    iters_per_epoch: PositiveInt | None = Field(
        None, description="length of an epoch in optimiser steps; default: until the shortest source ends"
    )
    batch_size: PositiveInt = Field(8, description="images per step and source, over all processes")
    accumulate: PositiveInt = Field(
        1, description="parts that a batch goes through the network in, for small GPUs; BatchNorm sees a part at a time"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW")
    lr: PositiveFloat = Field(0.1, description="decoder learning rate at epoch 0")
    backbone_lr_factor: PositiveFloat = Field(0.01, description="backbone learning rate as a multiple of lr")
    momentum: Fraction = Field(0.9, description="SGD momentum")
    nesterov: bool = Field(False, description="SGD with Nesterov's momentum")
    weight_decay: NonNegativeFloat = Field(1e-4, description="L2 penalty")
    schedule: Literal["step", "poly", "poly_steps", "warm_poly_steps"] = Field(
        "step",
        description="step: times lr_decay after each milestone; poly: (1-e/E)^0.9; poly_steps: the same per optimiser "
        "step, not below 1e-6; warm_poly_steps: without that floor, after a rise over the first tenth",
    )
    milestones: tuple[NonNegativeInt, ...] = Field((15,), description="epochs after which (strictly) the rate decays")
    lr_decay: PositiveFloat = Field(0.1, description="factor at a milestone")
    eval_every: PositiveInt = Field(1, description="validate every so many epochs, and after the last")
    eval_steps: PositiveInt | None = Field(None, description="validate every so many optimiser steps instead")
    log_every: PositiveInt = Field(10, description="report losses every so many steps")
    save_every: PositiveInt | None = Field(None, description="also save every so many steps; default: at epoch ends")
    init_from_base: bool = Field(
        False, description="start the fine-tuning networks from the base model (the official code starts from ImageNet)"
    )


BaseTraining = with_defaults(Training, epochs=60, batch_size=16, milestones=(25,))


class Eums(Training):
    teacher_momentum: Fraction = Field(0.99, description="EMA factor of the teacher")
    teacher_mode: Literal["train", "eval"] = Field(
        "train", description="teacher's BatchNorm and dropout: train, as the student's (official code), or eval"
    )
    rampup_weight: NonNegativeFloat = Field(
        1.0, description="final weight of the consistency loss; 0 leaves the unclean images out"
    )
    rampup_length: NonNegativeFloat = Field(5, description="epochs over which that weight rises")
    threshold: Fraction = Field(0.0, description="teacher pixels below this confidence are ignored")
    reassign_epochs: tuple[NonNegativeInt, ...] = Field((5,), description="epochs that re-split clean and unclean")
    reassign_proportion: PositiveFloat = Field(0.5, description="share that stays clean (1 or more: a count)")


class Cluster(Section):
    base_model: Literal["best", "last"] = Field(
        "best", description="model of the base stage that removes base classes (official: best on PASCAL, last on COCO)"
    )
    k: PositiveInt = Field(10, description="number of clusters K")
    threshold: Fraction = Field(0.9, description="confidence above which a base prediction is trusted")
    min_pixels: NonNegativeInt = Field(
        1500, description="an image is kept when more pixels than this are salient and not base"
    )
    features: Literal["imagenet", "base", "maskcontrast"] = Field(
        "imagenet",
        description="network that describes the objects: ImageNet's backbone, the base model's, or a MaskContrast "
        "encoder (its file: checkpoint)",
    )
    features_checkpoint: Path | None = Field(
        None, description="its file; with features=imagenet or base any network's, whose backbone is taken"
    )
    features_size: PositiveInt | None = Field(None, description="input side for that network; default data.image_size")
    features_stride: Literal[8, 16, 32] | None = Field(
        None, description="its output stride; default model.output_stride"
    )
    pca_dim: PositiveInt | None = Field(32, description="PCA dimensions; null clusters the raw features")
    whiten: bool = Field(True, description="PCA whitening (published)")
    n_init: PositiveInt = Field(10, description="k-means restarts (10 when the paper was made)")
    binarize_saliency: bool = Field(
        False, description="treat any salient grey level as 1 (official: grey levels weigh)"
    )
    assign: Literal["kmeans", "random", "oracle"] = Field(
        "kmeans", description="cluster of an object: k-means, or the references drawn at random / true class"
    )
    batch_size: PositiveInt = Field(8, description="images per forward pass")


class Ranking(Section):
    proportion: PositiveFloat = Field(
        0.67, description="lambda: share of images that counts as clean (1 or more: a count)"
    )
    batch_size: PositiveInt = Field(8, description="images per forward pass")


class Evaluation(Section):
    match: MatchingRule = Field(
        "official", description="clusters to classes: IoU arg-max when K > classes, else Hungarian"
    )
    absent: Literal["zero", "skip"] = Field("zero", description="a class without any pixel counts as 0, or not at all")
    label_folder: str = Field("SegmentationClass", description="masks of the base-stage validation and of eval.py")
    batch_size: PositiveInt = Field(16, description="images per forward pass")
    split: Literal["best", "last"] = Field("best", description="which checkpoint of a finished stage eval.py takes")
    compare: bool = Field(True, description="eval.py: report the other one beside it, from the same pass")


class RunOptions(Section):
    dry: bool = Field(False, description="two steps per epoch, two epochs, a few images: does the chain hold together?")
    deterministic: bool = Field(False, description="deterministic CUDA kernels (slower)")
    compile: bool = Field(False, description="torch.compile for the networks")
    channels_last: bool = Field(True, description="channels-last memory layout")
    threads: PositiveInt | None = Field(None, description="CPU threads; default: torch's choice")


class Common(Section):
    """What every system's configuration has."""

    output_dir: Path = Field(Path("output"), description="stages write to folders below this one")
    checkpoint: Path | None = Field(None, description="eval.py: weights to evaluate instead of a stage's")
    init_from: Path | None = Field(
        None, description="start the network from this checkpoint (last layer anew if the number of classes differs)"
    )
    resume: Word = Field("auto", description="auto | true | false | path of a checkpoint")
    seed: NonNegativeInt = Field(242133, description="seed of everything random")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 or fp16 on CUDA, off on CPU"
    )
    save_predictions: bool = Field(False, description="eval.py: write predictions/<id>.png, original class numbers")
    expected: dict[str, float] | None = Field(
        None,
        description="figures that an evaluation must reach, e.g. {novel_miou: 0.59, tol: 0.005}; else exit status 1",
    )
    data: Data = Data()
    run: RunOptions = RunOptions()


class Config(Common):
    """Novel class discovery: one file configures the whole chain; every stage reads its section."""

    split: str = Field("fold0", description="class split: a name in data/splits/<dataset>/ or the path of a YAML file")
    method: Literal["base", "basic", "eums"] = Field(
        "eums", description="fine-tuning method; for eval.py the stage to evaluate"
    )
    base_checkpoint: Path | None = Field(None, description="base model to use instead of the base stage's")
    basic_checkpoint: Path | None = Field(
        None, description="ranking model to use instead of the basic stage's best.pth"
    )
    pseudo_dir: Path | None = Field(None, description="folder with novel.txt, base.txt, pseudo_labels/")
    split_dir: Path | None = Field(None, description="folder with easy_split.txt and hard_split.txt")
    model: Model = Model()
    base_training: BaseTraining = BaseTraining()
    cluster: Cluster = Cluster()
    basic: Training = Training()
    ranking: Ranking = Ranking()
    eums: Eums = Eums()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _encoder_file(cls, tree: Any) -> Any:
        """With cluster.features=maskcontrast, `checkpoint` is the encoder's file; no other stage is to take it."""
        cluster = tree.get("cluster") if isinstance(tree, dict) else None
        named = isinstance(cluster, dict) and cluster.get("features") == "maskcontrast" and tree.get("checkpoint")
        if not named or cluster.get("features_checkpoint"):
            return tree
        moved = {"checkpoint": None, "cluster": {**cluster, "features_checkpoint": tree["checkpoint"]}}
        return {**tree, **moved}

    @property
    def folder(self) -> Path:
        """Where the stages lie, below output_dir; a split given as a file counts by its name."""
        return Path(Path(self.split).stem)
