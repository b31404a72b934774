"""Data of novel class discovery: images, label maps and evaluation of each stage of the chain."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from data.classes import ClassGroups, class_files, load_split
from data.dataset import SegmentationDataset
from data.discovery.lists import ImageLists, load_lists, scanned_list
from data.discovery.stages import num_clusters
from data.discovery.units import FOLDER as PARTS
from data.discovery.units import NOVEL_MAPS
from data.io import read_label
from data.label_map import LabelMap
from data.layouts import TRAIN_FOLDER, Sample
from data.lists import image_list
from data.loading import Source
from data.protocol import Photograph, SystemData, TrainedNetwork
from data.pseudo_labels import Origin, PseudoLabels, clustered_labels
from data.source import DataContext, ImageSet
from data.transforms import TrainTransform, ValTransform, WeakStrongTransform
from utils.checkpoint import read_list
from utils.cluster_names import Names, cluster_classes, read_cluster_names
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError
from utils.labels import IGNORE, WIDE_IGNORE, ignore_of, ignored
from utils.measure.matching import rules_for
from utils.measure.protocol import Classes, EvalProtocol
from utils.measure.spec import Spec
from utils.run_folder import stage_dir

BASE, NOVEL = 0, 1  # groups of a class split
KINDS = ("base", "novel")  # names of the groups
UNMATCHED, BACKGROUND = "unmatched cluster", "background"


@dataclass(frozen=True)
class DiscoveryData(SystemData[DiscoveryConfig]):
    """Class split, image lists, data root and data sets of a run.

    Outputs of networks: background, base classes, and after fine-tuning K clusters.
    """

    context: DataContext[DiscoveryConfig]
    groups: ClassGroups
    lists: ImageLists

    @classmethod
    def open(cls, cfg: DiscoveryConfig) -> "DiscoveryData":
        context, split = DataContext.open(cfg), load_split(cfg.split, cfg.data.dataset)
        groups = with_background(split)
        context.files.add(class_files(cfg.data.dataset, cfg.split))
        most = WIDE_IGNORE - groups.num_seen(BASE)  # values of a 16-bit label file without the ignored one
        if cfg.cluster.k != "auto" and cfg.cluster.k > most:
            raise UserError(
                f"cluster.k={cfg.cluster.k}: label files hold at most {most} clusters besides these classes"
            )
        return cls(context, groups, load_lists(split, context))

    @classmethod
    def reads(cls, context: DataContext[DiscoveryConfig]) -> Iterator[ImageSet]:
        """All images with their masks, except masks of unknown classes; novel images with saliency if it is used."""
        cfg, d = context.cfg, context.cfg.data
        split = load_split(cfg.split, d.dataset)
        labels, named = split.everything(), zip(KINDS, split.groups, strict=True)
        called = {number: f"{kind:6}{split.classes[number]}" for kind, numbers in named for number in numbers}
        scanned = scanned_list(split, context)
        if scanned:
            train = novel = image_list(context, scanned)
            val = image_list(context, d.val_list or context.layout.val_list)
        else:
            lists = load_lists(split, context)
            masked = lists.novel if split.groups[NOVEL] else ()
            train, val, novel = _union(lists.base_train, masked), _union(lists.base_val, lists.val), list(lists.novel)
        yield ImageSet("train", context, train, label_map=labels, class_names=called)
        folder = cfg.evaluation.label_folder
        yield ImageSet("val", context, val, label_map=labels, label_folder=folder, validation=True)
        if cfg.cluster.salient:
            yield replace(unlabelled_set(context, novel), showing=split.having(NOVEL) if scanned else None)

    @property
    def cfg(self) -> DiscoveryConfig:
        return self.context.cfg

    @property
    def num_known(self) -> int:
        """Number of background and base classes, 1 + B: outputs of the base model, first outputs of all others."""
        return self.groups.num_seen(BASE)

    @property
    def num_outputs(self) -> int:
        """Outputs of fine-tuned models, 1 + B + K."""
        return self.num_known + num_clusters(self.cfg)

    @property
    def is_unknown(self) -> bool:
        """Whether the split has `novel: unknown`: clusters have no name, or one given by hand."""
        return not self.groups.groups[NOVEL]

    @property
    def cluster_names(self) -> dict[int, str] | None:
        """Names given by hand, by cluster from 1; None if the masks name the clusters."""
        return read_cluster_names(stage_dir(self.cfg, "pseudo").parent) if self.is_unknown else None

    @property
    def novel_names(self) -> list[str]:
        return self.groups.names[self.num_known :]

    def require_matching(self, clusters: int) -> None:
        """Raises UserError if `evaluation.match` is undefined because clusters are fewer than novel classes."""
        rule, novel = self.cfg.evaluation.match, len(self.novel_names)
        defined = rules_for(clusters, novel)
        if rule not in defined:
            few = f"not defined for {clusters} clusters, fewer than the {novel} novel classes of split={self.cfg.split}"
            cure = f"give evaluation.match={' or '.join(defined)}, or cluster.k={novel} and more"
            raise UserError(f"evaluation.match={rule}: {few}; {cure}")

    # ---- images and labels

    def base_map(self) -> LabelMap:
        """For the base model: base classes to 1..B; novel pixels are background or ignored, by `data.novel_pixels`."""
        return self.groups.label_map([BASE]) if self.cfg.data.novel_pixels == "background" else self.base_only_map()

    def full_map(self) -> LabelMap:
        """For validation: base classes to 1..B, novel classes to B+1..B+n."""
        return self.groups.label_map([BASE, NOVEL])

    def base_only_map(self) -> LabelMap:
        """For images without novel classes: base classes to 1..B; novel pixels that the list overlooked are ignored.

        The official COCO lists are made from masks with only the first polygon of each object.
        """
        return self.groups.label_map([BASE], ignored=[NOVEL])

    def labelled(
        self,
        ids: Iterable[str],
        label_map: LabelMap,
        *,
        folder: str = TRAIN_FOLDER,
        train: bool = False,
    ) -> SegmentationDataset:
        """Images with masks under a label map."""
        samples = self.context.index(ids, ("image", "label"), label_folder=folder)
        return self._dataset(samples, ("image", "label"), train=train, label_map=label_map)

    def unlabelled(self, ids: Iterable[str]) -> SegmentationDataset:
        """Novel images, with saliency if it is used, for removing base classes."""
        images = unlabelled_set(self.context, list(ids))
        return self._dataset(images.samples(), images.fields)

    def objects(self, ids: Iterable[str], folder: Path, size: int, *, parts: bool = False) -> SegmentationDataset:
        """Novel images with their novel region, <folder>/novel_map/<id>.png, as "saliency", to compute prototypes.

        With `parts`, field "pseudo" holds the part number of each pixel.
        """
        samples = [
            replace(
                sample,
                saliency=folder / NOVEL_MAPS / f"{sample.id}.png",
                pseudo=folder / PARTS / f"{sample.id}.png" if parts else None,
            )
            for sample in self.context.index(ids, ("image",))
        ]
        fields = ("image", "saliency", *(["pseudo"] if parts else []))
        return self.context.dataset(samples, fields, transform=ValTransform(size))

    def labelled_at(self, ids: Iterable[str], size: int) -> SegmentationDataset:
        """Images with labels of base classes at side `size`, to compute prototypes of the classes."""
        samples = self.context.index(ids, ("image", "label"), label_folder=TRAIN_FOLDER)
        transform, label_map = ValTransform(size), self.base_only_map()
        return self.context.dataset(samples, ("image", "label"), transform=transform, label_map=label_map)

    def pseudo_labels(self, pseudo_dir: Path) -> PseudoLabels:
        """The label maps in a folder of cluster_pseudolabel.py: base classes, then clusters."""
        names = tuple(self.groups.names)
        return clustered_labels(pseudo_dir, Origin(self.groups.name, names[: self.num_known], names[self.num_known :]))

    def pseudo_labelled(
        self, ids: Iterable[str], pseudo_dir: Path, *, train: bool, strong: bool = False
    ) -> SegmentationDataset:
        """Novel images with the pseudo-labels of `pseudo_dir`; `strong`: no labels, but the jittered view of EUMS."""
        allowed = LabelMap.from_pairs({value: value for value in range(self.num_outputs)})
        fields, samples = ("image",) if strong else ("image", "pseudo"), self.context.index(ids, ("image",))
        samples = samples if strong else self.pseudo_labels(pseudo_dir).added_to(samples)
        return self._dataset(samples, fields, train=train, strong=strong, pseudo_map=allowed)

    def _dataset(
        self,
        samples: Sequence[Sample],
        fields: tuple[str, ...],
        *,
        train: bool = False,
        strong: bool = False,
        label_map: LabelMap | None = None,
        pseudo_map: LabelMap | None = None,
    ) -> SegmentationDataset:
        size, border = self.cfg.data.image_size, self.cfg.data.border
        augment = WeakStrongTransform if strong else TrainTransform
        transform = augment(size, border, self.cfg.data.transforms) if train else ValTransform(size)
        return self.context.dataset(samples, fields, transform=transform, label_map=label_map, pseudo_map=pseudo_map)

    # ---- evaluation

    def base_protocol(self, native: bool = False) -> EvalProtocol:
        """Evaluation of the base model on images with a base class."""
        folder, options = self.cfg.evaluation.label_folder, self.cfg.evaluation
        images = self.labelled(self.lists.base_val, self.base_map(), folder=folder)
        base = {"base": range(1, self.num_known)}
        spec = Spec(self.groups.names[: self.num_known], self.num_known, base, absent=options.absent)
        return self._protocol(images, spec, native)

    def novel_protocol(self, native: bool = False, num_outputs: int | None = None) -> EvalProtocol:
        """Evaluation of a fine-tuned model on all validation images; `evaluation.match` assigns clusters to classes.

        A novel class without a cluster has IoU 0. Without known novel classes, only base classes are evaluated.
        """
        options, names, known = self.cfg.evaluation, self.groups.names, self.num_known
        folder = options.label_folder if native else TRAIN_FOLDER
        images = self.labelled(self.lists.val, self.full_map(), folder=folder)
        groups = {"base": range(1, known)} | ({} if self.is_unknown else {"novel": range(known, len(names))})
        outputs = num_outputs or self.num_outputs
        self.require_matching(outputs - known)
        spec = Spec(names, outputs, groups, absent=options.absent, num_known=known, match=options.match)
        return self._protocol(images, spec, native)

    def _protocol(self, images: SegmentationDataset, spec: Spec, native: bool) -> EvalProtocol:
        loader = self.context.loader(images, self.cfg.evaluation.batch_size, native)
        name = "image size, original classes" if native else "network resolution"
        return EvalProtocol(
            loader, spec, name, native=native, classes=partial(output_classes, self.groups, names=self.cluster_names)
        )

    def unlabelled_photographs(self) -> list[Photograph]:
        """The novel images; certainty is the mean over the clustered parts of an image."""
        labels = self.pseudo_labels(stage_dir(self.cfg, f"pseudo{self.cfg.reference}"))
        means, files = labels.confidences(), {path.stem: path for path in labels.folder.glob("*.png")}
        samples = self.context.index(self.lists.novel, ("image",))
        return [Photograph(s.image, means.get(s.id), files.get(s.id)) for s in samples]

    def true_classes(self, sample: Sample, parts: np.ndarray) -> list[int]:
        """Main class of each part of an image by its mask: novel classes 1..n, base classes -1..-B, 0 for neither.

        With cluster.unit=image it is the novel class with most pixels in the region, however few they are.
        """
        label = self.full_map()(sample.load_label(), where=str(sample.label))
        if self.cfg.cluster.unit == "image":
            return [main_class(label, parts > 0, self.num_known)]
        mains = [main_class(label, parts == part, 0) - 1 for part in range(1, int(parts.max()) + 1)]
        return [main - self.num_known + 1 if main >= self.num_known else -max(main, 0) for main in mains]

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: at image size. A network without cluster outputs is evaluated as a base model.

        Raises UserError if its outputs do not fit the split.
        """
        clusters = network.num_outputs - self.num_known
        theirs, split = network.classes[: self.num_known], f"split={self.cfg.split}"
        if theirs and theirs != output_classes(self.groups, {}):
            raise UserError(f"{network.path}: trained on other base classes than {split} has; give its own split")
        if clusters < 0 or clusters and self.cfg.evaluation.match not in rules_for(clusters, len(self.novel_names)):
            needed = f"{self.num_known} (base model) or at least {self.num_known} + {len(self.novel_names)}"
            raise UserError(
                f"{network.path}: has {network.num_outputs} outputs, but {split} of {self.cfg.data.dataset} needs "
                f"{needed}; give the split it was trained on, or, if it has so few clusters, "
                "evaluation.match=many_to_one"
            )
        if not clusters:
            return replace(self.base_protocol(native=True), stage="base")
        stage = "eums" if "teacher-student" in network.flavour else "basic"
        return replace(self.novel_protocol(native=True, num_outputs=network.num_outputs), stage=stage)


def unlabelled_set(context: DataContext[DiscoveryConfig], ids: Sequence[str]) -> ImageSet:
    """The samples of the novel images, with saliency if it is used."""
    cfg = context.cfg
    fields = ("image", "saliency") if cfg.cluster.salient else ("image",)
    missing, folder = cfg.data.missing, cfg.cluster.saliency_folder
    return ImageSet("novel", context, ids, fields, missing=missing, saliency_folder=folder)


def _union(*lists: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))


def output_classes(groups: ClassGroups, metrics: dict[str, Any], names: Names | None = None) -> Classes:
    """(class number in the masks, name) of each output of an evaluated network.

    Clusters take the class that metrics["match"] assigns or, for unknown classes, their names in `names`, from 1.
    """
    known = groups.num_seen(BASE)
    if names is not None:
        first = [(number, groups.classes[number]) for number in groups.order[:known]]
        return first + cluster_classes(first, len(metrics.get("match", [])), names)
    nothing = ignored(len(groups.classes))
    novel = [groups.order[known + index] if index >= 0 else nothing for _, index in metrics.get("match", [])]
    called = dict(enumerate(groups.classes)) | {nothing: UNMATCHED}
    return [(number, called[number]) for number in (*groups.order[:known], *novel)]


def with_background(groups: ClassGroups) -> ClassGroups:
    """Adds a background class if the data set has none: output 0 of networks is always background.

    Its number in predictions is the first unused one.
    """
    if groups.background is not None:
        return groups
    return replace(groups, classes=(*groups.classes, BACKGROUND), background=len(groups.classes))


def main_class(label: np.ndarray, region: np.ndarray, num_known: int) -> int:
    """The class from `num_known` on with most pixels in a region, counted from 1; 0 if there is none.

    label [H, W], region bool [H, W].
    """
    counts = np.bincount(label[region], minlength=IGNORE + 1)[num_known : ignore_of(label)]
    return 1 + int(counts.argmax()) if counts.any() else 0


def read_novel_lists(folder: Path, universe: ImageLists) -> tuple[list[str], list[str]]:
    """(base.txt, novel.txt) of a pseudo-label folder, ours or official. Raises UserError if they do not fit."""
    base, novel = read_list(folder / "base.txt"), read_list(folder / "novel.txt")
    with_novel = set(universe.novel)
    unlabelled = next((name for name in novel if name not in with_novel), None)
    if unlabelled:
        raise UserError(
            f"{folder / 'novel.txt'}: image '{unlabelled}' has no novel class here; made for another split?"
        )
    known = {*universe.base, *universe.base_train}
    foreign = next((name for name in base if name not in known or name in with_novel), None)
    if foreign:
        raise UserError(f"{folder / 'base.txt'}: image '{foreign}' is not in this split's base list; made for another?")
    return base, novel


@dataclass(frozen=True)
class FineTuningImages:
    """Images of fine-tuning: labelled images of base classes, and novel images with pseudo-labels of a folder."""

    data: DiscoveryData
    pseudo_dir: Path
    base: list[str]
    novel: list[str]
    batch_size: int

    @classmethod
    def open(cls, data: DiscoveryData, pseudo_dir: Path, batch_size: int) -> "FineTuningImages":
        return cls(data, pseudo_dir, *read_novel_lists(pseudo_dir, data.lists), batch_size)

    def base_source(self) -> Source:
        dataset = self.data.labelled(self.base, self.data.base_only_map(), train=True)
        return self.data.context.source("base", dataset, self.batch_size)

    def novel_source(self, name: str, ids: Iterable[str], strong: bool = False) -> Source:
        """Images with their pseudo-labels; with `strong` two views of each and no labels."""
        dataset = self.data.pseudo_labelled(ids, self.pseudo_dir, train=True, strong=strong)
        return self.data.context.source(name, dataset, self.batch_size)

    def to_rank(self, ids: Iterable[str]) -> tuple[list[str], DataLoader]:
        """(ids, loader) of images with their pseudo-labels, with the evaluation transform."""
        dataset = self.data.pseudo_labelled(ids, self.pseudo_dir, train=False)
        loader = self.data.context.loader(dataset, self.data.cfg.ranking.batch_size)
        return [sample.id for sample in dataset.samples], loader

    def clusters(self, ids: Sequence[str]) -> list[int]:
        """Cluster 0..K-1 with most pixels in each image's pseudo-label; -1 without any."""
        clusters = []
        for path in self.data.pseudo_labels(self.pseudo_dir).paths(ids):
            label = read_label(path)
            clusters.append(main_class(label, np.full(label.shape, True), self.data.num_known) - 1)
        return clusters
