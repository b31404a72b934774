"""The images that zero-shot segmentation trains and validates on: VOC with SBD, or lists of the data root."""

from dataclasses import replace
from pathlib import Path

from data.layouts import SBD, SBD_FOLDERS, VOC, Layout
from data.lists import find_list, image_list, shipped_ids
from data.source import DataContext, ImageSet
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError

VOC_TRAIN, SBD_TRAIN = "voc12_train", "sbd_train_noval"  # official lists, shipped
Context = DataContext[ZeroShotConfig]


def with_folders(context: Context) -> Context:
    """The data root in VOC's layout where SBD is merged with it; photographs from `data.images` if it is set."""
    layout = VOC if context.cfg.data.use_sbd else context.layout
    return replace(context, layout=_with_images(layout, context.cfg.data.images))


def training_sets(context: Context) -> list[ImageSet]:
    """VOC's list and then SBD's, or the one list of another data set. An image may be in both.

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
    """The validation images of any data set."""
    name = context.cfg.data.val_list or context.layout.val_list
    ids = image_list(context, name)
    return ImageSet("val", context, ids, label_folder="SegmentationClass", validation=True)


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
