"""The images that zero-shot segmentation trains and validates on: VOC with SBD, or lists of the data root."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.layouts import SBD, SBD_FOLDERS, VOC, Layout
from data.lists import find_list, image_list, shipped_ids
from data.source import DataContext
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError

VOC_TRAIN, SBD_TRAIN = "voc12_train", "sbd_train_noval"  # official lists, shipped
Context = DataContext[ZeroShotConfig]


class Listed(NamedTuple):
    """Ids of a list, where their files lie, and the folder of their masks."""

    context: Context
    ids: Sequence[str]
    folder: str


def open_context(cfg: ZeroShotConfig) -> Context:
    """The data root, in VOC's layout where SBD is merged with it, its photographs where `data.images` says."""
    context = DataContext.open(cfg)
    layout = VOC if cfg.data.use_sbd else context.layout
    return replace(context, layout=_with_images(layout, cfg.data.images))


def training_lists(context: Context) -> list[Listed]:
    """VOC's list and then SBD's, or the one of another data set. Images may be in both."""
    d = context.cfg.data
    if not d.use_sbd:
        own = next((name for name in ("trainaug", "train") if find_list(context, name)), "trainaug")
        return [Listed(context, image_list(context, d.train_list or own), "SegmentationClassAug")]
    sbd = replace(context, root=_sbd_root(context), layout=_with_images(SBD, d.images))
    return [
        Listed(context, _official(context, d.train_list or "train", VOC_TRAIN), "SegmentationClass"),
        Listed(sbd, _official(sbd, "train_noval", SBD_TRAIN), "SegmentationClass"),
    ]


def validation_list(context: Context) -> Listed:
    name = context.cfg.data.val_list or context.layout.val_list
    return Listed(context, image_list(context, name), "SegmentationClass")


def _with_images(layout: Layout, folder: Path | None) -> Layout:
    """The layout with its photographs in a folder of their own."""
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
    """Ids of a list of `data.lists` or the data root, else the official one that ships."""
    if find_list(context, name):
        return image_list(context, name)
    return shipped_ids(context.cfg.data.dataset, shipped)
