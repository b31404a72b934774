"""Data of weak-shot segmentation: images, masks and tags for training, pseudo-labels, and evaluation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.classes import ClassList, class_folder, load_split
from data.dataset import SegmentationDataset
from data.embeddings import class_vectors
from data.label_map import LabelMap
from data.layouts import Missing, Sample
from data.lists import image_list, warn_of_overlap
from data.loading import Source
from data.protocol import Photograph, TrainedNetwork
from data.pseudo_labels import PseudoLabel, mean_certainty, merge_labels
from data.source import DataContext, ImageSet
from data.two_groups import TwoGroups
from data.weakshot.cluster_masks import IDS, ClusterMasks
from data.weakshot.crops import ShortestEdge, WeakCrop
from data.weakshot.pairs import Partners, WeakImages
from data.weakshot.tags import FIELDS, Known, known_by_masks, known_by_tags, read_tags
from utils import dist
from utils.checkpoint import read_list
from utils.config.strict_yaml import read_yaml
from utils.config.weakshot import TRAINS, WeakShotConfig
from utils.errors import UserError
from utils.labels import IGNORE
from utils.log import log
from utils.measure.confusion import image_confusion
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec, confusion_metrics
from utils.run_folder import require_stage

TAGS_OF_MASKS = ("crop", "image")  # values of data.tags that are no file
PSEUDO = "labels"  # folder of the pseudo-labels in their stage
TRAIN, EXCLUDED = (
    "train",
    "excluded.txt",
)  # list name; file next to a class list with images that the official program leaves out


class WeakShotData(TwoGroups[WeakShotConfig]):
    """Class split and data root of a run, labels and tags of its training images, and evaluation."""

    kind = "novel"
    labels_made_by = f"{TRAINS} CONFIG stage=pseudo"

    @classmethod
    def open(cls, cfg: WeakShotConfig) -> "WeakShotData":
        """Raises UserError if the split or data root does not fit. Image files are located on first use."""
        return cls.of(DataContext.open(cfg))

    @classmethod
    def reads(cls, context: DataContext[WeakShotConfig]) -> Iterator[ImageSet]:
        """The training images, which need no mask if data.tags is a file, and the validation images."""
        data = cls.of(context)
        kinds = ("novel" if number in data.novel else "base" for number in range(data.num_classes))
        named = zip(data.groups.order, kinds, data.names, strict=True)
        called = {value: f"{kind:6}{name}" for value, kind, name in named}
        missing: Missing = "error" if context.cfg.data.tags in TAGS_OF_MASKS else "drop"
        labels = data.label_map()
        yield ImageSet("train", context, data.train_ids(), FIELDS, labels, missing=missing, class_names=called)
        yield ImageSet("val", context, data.val_ids(), FIELDS, labels, validation=True)

    @property
    def novel(self) -> tuple[int, ...]:
        """Train ids of the classes that have tags."""
        return self.later

    @property
    def base(self) -> tuple[int, ...]:
        """Train ids of the classes that have masks."""
        return self.first

    @property
    def tags_only(self) -> bool:
        """Whether novel classes are known only by image tags; then no pixel of their masks may be read."""
        return self.cfg.data.tags != "crop"

    def label_map(self, base_only: bool = False) -> LabelMap:
        """Numbers in the masks -> train ids; `base_only` ignores novel classes."""
        return LabelMap.from_pairs(self.train_ids_of(base_only))

    @property
    def vectors(self) -> torch.Tensor:
        """Word vectors float32 [K, E], a row per train id. Raises UserError if a class has none."""
        return torch.from_numpy(class_vectors(self.names, self.cfg.data))

    # ---- training images with their labels and tags

    @cached_property
    def known(self) -> list[Known]:
        """Training images that show a class, in list order. Raises UserError if there are none."""
        name, ids = self._train_list, self.context.cut(self.train_ids())
        warn_of_overlap(ids, self.val_ids())
        found = self._seen(ids) if self._tags is None else self._tagged(ids, self._tags)
        kept = [image for image in found if image.classes]
        if not kept:
            raise UserError(f"data.train_list={name}: none of its {len(ids)} images shows a class of the split")
        if len(kept) < len(ids):
            log.info("%d of %d training images show no class; left out", len(ids) - len(kept), len(ids))
        return kept

    @property
    def _train_list(self) -> str:
        return self.cfg.data.train_list or TRAIN

    def train_ids(self) -> list[str]:
        """Ids of the training images, without those that the official program excludes."""
        return self._without_excluded(image_list(self.context, self._train_list))

    def _without_excluded(self, ids: Sequence[str]) -> list[str]:
        path = class_folder(self.cfg.data.dataset) / EXCLUDED
        excluded = set(read_list(path)) if path.is_file() else set()
        return [name for name in ids if name not in excluded]

    @cached_property
    def _tags(self) -> dict[str, frozenset[int]] | None:
        """Image -> train ids, if data.tags is a file, else None."""
        if self.cfg.data.tags in TAGS_OF_MASKS:
            return None
        self.context.files.add([self.cfg.data.tags])
        listed = read_tags(Path(self.cfg.data.tags), ClassList(self.groups.classes, self.background))
        place = {number: train_id for train_id, number in enumerate(self.groups.order)}
        return {name: frozenset(place[n] for n in numbers if n in place) for name, numbers in listed.items()}

    def _seen(self, ids: Sequence[str]) -> list[Known]:
        """Images with the classes in their masks; hidden masks give only these classes."""
        found, objects = known_by_masks(self.context, ids, self.label_map()), set(range(self.num_classes))
        if self.groups.background is not None:
            objects.remove(0)  # no tag
        hidden = self._hidden(ids, (image.sample.id for image in found if image.classes & set(self.novel)))
        return [
            image._replace(classes=image.classes & objects).without_mask() if image.sample.id in hidden else image
            for image in found
        ]

    def _tagged(self, ids: Sequence[str], tags: Mapping[str, frozenset[int]]) -> list[Known]:
        base_map, source = self.label_map(base_only=True), Path(self.cfg.data.tags)
        hidden = self._hidden(ids, (name for name, classes in tags.items() if classes & set(self.novel)))
        return known_by_tags(self.context, ids, base_map, self.novel, tags, source, hidden)

    def _hidden(self, ids: Sequence[str], novel: Iterable[str]) -> set[str]:
        """Ids of the images whose masks are not read; novel: ids of images that show a novel class."""
        if self.cfg.data.masks == "all":
            return set()
        if self.cfg.data.masks == "base":
            return set(novel)
        return set(ids).difference(image_list(self.context, self.cfg.data.masks))

    @cached_property
    def presence(self) -> np.ndarray:
        """uint8 [N, K]: the classes of each training image."""
        return np.stack([image.vector(self.num_classes) for image in self.known])

    @cached_property
    def tags(self) -> np.ndarray:
        """uint8 [N, K]: image-level tags: the novel classes; for an image without a mask, all its classes."""
        tags = self.presence.copy()
        masked = [row for row, image in enumerate(self.known) if image.has_mask]
        tags[np.ix_(masked, self.base)] = 0
        return tags

    # ---- training

    def source(self, batch_size: int, pairs: bool = False) -> Source:
        """Crops of the training images with "image", "label", "padding" and "present", see WeakCrop.

        With `pairs`, each crop has a partner in fields "partner_image" and so on. If novel classes are known by tags,
        all non-base pixels are 255, and "present" holds the tags in addition to the base classes of the crop.
        """
        partners = Partners(self.presence, self.novel, self.cfg.similarity.partner, self.cfg.seed) if pairs else None
        tags = self.tags if self.tags_only else None
        samples = [image.sample for image in self.known]
        dataset = self._crops(samples, self.label_map(base_only=self.tags_only), tags=tags, partners=partners)
        return self.context.source("pairs" if pairs else "images", dataset, batch_size)

    def supervised_source(self, batch_size: int) -> Source:
        """Like `source`, with masks of all classes, including novel ones: the upper bound of weak-shot training."""
        samples = [image.sample for image in self.known if image.has_mask]
        return self.context.source("images", self._crops(samples, self.label_map()), batch_size)

    def retraining_source(self, folder: Path, batch_size: int) -> Source:
        """Like `source`, with pseudo-labels as masks. Raises UserError if one is missing or of another split."""
        labels = self.pseudo_labels(folder)
        samples = labels.as_masks([image.sample for image in self.known])
        return self.context.source("images", self._crops(samples, labels.label_map), batch_size)

    def _crops(self, samples: Sequence[Sample], label_map: LabelMap, **known: Any) -> SegmentationDataset:
        d = self.cfg.data
        transform = WeakCrop(d.image_size, d.sizes, d.longest, self.num_classes)
        return self.context.dataset(samples, FIELDS, WeakImages, transform=transform, label_map=label_map, **known)

    # ---- pseudo-labels

    def unlabelled_photographs(self) -> list[Photograph]:
        """Training images that have tags but no mask."""
        return [Photograph(image.sample.image) for image in self.known if not image.has_mask]

    def pseudo_label_images(self) -> DataLoader:
        """The training images as the evaluation sees them; "index" is the place in `known`."""
        return self.context.loader(self._whole([image.sample for image in self.known]), self.cfg.pseudo.batch_size)

    def pseudo_label(self, index: int, prediction: np.ndarray, certainty: torch.Tensor | None = None) -> PseudoLabel:
        """The pseudo-label of image `index` of `known`, see data.pseudo_labels.merge_labels.

        prediction: train ids [H, W] at the size of the file; certainty [h, w] of the network in it.
        """
        image, tags = self.known[index], self.presence[index].copy()
        if not image.has_mask and self.groups.background is not None:
            tags[0] = 1  # background is in every image
        label = self.label_map(base_only=True)(image.sample.load_label(), where=str(image.sample.label))
        values = merge_labels(prediction, label, tags, self.novel, image.has_mask)
        predicted = (values != IGNORE) & (label == IGNORE)
        return PseudoLabel(image.sample.id, values, None if certainty is None else mean_certainty(certainty, predicted))

    def cluster_masks(self, folder: Path) -> ClusterMasks:
        """The clusters in a folder of cluster_pseudolabel.py, named by the tags of the images.

        Raises UserError if the folder belongs to other classes.
        """
        config = folder / "config.yaml"
        self.check_split(folder, read_yaml(config) if config.is_file() else {})
        split = load_split(self.cfg.split, self.cfg.data.dataset)
        known = [self.groups.order.index(number) for number in split.groups[0]]
        background = [] if split.background is None else [IGNORE if self.groups.background is None else 0]
        tags = {image.sample.id: image.classes.intersection(self.novel) for image in self.known}
        return ClusterMasks.open(folder, tags, [*background, *known], self.num_classes)

    def cluster_labels(self, masks: ClusterMasks) -> Iterator[PseudoLabel]:
        """This process's share of the pseudo-labels made from clusters."""
        for index in dist.share(range(len(self.known))):
            sample, classes = self.known[index].sample, self.known[index].classes
            shape = sample.load_label().shape
            yield self.pseudo_label(index, masks.label(sample.id, classes.intersection(self.novel), shape))

    def pseudo_quality(self, folder: Path) -> dict[str, Any]:
        """Metrics of the pseudo-labels against the masks, and the number of images; ignored pixels count as errors.

        Only the number of images if data.tags is a file, since masks of novel classes need not exist then.
        """
        about = {"images": len(self.known)}
        if self._tags is not None:
            return about
        labels, ids = self.pseudo_labels(folder), [image.sample.id for image in self.known]
        images, paths = self._whole(self.context.index(ids, FIELDS)), labels.paths(ids)
        matrix = torch.zeros(self.num_classes, self.num_classes + 1, dtype=torch.int64)
        for index, path in enumerate(paths):
            found = np.minimum(labels.read(path), self.num_classes)[None]
            matrix += image_confusion(images.native(index), found, *matrix.shape)[0]
        return confusion_metrics(matrix, replace(self._spec(), num_outputs=self.num_classes + 1)) | about

    # ---- how networks are scored

    def protocol(self) -> EvalProtocol:
        """Evaluation on all validation images and classes: shorter side `evaluation.size`, counted at file size."""
        return self._protocol(self.val_images())

    def _protocol(self, images: SegmentationDataset) -> EvalProtocol:
        options = self.cfg.evaluation
        return EvalProtocol(
            self.context.loader(images, options.batch_size, native=True),
            self._spec(),
            f"shorter side {options.size}, image size",
            native=True,
            sized=True,
            classes=self.output_classes,
        )

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """Evaluation of a network by eval.py."""
        own = self.output_classes({})
        if network.num_outputs != self.num_classes or (network.classes and network.classes != own):
            raise UserError(
                f"{network.path}: {network.num_outputs} outputs, of other classes than data.dataset="
                f"{self.cfg.data.dataset} has ({self.num_classes}); give the data set it was trained on"
            )
        images = self.val_images()
        return replace(self._protocol(images), about={"images": len(images)}, stage=self.cfg.trained.stage)

    def val_images(self) -> SegmentationDataset:
        """Validation images with shorter side `evaluation.size`; labels at file size."""
        return self._whole(self.context.index(self.val_ids(), FIELDS))

    def val_ids(self) -> list[str]:
        """Ids of the validation images, without those that the official program excludes."""
        name = self.cfg.data.val_list or self.context.layout.val_list
        return self._without_excluded(image_list(self.context, name))

    def _whole(self, samples: Sequence[Sample]) -> SegmentationDataset:
        options = self.cfg.evaluation
        transform = ShortestEdge(options.size, self.cfg.data.longest)
        return self.context.dataset(samples, ("image",), transform=transform, label_map=self.label_map())

    def _spec(self) -> Spec:
        groups = {"base": self.base, "novel": self.novel}
        return Spec(self.names, self.num_classes, groups, absent=self.cfg.evaluation.absent)


def labelled_by(cfg: WeakShotConfig) -> Path:
    """The network, or the folder of clusters, that labels the training images. Raises UserError if it is missing."""
    if cfg.method == "clusters":
        return cfg.clusters_dir or require_stage(cfg, "pseudo", IDS, "cluster_pseudolabel.py").parent
    return cfg.labels_checkpoint or require_stage(cfg, cfg.trained.stage, "last.pth", cfg.trained.made_by)


def label_folder(cfg: WeakShotConfig) -> Path:
    """The pseudo-labels that retraining reads. Raises UserError if they are missing."""
    method = cfg.retraining.labels_by
    made_by = f"{TRAINS} CONFIG method={method} stage=pseudo"
    return cfg.pseudo_dir or require_stage(cfg, f"{method}_pseudo", PSEUDO, made_by)
