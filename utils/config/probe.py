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
        description="maskcontrast: encoder of `checkpoint`; untrained: the same encoder before pre-training; "
        "backbone: a plain trunk; vit: a vision transformer of timm",
    )
    vit: str = Field("vit_small_patch16_224", description="timm name for kind=vit; weights from checkpoint or init")

    @property
    def is_encoder(self) -> bool:
        """Whether the network is a MaskContrast encoder, trained or not."""
        return self.kind in ("maskcontrast", "untrained")


class LinearTraining(Training, defaults={"epochs": 60, "batch_size": 16, "milestones": (25,)}):
    """Training of the linear probe."""


class EvaluatedData(PretrainData, defaults={"image_size": 512, "missing": "error"}):
    """Images at evaluation size; every image needs its files."""


class Kmeans(Section):
    unit: Literal["image", "patch"] = Field(
        "image", description="unit that is clustered: one prototype per image, or feature cells"
    )
    clusters: PositiveInt | None = Field(
        None,
        le=65534,
        description="number of clusters without background; default: one per class; more are assigned many-to-one",
    )
    seeds: tuple[Seed, ...] = Field(
        (1234, 1235, 1236, 1237, 1238), min_length=1, description="seeds; one clustering per seed"
    )
    pca_dim: PositiveInt | None = Field(32, description="PCA dimensions; null: no PCA")
    whiten: bool = Field(True, description="PCA whitening")
    n_init: PositiveInt = Field(3, description="k-means restarts (paper: 3)")
    batch_size: PositiveInt = Field(1000, description="batch size of mini-batch k-means")
    match: MatchingRule = Field(
        "official",
        description="assignment of clusters to classes: official: Hungarian if there are as many clusters as "
        "classes, else each to its best class",
    )
    patches: PositiveInt = Field(64, description="unit=patch: feature cells per image that the clustering is fitted to")


class Retrieval(Section):
    unit: Literal["image", "patch"] = Field(
        "image", description="query unit: the object of an image, or each of its feature cells"
    )
    memory: str = Field("train", description="image list of the memory (official code: train; paper: trainaug)")
    ignore: tuple[str, ...] = Field((), description="classes excluded from kept_miou, the second metric")
    patches: PositiveInt = Field(64, description="unit=patch: feature cells per image in the memory")


class ProbeEvaluation(Section):
    absent: Absent = Field("zero", description="IoU of a class without any pixel: 0, or left out of the mean")
    label_folder: str = Field("SegmentationClass", description="mask folder of every list except trainaug")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")
    compare: Annotated[bool, LINEAR] = Field(True, description="also score the last epoch, in the same pass")
    crf: Annotated[bool, LINEAR] = Field(
        False, description="refine predictions with a fully connected CRF (pip install pydensecrf2)"
    )


class ProbeConfig(Common):
    """Evaluation of frozen features: linear probe, k-means, retrieval."""

    system: Literal["probe"] = Field("probe", description="evaluation of frozen features")
    mode: Literal["linear", "kmeans", "retrieval"] = Field("linear", description="evaluation protocol")
    save_predictions: bool = Field(
        False,
        description="write predictions/<id>.png with original class numbers; k-means also writes clusters/<id>.png "
        "(first seed)",
    )
    name: str | None = Field(None, description="folder of the results; default: from the name of the weights")
    foreground: Literal["head", "saliency"] | None = Field(
        None,
        description="object masks from the saliency head or from saliency maps; default: the head if it is trained",
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
        """Folder of the evaluations of one network, relative to output_dir."""
        if self.name:
            return Path(self.name)
        if not self.checkpoint:
            init = Path(self.model.init).name.split(".")[0]
            prefix = "untrained_" if self.model.kind == "untrained" else ""
            return Path(f"{prefix}{self.model.vit if self.model.kind == 'vit' else self.model.backbone}_{init}")
        stem = self.checkpoint.name.split(".")[0]
        return Path(f"{self.checkpoint.parent.name}_{stem}" if stem in ("best", "last", "checkpoint") else stem)
