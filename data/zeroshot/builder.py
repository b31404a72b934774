"""Data of zero-shot segmentation: images and labels of each step, word vectors of the classes, and evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.crops import ScaleBlurCrop, ShorterSide, whole
from data.dataset import SegmentationDataset
from data.embeddings import class_vectors, name_vectors
from data.label_map import LabelMap
from data.layouts import SBD, SBD_FOLDERS, VOC, Layout, Sample
from data.lists import TABLE, find_list, image_list, shipped_ids, values_in, warn_of_overlap
from data.loading import Source
from data.mat import read_context
from data.protocol import NewClasses, Photograph, TrainedNetwork
from data.pseudo_labels import PseudoLabel, mean_certainty
from data.source import DataContext, ImageSet
from data.two_groups import TwoGroups
from data.zeroshot.context_labels import context_map
from utils.config.strict_yaml import read_yaml
from utils.config.zeroshot import TRAINS, ZeroShotConfig
from utils.errors import UserError
from utils.labels import IGNORE
from utils.log import log
from utils.measure.protocol import Classes, EvalProtocol
from utils.measure.spec import Spec
from utils.measure.sweep import Sweep

FIELDS = ("image", "label")
VOC_TRAIN, SBD_TRAIN = "voc12_train", "sbd_train_noval"  # official image lists, shipped
Context = DataContext[ZeroShotConfig]
KeptLabels = tuple[torch.Tensor, dict[int, float]]  # uint8 [H, W], unseen class -> lowest kept probability


@dataclass(frozen=True)
class Image:
    """An image with a mask, and whether the mask shows an unseen class."""

    sample: Sample
    has_unseen: bool


class ZeroShotData(TwoGroups[ZeroShotConfig]):
    """Class split and data root of a run, the images and data sets of its steps, and evaluation."""

    kind = "unseen"
    labels_made_by = f"{TRAINS} CONFIG method=zs5 resume=false"

    @classmethod
    def open(cls, cfg: ZeroShotConfig) -> "ZeroShotData":
        """Raises UserError if the split or data root does not fit. Image files are located on first use."""
        return cls.of(with_folders(DataContext.open(cfg)))

    @classmethod
    def reads(cls, context: DataContext[ZeroShotConfig]) -> Iterator[ImageSet]:
        """The training images of each source, and the validation images."""
        data = cls.of(with_folders(context))
        for images in training_sets(data.context):
            yield replace(images, label_map=data.label_map(images.context), class_names=data._mask_values(images))
        val = validation_set(data.context)
        yield replace(val, label_map=data.label_map(val.context))

    @classmethod
    def notes(cls, cfg: ZeroShotConfig) -> Iterator[str]:
        """How step 1 divides the training images, and the word vectors."""
        data = cls.open(cfg)
        yield f"step 1: {len(data.seen_images)} training images show no unseen class, {len(data.unseen_images)} do"
        vectors = data.embeddings
        yield f"word vectors: {vectors.shape[1]} numbers for each of {len(vectors)} classes"

    def _mask_values(self, images: ImageSet) -> dict[int, str]:
        """Value in the masks -> class name with its group, in the order of train ids."""
        label_map = self.label_map(images.context)
        new = {value: label_map.new_value(value) for value in np.flatnonzero(label_map.table >= 0).tolist()}
        return {
            value: f"{'unseen' if number in self.unseen else 'seen':7}{self.names[number]}"
            for value, number in sorted(new.items(), key=lambda item: item[1] or 0)
            if number is not None
        }

    @property
    def unseen(self) -> tuple[int, ...]:
        """Train ids of the classes known only by word vectors."""
        return self.later

    @property
    def seen(self) -> tuple[int, ...]:
        """Train ids of the classes with masks, including background if it is a class."""
        return self.first

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """Word vectors float32 [C, D], a row per train id. Raises UserError if a class has none."""
        return torch.from_numpy(class_vectors(self.names, self.cfg.data))

    def own_classes(self) -> NewClasses | None:
        """The names of `classes`, a YAML list, that the data set does not have, with their word vectors."""
        path = self.cfg.classes
        if path is None:
            return None
        listed = read_yaml(path)
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        twice = next((name for name in names if names.count(name) > 1), None)
        if not names or twice:
            wrong = f"'{twice}' occurs twice" if twice else "no list of names"
            raise UserError(f"{path}: {wrong}; expected a list of new class names, each once")
        new = [name for name in names if name not in self.names]
        if not new:
            raise UserError(f"{path}: the data set has all of these classes; name others")
        vectors = torch.from_numpy(name_vectors(new, self.cfg.data, self.names))
        return NewClasses(new, vectors, self.embeddings)

    # ---- images

    @cached_property
    def train_images(self) -> list[Image]:
        """Every training image once: VOC's with VOC's masks, then those only in SBD; without validation images."""
        images = self._once([image for part in self._parts for image in part])
        warn_of_overlap((image.sample.id for image in images), validation_set(self.context).ids)
        return images

    @cached_property
    def seen_images(self) -> list[Image]:
        """Training images without a pixel of an unseen class. Raises UserError if there are none.

        Each source is filtered by its own masks, as in the official code: an image that VOC's mask excludes is still
        used if SBD's mask shows no unseen class.
        """
        kept = self._once([image for part in self._parts for image in part if not image.has_unseen])
        if not kept:
            raise UserError(f"split={self.cfg.split}: no training image is without unseen classes")
        log.info("%d of %d training images show no unseen class", len(kept), len(self.train_images))
        return kept

    @cached_property
    def unseen_images(self) -> list[Image]:
        """Training images whose mask shows an unseen class; step 3 does not read these masks."""
        return [image for image in self.train_images if image.has_unseen]

    @cached_property
    def _parts(self) -> list[list[Image]]:
        """The training images of each source: VOC or another data set, and SBD."""
        return [self._images(part) for part in training_sets(self.context)]

    def _images(self, part: ImageSet) -> list[Image]:
        samples = part.samples()
        label_map, unseen = self.label_map(part.context), set(self.unseen)
        values = values_in(samples, self.cfg.output_dir / TABLE, label_map)
        found = ({label_map.new_value(value) for value in raw} for raw in values)
        return [Image(sample, bool(ids & unseen)) for sample, ids in zip(samples, found, strict=True)]

    def _once(self, images: Sequence[Image]) -> list[Image]:
        kept: dict[str, Image] = {}
        for image in images:
            kept.setdefault(image.sample.id, image)
        return list(kept.values())

    # ---- labels

    def label_map(self, context: DataContext[ZeroShotConfig] | None = None, strict: bool = False) -> LabelMap:
        """Values in the masks of a source -> train ids; `strict` ignores unseen classes."""
        new, context = self.train_ids_of(strict), context or self.context
        if context.layout.read_label is not read_context:
            return LabelMap.from_pairs(new)
        folder = context.layout.folder(context.root, "SegmentationClass")
        rest = None if self.groups.background is None else 0
        named = {self.groups.classes[number]: train_id for number, train_id in new.items()}
        named.pop("background", None)
        return context_map(folder, named, rest)

    # ---- data sets of the steps

    def step1_images(self, train: bool = True) -> SegmentationDataset:
        """Images without an unseen pixel, as training crops or whole."""
        transform = self._crop() if train else ShorterSide(self.cfg.data.image_size)
        return self._dataset([image.sample for image in self.seen_images], transform)

    def step1_source(self, batch_size: int) -> Source:
        """Images without an unseen pixel."""
        return self.context.source("seen", self.step1_images(), batch_size)

    def step2_source(self, batch_size: int) -> Source:
        """All training images with all labels; with `strict_unseen`, the images of step 1 without unseen labels."""
        strict = self.cfg.strict_unseen
        images = self.seen_images if strict else self.train_images
        dataset = self._dataset([image.sample for image in images], self._crop(), strict=strict)
        return self.context.source("all", dataset, batch_size)

    def unlabelled_photographs(self) -> list[Photograph]:
        """Training images that show an unseen class; step 1 does not use them."""
        return [Photograph(image.sample.image) for image in self.unseen_images]

    def pseudo_label_images(self) -> tuple[list[Sample], DataLoader]:
        """Images with an unseen class at their own size, one at a time, without their labels."""
        samples = [replace(image.sample, label=None) for image in self.unseen_images]
        if not samples:
            raise UserError(
                f"split={self.cfg.split}: no training image shows an unseen class; step 3 has none to label"
            )
        dataset = self.context.dataset(samples, ("image",), transform=whole)
        return samples, self.context.loader(dataset, 1)

    def pseudo_label(self, sample: Sample, kept: KeptLabels, certainty: torch.Tensor) -> PseudoLabel:
        """The pseudo-label of an image: `kept` is what losses.zs3.keep_most_certain keeps of the prediction.

        certainty [H, W] of the network. The manifest also gets the lowest kept probability of each unseen class.
        """
        values, lowest = kept[0].cpu().numpy(), {self.names[number]: value for number, value in kept[1].items()}
        return PseudoLabel(sample.id, values, mean_certainty(certainty, values != IGNORE), {"lowest": lowest})

    def step3_source(self, folder: Path, batch_size: int) -> Source:
        """The images of step 2; those whose mask shows an unseen class have a pseudo-label of `folder` instead."""
        unseen = [image.sample for image in self.unseen_images]
        made = {sample.id: sample for sample in self.pseudo_labels(folder).as_masks(unseen)}
        samples = [made.get(image.sample.id, image.sample) for image in self.train_images]
        return self.context.source("labels", self._dataset(samples, self._crop()), batch_size)

    def _crop(self) -> ScaleBlurCrop:
        d = self.cfg.data
        return ScaleBlurCrop(d.image_size, d.transforms, blur=d.augment == "official")

    def _dataset(self, samples: Sequence[Sample], transform, strict: bool = False) -> SegmentationDataset:
        return self.context.dataset(samples, FIELDS, transform=transform, label_map=self.label_map(strict=strict))

    # ---- how networks are scored

    def val_images(self, size: int, seen_only: bool = False) -> SegmentationDataset:
        """Validation images with all labels, shorter side `size`; `seen_only` drops images with an unseen class."""
        listed = validation_set(self.context)
        if seen_only:
            samples = [image.sample for image in self._images(listed) if not image.has_unseen]
        else:
            samples = listed.samples()
        return self._dataset(samples, ShorterSide(size))

    def step1_protocol(self) -> EvalProtocol:
        """Validation of step 1 in training: on all images (VOC), or on those without unseen classes (Context)."""
        size = self.cfg.data.image_size
        return self._protocol(self.val_images(size, self.cfg.data.step1_val == "seen"), size)

    def protocol(self, native: bool = False) -> EvalProtocol:
        """Evaluation on all validation images, shorter side `data.image_size`."""
        size = self.cfg.data.image_size
        return self._protocol(self.val_images(size), size, native)

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: shorter side `evaluation.size`, counted there or, with `evaluation.native`, at image size.

        Further outputs are classes that the user added; no pixel of the data set has them.
        """
        options, extra = self.cfg.evaluation, network.num_outputs - self.num_classes
        theirs, own = network.classes[: self.num_classes], f"{self.cfg.data.dataset} with split={self.cfg.split}"
        if extra < 0 or (theirs and theirs != self.output_classes({})):
            raise UserError(
                f"{network.path}: {network.num_outputs} outputs, of other classes than data.dataset={own} has "
                f"({self.num_classes}); give the data set and split it was trained on"
            )
        added = [name for _, name in network.classes[self.num_classes :]]
        if extra and not theirs and (own_classes := self.own_classes()):  # an official file names none
            added = own_classes[0]
        images = self.val_images(options.size)
        made = self._protocol(images, options.size, options.native, added + ["?"] * (extra - len(added)))
        sweep = None if extra else Sweep(self.seen, self.unseen, absent=options.absent)
        return replace(made, about={"images": len(images)}, stage=self.cfg.stage, sweep=sweep)

    def _protocol(
        self, images: SegmentationDataset, size: int, native: bool = False, added: Sequence[str] = ()
    ) -> EvalProtocol:
        options = self.cfg.evaluation
        groups = {"seen": self.seen, "unseen": self.unseen}
        spec = Spec(self.names, self.num_classes + len(added), groups, absent=options.absent)
        name = "image size" if native else f"shorter side {size}"
        first = max(len(self.groups.classes), 1 + max(self.groups.order))

        def classes(_metrics: dict[str, Any]) -> Classes:
            return self.output_classes({}) + [(first + k, name) for k, name in enumerate(added)]

        loader = self.context.loader(images, options.batch_size, native)
        return EvalProtocol(loader, spec, name, native=native, classes=classes)


# ---- image lists: VOC merged with SBD, or those of the data root


def with_folders(context: Context) -> Context:
    """Sets VOC's layout if SBD is merged with it, and the image folder `data.images` if given."""
    layout = VOC if context.cfg.data.use_sbd else context.layout
    return replace(context, layout=_with_images(layout, context.cfg.data.images))


def training_sets(context: Context) -> list[ImageSet]:
    """VOC's list and SBD's list, or the only list of another data set. An image may be in both lists.

    With SBD, validation images are left out.
    """
    d = context.cfg.data
    if not d.use_sbd:
        own = next((name for name in ("trainaug", "train") if find_list(context, name)), "trainaug")
        return [ImageSet("train", context, image_list(context, d.train_list or own))]
    sbd = replace(context, root=_sbd_root(context), layout=_with_images(SBD, d.images))
    val = set(validation_set(context).ids)
    listed = {
        "train": (context, _official(context, d.train_list or "train", VOC_TRAIN)),
        "train of SBD": (sbd, _official(sbd, "train_noval", SBD_TRAIN)),
    }
    return [
        ImageSet(name, where, [name for name in ids if name not in val], label_folder="SegmentationClass")
        for name, (where, ids) in listed.items()
    ]


def validation_set(context: Context) -> ImageSet:
    """The validation images."""
    name = context.cfg.data.val_list or context.layout.val_list
    ids = image_list(context, name)
    return ImageSet("val", context, ids, label_folder="SegmentationClass", validation=True)


def _with_images(layout: Layout, folder: Path | None) -> Layout:
    """The layout with another image folder. Raises UserError if the folder is missing."""
    if folder is None:
        return layout
    if not folder.is_dir():
        raise UserError(f"data.images={folder}: no such folder; give the one with the photographs, <id>.jpg")
    return replace(layout, folders={**layout.folders, "image": (str(folder.resolve()),)})


def _sbd_root(context: Context) -> Path:
    root = context.cfg.data.sbd_root or context.root
    if not any((root / folder / "cls").is_dir() for folder in SBD_FOLDERS):
        raise UserError(
            f"data.use_sbd=true: {root} has no folder 'cls', 'dataset/cls' or 'benchmark_RELEASE/dataset/cls'; set "
            "data.sbd_root to the folder of SBD (python prepare_data.py voc says where to get it)"
        )
    return root


def _official(context: Context, name: str, shipped: str) -> list[str]:
    """Ids of a list in `data.lists` or the data root, else of the shipped official list."""
    if find_list(context, name):
        return image_list(context, name)
    return shipped_ids(context.cfg.data.dataset, shipped)
