"""Configuration keys of feature evaluation (probe_features.py)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from utils.config.common import (
    NEUTRAL,
    SHARED,
    Absent,
    Common,
    MatchingRule,
    Only,
    Section,
    Seed,
    Trained,
    Training,
)
from utils.config.contrast import Encoder, PretrainData

LINEAR, KMEANS, RETRIEVAL = (Only(key="mode", values=(mode,)) for mode in ("linear", "kmeans", "retrieval"))


class Network(Encoder):
    kind: Literal["maskcontrast", "untrained", "backbone", "vit"] = Field(
        "maskcontrast",
        description="maskcontrast: the encoder of `checkpoint`; untrained: the same before any pre-training; backbone: "
        "features of a plain backbone; vit: a vision transformer of the package timm",
    )
    vit: str = Field("vit_small_patch16_224", description="kind=vit: its name in timm; weights from checkpoint or init")

    @property
    def is_encoder(self) -> bool:
        """A backbone under MaskContrast's decoder and heads."""
        return self.kind in ("maskcontrast", "untrained")


class LinearTraining(Training, defaults={"epochs": 60, "batch_size": 16, "milestones": (25,)}):
    """Of the linear probe."""


class EvaluatedData(PretrainData, defaults={"image_size": 512, "missing": "error"}):
    """Images at the size of evaluation, each with its file."""


class Kmeans(Section):
    unit: Literal["image", "patch"] = Field(
        "image", description="what is clustered: one prototype per image, or single feature cells"
    )
    clusters: PositiveInt | None = Field(
        None, le=65534, description="clusters besides background; default one per class. More are assigned many-to-one"
    )
    seeds: tuple[Seed, ...] = Field((1234, 1235, 1236, 1237, 1238), min_length=1, description="one clustering each")
    pca_dim: PositiveInt | None = Field(32, description="PCA dimensions; null clusters the features themselves")
    whiten: bool = Field(True, description="PCA whitening")
    n_init: PositiveInt = Field(3, description="restarts (3 when the paper was made)")
    batch_size: PositiveInt = Field(1000, description="vectors per step of mini-batch k-means")
    match: MatchingRule = Field(
        "official", description="clusters to classes: Hungarian when there are as many, else each to its best class"
    )
    patches: PositiveInt = Field(64, description="unit=patch: cells of each image that the clustering is fitted to")


class Retrieval(Section):
    unit: Literal["image", "patch"] = Field(
        "image", description="what looks for its neighbour: the object of an image, or each feature cell of it"
    )
    memory: str = Field("train", description="labelled list (official code: train; the paper: trainaug)")
    ignore: tuple[str, ...] = Field((), description="classes left out of the second figure, kept_miou")
    patches: PositiveInt = Field(64, description="unit=patch: cells of each image that go to memory")


class ProbeEvaluation(Section):
    absent: Absent = Field("zero", description="a class without any pixel counts as 0, or not at all")
    label_folder: str = Field("SegmentationClass", description="masks of every list but trainaug")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")
    compare: Annotated[bool, LINEAR] = Field(
        True, description="score the last epoch beside the best one, in the same pass"
    )
    crf: Annotated[bool, LINEAR] = Field(
        False, description="refine predictions by a fully connected CRF (pip install pydensecrf2)"
    )


class ProbeConfig(Common):
    """How good features are: linear probe, clustering, retrieval."""

    system: Literal["probe"] = Field("probe", description="evaluation of frozen features")
    mode: Literal["linear", "kmeans", "retrieval"] = Field("linear", description="the evaluation")
    save_predictions: bool = Field(
        False,
        description="write predictions/<id>.png, original class numbers; kmeans also clusters/<id>.png (first seed)",
    )
    name: str | None = Field(None, description="folder of the results; default from the weights' names")
    foreground: Literal["head", "saliency"] | None = Field(
        None, description="objects from the saliency head, or from maps of the data; default: a trained head if any"
    )
    data: Annotated[EvaluatedData, SHARED] = EvaluatedData()
    model: Annotated[Network, SHARED] = Network()
    training: Annotated[LinearTraining, LINEAR] = LinearTraining()
    kmeans: Annotated[Kmeans, KMEANS] = Kmeans()
    retrieval: Annotated[Retrieval, RETRIEVAL] = Retrieval()
    evaluation: ProbeEvaluation = ProbeEvaluation()

    @property
    def trained(self) -> Trained:
        return Trained("linear", "probe_features.py", ("best", "last") if self.evaluation.compare else ("best",))

    @property
    def is_published(self) -> bool:
        """Whether the paper reports scores of this architecture on this data set."""
        return (self.model.kind, self.model.backbone, self.data.dataset) == ("maskcontrast", "resnet50", "pascal")

    @property
    def folder(self) -> Path:
        """Where the evaluations of one network lie, below output_dir."""
        if self.name:
            return Path(self.name)
        if not self.checkpoint:
            init = Path(self.model.init).name.split(".")[0]
            prefix = "untrained_" if self.model.kind == "untrained" else ""
            return Path(f"{prefix}{self.model.vit if self.model.kind == 'vit' else self.model.backbone}_{init}")
        stem = self.checkpoint.name.split(".")[0]
        return Path(f"{self.checkpoint.parent.name}_{stem}" if stem in ("best", "last", "checkpoint") else stem)
