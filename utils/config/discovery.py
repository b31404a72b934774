"""Configuration keys of novel class discovery: one file configures the whole chain, train_base.py to eval.py."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from utils.config.common import (
    NEUTRAL,
    SHARED,
    Absent,
    Common,
    Data,
    EpochsWithin,
    Fraction,
    MatchingRule,
    Only,
    Section,
    Segmentation,
    Side,
    Trained,
    Training,
)

Balance = Literal["none", "cluster"]
BALANCE = "images compete with all others (none, published) or with those of their own cluster (cluster)"


class Images(Data):
    images: Literal["apart", "mixed"] = Field(
        "apart",
        description="apart (published): images with a novel class are unlabelled; mixed, for scenes: any image may "
        "contain base and novel classes, and a fraction of train_list is labelled",
    )
    labelled: Annotated[PositiveFloat, Field(lt=1), Only(key="data.images", values=("mixed",))] = Field(
        0.5,
        description="labelled fraction of the images, drawn with the seed; masks of the other images are never read",
    )
    novel_pixels: Literal["background", "ignore"] = Field(
        "background",
        description="label of novel-class pixels in base training: background (published) or ignored",
    )


class Model(Segmentation, defaults={"freeze_batchnorm": "backbone"}):
    trains_all: ClassVar[bool] = False

    trained: tuple[str, ...] | None = Field(
        None, description="backbone parts that train, e.g. [layer4]; default: those behind stride 8 (layer3, layer4)"
    )


class BaseTraining(Training, defaults={"epochs": 60, "batch_size": 16, "milestones": (25,)}):
    """Training of the base model."""


class FineTuning(Training):
    init_from_base: bool = Field(
        False, description="trunk starts from that of the base model; the official code starts from ImageNet"
    )


class Eums(FineTuning):
    init_from_basic: bool = Field(
        False,
        description="student and teacher start from the whole basic model, last epoch; the official code starts from "
        "ImageNet",
    )
    teacher_momentum: Fraction = Field(0.99, description="EMA factor of the teacher")
    teacher_mode: Literal["train", "eval"] = Field(
        "train", description="mode of the teacher's BatchNorm and dropout: train (official code) or eval"
    )
    rampup_weight: NonNegativeFloat = Field(
        1.0, description="final weight of the consistency loss; 0 disables it and skips the unclean images"
    )
    rampup_length: NonNegativeFloat = Field(5, description="ramp-up of that weight in epochs")
    threshold: Fraction = Field(0.0, description="confidence below which the teacher's pixels are ignored")
    reassign_epochs: EpochsWithin = Field((5,), description="epochs at which clean and unclean images are split again")
    reassign_proportion: PositiveFloat = Field(
        0.5, description="fraction that stays clean; 1 or more: number of images"
    )
    reassign_balance: Balance = Field("none", description=f"reassignment: {BALANCE}")


class Cluster(Section):
    base_model: Literal["best", "last"] = Field(
        "best", description="base-stage checkpoint that removes base classes (official: best on PASCAL, last on COCO)"
    )
    k: PositiveInt | Literal["auto"] = Field(
        10, description="number of clusters K; auto: estimated (utils/measure/num_clusters.py)"
    )
    k_most: PositiveInt = Field(30, description="largest K that cluster.k=auto considers")
    threshold: Fraction = Field(0.9, description="confidence above which a pixel counts as base")
    salient: bool = Field(
        True,
        description="true (published): novel pixels are salient and not confidently base; false, for scenes: all "
        "pixels that are not confidently base, without saliency maps",
    )
    unit: Literal["image", "component", "region"] = Field(
        "image",
        description="unit that is clustered: the image's whole novel region (published), each connected component of"
        " it, or each region of similar features",
    )
    min_share: Annotated[Fraction, Only(key="cluster.unit", values=("component", "region"))] = Field(
        0.01, description="fraction of the image's pixels below which a unit is dropped"
    )
    regions: Annotated[PositiveInt, Only(key="cluster.unit", values=("region",))] = Field(
        40, description="regions per image (utils/measure/regions.py)"
    )
    min_pixels: NonNegativeInt = Field(1500, description="images with at most this many novel pixels are dropped")
    features: Literal["imagenet", "base", "maskcontrast"] = Field(
        "imagenet",
        description="network that embeds the objects: ImageNet trunk, base model, or MaskContrast encoder (given as "
        "checkpoint)",
    )
    features_checkpoint: Path | None = Field(
        None, description="weights of that network; with features=imagenet or base, any network whose trunk is used"
    )
    layer: Literal["trunk", "embedding"] = Field(
        "trunk",
        description="feature map that embeds the objects: last level of the trunk (published), or the input of the "
        "base model's classifier (with features=base)",
    )
    features_size: Side | None = Field(None, description="input side of that network; default: data.image_size")
    features_stride: Literal[8, 16, 32] | None = Field(
        None, description="output stride of that network; default: model.output_stride"
    )
    pca_dim: PositiveInt | None = Field(32, description="PCA dimensions; null: no PCA")
    whiten: bool = Field(True, description="PCA whitening (published)")
    n_init: PositiveInt = Field(10, description="k-means restarts (paper: 10)")
    saliency_folder: str | None = Field(
        None, description="folder of the saliency maps; default: saliency_supervised_model, or the layout's"
    )
    binarize_saliency: bool = Field(
        False, description="count every nonzero saliency as 1 (official: weighted by grey level)"
    )
    assign: Literal["kmeans", "semi", "random", "oracle"] = Field(
        "kmeans",
        description="cluster assignment: k-means; semi-supervised k-means, which may assign base classes (a "
        "baseline); or the references: random labels, true classes (oracle)",
    )
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(8, description="images per forward pass")
    names: Literal["off", "suggest"] = Field(
        "off",
        description="suggest: the report proposes names for clusters from word vectors; training does not use them",
    )
    name_vectors: str = Field("shipped", description="word vectors, as data.embeddings of system zs3")
    candidates: Path | None = Field(None, description="YAML list of candidate names; default: all words of the vectors")

    @property
    def describes(self) -> bool:
        """Whether clustering needs features: for regions, or for k-means. The references need none."""
        return self.unit == "region" or self.assign in ("kmeans", "semi")


class Ranking(Section):
    by: Literal["entropy", "truth"] = Field(
        "entropy",
        description="what ranks images: entropy of the basic model (published), or the true error of their "
        "pseudo-labels, an upper bound that reads the masks of novel images",
    )
    proportion: PositiveFloat = Field(0.67, description="lambda, fraction of clean images; 1 or more: number of images")
    balance: Balance = Field("none", description=BALANCE)
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(8, description="images per forward pass")


class Evaluation(Section):
    match: MatchingRule = Field(
        "official",
        description="assignment of clusters to classes: many_to_one by largest IoU, one_to_one by the Hungarian "
        "method; official: many_to_one if K > number of classes, one_to_one if equal, undefined if fewer",
    )
    absent: Absent = Field("zero", description="IoU of a class without any pixel: 0, or left out of the mean")
    label_folder: str = Field("SegmentationClass", description="mask folder of base validation and eval.py")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")
    split: Literal["best", "last"] = Field("best", description="checkpoint of a finished stage that eval.py scores")
    compare: bool = Field(True, description="eval.py also scores the other checkpoint in the same pass")


class DiscoveryConfig(Common):
    """Novel class discovery. One file configures the whole chain; every stage reads its section."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "cluster")

    system: Literal["ncdss"] = Field("ncdss", description="novel class discovery")
    split: Annotated[str, SHARED] = Field(
        "fold0", description="class split: a name in data/splits/<dataset>/ or a YAML file"
    )
    method: Literal["base", "basic", "eums"] = Field(
        "eums", description="fine-tuning method; in eval.py, the stage to evaluate"
    )
    init_from: Path | None = Field(
        None, description="initial checkpoint; the last layer is reinitialised if the number of classes differs"
    )
    base_checkpoint: Path | None = Field(None, description="base model; default: that of the base stage")
    basic_checkpoint: Path | None = Field(None, description="ranking model; default: best.pth of the basic stage")
    pseudo_dir: Path | None = Field(
        None,
        description="pseudo-label folder with novel.txt, base.txt, pseudo_labels/; default: that of the clustering "
        "stage",
    )
    split_dir: Path | None = Field(
        None, description="folder with easy_split.txt and hard_split.txt; default: that of the ranking stage"
    )
    data: Annotated[Images, SHARED] = Images()
    model: Annotated[Model, SHARED] = Model()
    base_training: BaseTraining = BaseTraining()
    cluster: Cluster = Cluster()
    basic: FineTuning = FineTuning()
    ranking: Ranking = Ranking()
    eums: Eums = Eums()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _encoder_file(cls, tree: Any) -> Any:
        """With cluster.features=maskcontrast, `checkpoint` is the encoder: it becomes cluster.features_checkpoint."""
        cluster = tree.get("cluster") if isinstance(tree, dict) else None
        if not isinstance(cluster, dict) or cluster.get("features") != "maskcontrast":
            return tree
        if not tree.get("checkpoint") or cluster.get("features_checkpoint"):
            return tree
        moved = {"checkpoint": None, "cluster": {**cluster, "features_checkpoint": tree["checkpoint"]}}
        return {**tree, **moved}

    @property
    def reference(self) -> str:
        """Suffix of the stage names of a reference run."""
        return "" if self.cluster.assign == "kmeans" else f"_{self.cluster.assign}"

    @property
    def trained(self) -> Trained:
        first, second = ("best", "last") if self.evaluation.split == "best" else ("last", "best")
        files = (first, second) if self.evaluation.compare else (first,)
        if self.method == "base":
            return Trained("base", "train_base.py", files)
        stage = f"{self.own_method or self.method}{self.reference}"
        return Trained(stage, f"finetune_novel.py CONFIG method={self.method}", files)

    @property
    def folder(self) -> Path:
        """Folder of the stages, relative to output_dir: the name of the split or of its file."""
        return Path(Path(self.split).stem)
