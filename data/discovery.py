"""The data sets that the stages of a class-discovery chain read: one class told apart by lists, fields, maps."""

import os
from dataclasses import dataclass
from pathlib import Path

from data.class_split import ClassSplit, load_split
from data.dataset import SegmentationDataset
from data.label_map import IGNORE, LabelMap
from data.layouts import index_samples
from data.lists import ImageLists, load_lists
from data.loading import Source, eval_loader
from data.transforms import TrainTransform, ValTransform, WeakStrongTransform
from utils.checkpoint import read_list
from utils.config.common import Training
from utils.config.ncdss import NcdssConfig
from utils.errors import UserError
from utils.log import log

DRY_IMAGES = 40  # enough for PCA to 32 dimensions


@dataclass(frozen=True)
class Views:
    """Class split, image lists and data root of a run, and the data sets made from them."""

    cfg: NcdssConfig
    root: Path
    split: ClassSplit
    lists: ImageLists

    @classmethod
    def open(cls, cfg: NcdssConfig) -> "Views":
        root = data_root(cfg)
        split = load_split(cfg.split, cfg.data.dataset)
        if cfg.cluster.k < split.num_novel:
            raise UserError(
                f"cluster.k={cfg.cluster.k}: fewer clusters than split={cfg.split} has novel classes; use at least "
                f"{split.num_novel}"
            )
        d = cfg.data
        lists = load_lists(
            split, dataset=d.dataset, root=root, lists_dir=d.lists, train_list=d.train_list, val_list=d.val_list
        )
        return cls(cfg, root, split, lists)

    @property
    def num_known(self) -> int:
        """Background and base classes, B+1: outputs of the base model, first outputs of the others."""
        return 1 + self.split.num_base

    @property
    def num_outputs(self) -> int:
        """Outputs of the fine-tuned models, B+1+K."""
        return self.num_known + self.cfg.cluster.k

    def output_ids(self, match: list[list[int]]) -> list[int]:
        """Class number in the masks of each network output, given [cluster, novel class] pairs; 255: no class."""
        novel = [self.split.original_ids[self.num_known + index] if index >= 0 else IGNORE for _, index in match]
        return [int(number) for number in (*self.split.original_ids[: self.num_known], *novel)]

    def output_classes(self, metrics: dict) -> list[tuple[int, str]]:
        """(class number in the masks, name) of each output of an evaluated network: metrics["match"] names clusters."""
        names = dict(enumerate(self.split.classes)) | {IGNORE: "unmatched cluster"}
        return [(number, names[number]) for number in self.output_ids(metrics.get("match", []))]

    def labelled(
        self, ids, label_map: LabelMap, *, folder: str = "SegmentationClassAug", train: bool = False
    ) -> SegmentationDataset:
        """Images with ground truth under a label map."""
        return self._dataset(ids, ("image", "label"), train=train, label_map=label_map, label_folder=folder)

    def unlabelled(self, ids) -> SegmentationDataset:
        """Novel images with their saliency, for removing base classes and clustering."""
        return self._dataset(ids, ("image", "saliency"), missing=self.cfg.data.missing)

    def pseudo_labelled(self, ids, pseudo_dir: Path, *, train: bool, strong: bool = False) -> SegmentationDataset:
        """Novel images with the cluster labels of `pseudo_dir`; `strong` adds the colour-jittered view of EUMS."""
        allowed = LabelMap.from_pairs({value: value for value in range(self.num_outputs)})
        fields = ("image",) if strong else ("image", "pseudo")
        return self._dataset(ids, fields, train=train, strong=strong, pseudo_map=allowed, pseudo_dir=pseudo_dir)

    def _dataset(
        self, ids, fields, *, train=False, strong=False, label_map=None, pseudo_map=None, **where
    ) -> SegmentationDataset:
        size, border = self.cfg.data.image_size, self.cfg.data.border
        ids = list(ids)[:DRY_IMAGES] if self.cfg.run.dry else list(ids)
        samples = index_samples(self.root, ids, fields=fields, **where)
        if len(samples) < len(ids):
            log.info("%d of %d images dropped, because a file of theirs is missing", len(ids) - len(samples), len(ids))
        augment = WeakStrongTransform if strong else TrainTransform
        transform = augment(size, border) if train else ValTransform(size)
        return SegmentationDataset(
            samples,
            fields,
            transform=transform,
            label_map=label_map,
            pseudo_map=pseudo_map,
            seed=self.cfg.seed,
            cache=self.cfg.data.cache,
            max_side=self.cfg.data.max_side,
        )

    def source(self, name: str, dataset: SegmentationDataset, settings: Training, pin: bool) -> Source:
        return Source(name, dataset, settings.batch_size, seed=self.cfg.seed, workers=self.cfg.data.workers, pin=pin)

    def loader(self, dataset: SegmentationDataset, batch_size: int, pin: bool = False):
        return eval_loader(dataset, batch_size, workers=self.cfg.data.workers, pin=pin)


def data_root(cfg: NcdssConfig) -> Path:
    """`data.root`, else $DATA_ROOT, else datasets/<dataset>; UserError when there is no such folder."""
    root = cfg.data.root or Path(os.environ.get("DATA_ROOT") or Path("datasets") / Path(cfg.data.dataset).name)
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder; set data.root or $DATA_ROOT (layout: README, section Data)")
    return root


def read_novel_lists(folder: Path, universe: ImageLists) -> tuple[list[str], list[str]]:
    """(base.txt, novel.txt) of a pseudo-label folder, ours or the official one, which must fit the split's lists."""
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
