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
    DeepLab,
    EpochsWithin,
    Fraction,
    MatchingRule,
    Only,
    Section,
    Side,
    Trained,
    Training,
)

Balance = Literal["none", "cluster"]
BALANCE = "images compete with all others (none, published) or with those of their own cluster (cluster)"


class Images(Data):
    images: Literal["apart", "mixed"] = Field(
        "apart",
        description="apart (published): an image with a novel class is unlabelled; mixed, for scenes: any image may "
        "hold base and novel classes, and a share of train_list is labelled",
    )
    labelled: Annotated[PositiveFloat, Field(lt=1), Only(key="data.images", values=("mixed",))] = Field(
        0.5, description="that share of the images, drawn by the seed; nothing of the others' masks is read"
    )
    novel_pixels: Literal["background", "ignore"] = Field(
        "background",
        description="what pixels of novel classes in labelled images are to the base model: background (published), or "
        "not looked at",
    )


class Model(DeepLab):
    freeze_batchnorm: Literal["none", "backbone", "first_layers", "all"] = Field(
        "backbone", description="BatchNorm layers whose running statistics stay fixed in training"
    )
    trained: tuple[str, ...] | None = Field(
        None, description="backbone parts that train, e.g. [layer4]; default: those behind stride 8 (layer3, layer4)"
    )


class BaseTraining(Training, defaults={"epochs": 60, "batch_size": 16, "milestones": (25,)}):
    """Of the base model."""


class FineTuning(Training):
    init_from_base: bool = Field(
        False, description="start the fine-tuning networks from the base model (the official code starts from ImageNet)"
    )


class Eums(FineTuning):
    teacher_momentum: Fraction = Field(0.99, description="EMA factor of the teacher")
    teacher_mode: Literal["train", "eval"] = Field(
        "train", description="teacher's BatchNorm and dropout: train, as the student's (official code), or eval"
    )
    rampup_weight: NonNegativeFloat = Field(
        1.0, description="final weight of the consistency loss; 0 leaves the unclean images out"
    )
    rampup_length: NonNegativeFloat = Field(5, description="epochs over which that weight rises")
    threshold: Fraction = Field(0.0, description="teacher pixels below this confidence are ignored")
    reassign_epochs: EpochsWithin = Field((5,), description="epochs that re-split clean and unclean")
    reassign_proportion: PositiveFloat = Field(0.5, description="share that stays clean (1 or more: a count)")
    reassign_balance: Balance = Field("none", description=f"reassignment: {BALANCE}")


class Cluster(Section):
    base_model: Literal["best", "last"] = Field(
        "best", description="model of the base stage that removes base classes (official: best on PASCAL, last on COCO)"
    )
    k: PositiveInt | Literal["auto"] = Field(
        10, description="number of clusters K; auto: estimated from the objects (utils/measure/num_clusters.py)"
    )
    k_most: PositiveInt = Field(30, description="largest number that cluster.k=auto tries")
    threshold: Fraction = Field(0.9, description="confidence above which a base prediction is trusted")
    salient: bool = Field(
        True,
        description="novel is what is salient and not certainly base (published); false, for scenes: whatever is not "
        "certainly base, no saliency maps are read",
    )
    unit: Literal["image", "component", "region"] = Field(
        "image",
        description="what has a prototype and a cluster: the image's whole novel region (published), each connected "
        "part of it, or each part within a cell of alike features",
    )
    min_share: Annotated[Fraction, Only(key="cluster.unit", values=("component", "region"))] = Field(
        0.01, description="share of the image's pixels below which such a part is dropped"
    )
    regions: Annotated[PositiveInt, Only(key="cluster.unit", values=("region",))] = Field(
        40, description="cells of an image (utils/measure/regions.py)"
    )
    min_pixels: NonNegativeInt = Field(
        1500, description="an image is kept when more pixels than this are novel, in parts that are not dropped"
    )
    features: Literal["imagenet", "base", "maskcontrast"] = Field(
        "imagenet",
        description="network that describes the objects: ImageNet's backbone, the base model's, or a MaskContrast "
        "encoder (its file: checkpoint)",
    )
    features_checkpoint: Path | None = Field(
        None, description="its file; with features=imagenet or base any network's, whose backbone is taken"
    )
    features_size: Side | None = Field(None, description="input side for that network; default data.image_size")
    features_stride: Literal[8, 16, 32] | None = Field(
        None, description="its output stride; default model.output_stride"
    )
    pca_dim: PositiveInt | None = Field(32, description="PCA dimensions; null clusters the raw features")
    whiten: bool = Field(True, description="PCA whitening (published)")
    n_init: PositiveInt = Field(10, description="k-means restarts (10 when the paper was made)")
    saliency_folder: str | None = Field(
        None, description="folder of the saliency maps; default saliency_supervised_model, or the layout's"
    )
    binarize_saliency: bool = Field(
        False, description="treat any salient grey level as 1 (official: grey levels weigh)"
    )
    assign: Literal["kmeans", "semi", "random", "oracle"] = Field(
        "kmeans",
        description="cluster of an object: k-means; semi-supervised k-means, which may find it to be of a base class "
        "(a baseline); or the references drawn at random / true class",
    )
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(8, description="images per forward pass")
    names: Literal["off", "suggest"] = Field(
        "off", description="suggest: names for clusters from word vectors, for the report; nothing is trained on them"
    )
    name_vectors: str = Field("shipped", description="where word vectors come from, as data.embeddings of zs3")
    candidates: Path | None = Field(
        None, description="YAML list of names that clusters may get; default: all of the table of vectors"
    )

    @property
    def describes(self) -> bool:
        """Whether features are needed: to tell regions apart, or clusters, which else come from chance or the truth."""
        return self.unit == "region" or self.assign in ("kmeans", "semi")


class Ranking(Section):
    proportion: PositiveFloat = Field(
        0.67, description="lambda: share of images that counts as clean (1 or more: a count)"
    )
    balance: Balance = Field("none", description=BALANCE)
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(8, description="images per forward pass")


class Evaluation(Section):
    match: MatchingRule = Field(
        "official",
        description="clusters to classes: by IoU arg-max (many to one), Hungarian (one to one); official: the first "
        "when K > classes, the second when K = classes, undefined below",
    )
    absent: Absent = Field("zero", description="a class without any pixel counts as 0, or not at all")
    label_folder: str = Field("SegmentationClass", description="masks of the base-stage validation and of eval.py")
    batch_size: Annotated[PositiveInt, NEUTRAL] = Field(16, description="images per forward pass")
    split: Literal["best", "last"] = Field("best", description="which checkpoint of a finished stage eval.py takes")
    compare: bool = Field(True, description="eval.py: report the other one beside it, from the same pass")


class DiscoveryConfig(Common):
    """Novel class discovery: one file configures the whole chain; every stage reads its section."""

    scored_by: ClassVar[tuple[str, ...]] = ("evaluation", "cluster")

    system: Literal["ncdss"] = Field("ncdss", description="novel class discovery")
    split: Annotated[str, SHARED] = Field(
        "fold0", description="class split: a name in data/splits/<dataset>/ or the path of a YAML file"
    )
    method: Literal["base", "basic", "eums"] = Field(
        "eums", description="fine-tuning method; for eval.py the stage to evaluate"
    )
    init_from: Path | None = Field(
        None, description="start the network from this checkpoint (last layer anew if the number of classes differs)"
    )
    base_checkpoint: Path | None = Field(None, description="base model to use instead of the base stage's")
    basic_checkpoint: Path | None = Field(
        None, description="ranking model to use instead of the basic stage's best.pth"
    )
    pseudo_dir: Path | None = Field(None, description="folder with novel.txt, base.txt, pseudo_labels/")
    split_dir: Path | None = Field(None, description="folder with easy_split.txt and hard_split.txt")
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
        """With cluster.features=maskcontrast, `checkpoint` is the encoder's file; no other stage is to take it."""
        cluster = tree.get("cluster") if isinstance(tree, dict) else None
        if not isinstance(cluster, dict) or cluster.get("features") != "maskcontrast":
            return tree
        if not tree.get("checkpoint") or cluster.get("features_checkpoint"):
            return tree
        moved = {"checkpoint": None, "cluster": {**cluster, "features_checkpoint": tree["checkpoint"]}}
        return {**tree, **moved}

    @property
    def reference(self) -> str:
        """What names of stages end with when the pseudo labels are those of a reference run."""
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
        """Where the stages lie, below output_dir; a split given as a file counts by its name."""
        return Path(Path(self.split).stem)
