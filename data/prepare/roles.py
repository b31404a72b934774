"""What the stages of a configuration read, list by list: images, their files, the values that masks may have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from data.classes import ClassGroups, load_classes, load_split, load_task
from data.discovery.builder import NOVEL
from data.io import MaskRule
from data.label_map import LabelMap
from data.lists import find_list, image_list, load_lists, shipped_presence
from data.source import DataContext
from data.weakshot.builder import WeakShotData
from data.zeroshot.builder import ZeroShotData
from data.zeroshot.lists import Listed, open_context, training_lists, validation_list

Values = dict[str, frozenset[int]]  # image -> class numbers in its mask
Found = dict[str, Values]  # by the name of a role that was checked
MASKS, OBJECTS = ("image", "label"), ("image", "saliency")


@dataclass(frozen=True)
class Role:
    """A list of images and what is read of them; `where` are the folders that data.layouts.locate takes."""

    name: str
    context: DataContext
    ids: Sequence[str]
    fields: tuple[str, ...]
    label_map: LabelMap | None = None
    validation: bool = False
    optional: bool = False  # an image without one of the files is left out, as `data.missing` allows
    rule: MaskRule | None = None  # by which saliency is read; None: as a label, any values
    where: dict[str, Any] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)  # of values in the masks, to count images by


Roles = Callable[[DataContext, Found], Iterator[Role]]


def discovery(context: DataContext, found: Found) -> Iterator[Role]:
    """All images with their masks, but those of unknown classes; the novel ones, which the masks or the lists tell,
    with their saliency, if that counts.
    """
    cfg, d = context.cfg, context.cfg.data
    groups = load_split(cfg.split, d.dataset)
    everything, kinds = groups.everything(), ("base", "novel")
    names = {
        number: f"{kind:6}{groups.classes[number]}"
        for kind, numbers in zip(kinds, groups.groups, strict=True)
        for number in numbers
    }
    unknown = not groups.groups[NOVEL]
    lists = None if d.train_list and not unknown else load_lists(groups, context)
    if lists:
        masked = () if unknown else lists.novel  # nobody has masks of unknown classes, and no stage reads them
        train, val = _union(lists.base_train, masked), _union(lists.base_val, lists.val)
    else:
        train, val = (image_list(context, name) for name in (d.train_list, d.val_list or context.layout.val_list))
    yield Role("train", context, train, MASKS, everything, labels=names)
    folder = {"label_folder": cfg.evaluation.label_folder}
    yield Role("val", context, val, MASKS, everything, validation=True, where=folder)
    if not cfg.cluster.salient:
        return
    novel = lists.novel if lists else _showing(groups, NOVEL, found["train"])
    where = {"saliency_folder": cfg.cluster.saliency_folder}
    yield Role("novel", context, novel, OBJECTS, optional=d.missing == "drop", where=where)


def incremental(context: DataContext, found: Found) -> Iterator[Role]:
    """The images of all steps; with unknown objects also their saliency."""
    cfg, d = context.cfg, context.cfg.data
    task = load_task(cfg.task, d.dataset)
    if d.train_list or d.lists:
        names = (d.train_list or "trainaug", d.val_list or context.layout.val_list)
        train, val = (image_list(context, name) for name in names)
    else:
        train, val = ([name for name, _ in shipped_presence(d.dataset, part)] for part in ("train", "val"))
    everything = task.everything()
    wants_saliency = cfg.method.startswith("ssul") and cfg.ssul.unknown == "saliency"
    fields = (*MASKS, "saliency") if wants_saliency else MASKS
    steps = enumerate(task.groups)
    labels = {number: f"step {step:<3}{task.classes[number]}" for step, numbers in steps for number in numbers}
    yield Role("train", context, train, fields, everything, labels=labels)
    yield Role("val", context, val, MASKS, everything, validation=True)


def zero_shot(context: DataContext, found: Found) -> Iterator[Role]:
    """The training images of each source, and the validation images."""
    data, val = ZeroShotData.open(context.cfg), validation_list(context)

    def role(name: str, listed: Listed, ids: Sequence[str], validation: bool = False) -> Role:
        label_map, where = data.label_map(listed.context), {"label_folder": listed.folder}
        new = {value: label_map.new_value(value) for value in np.flatnonzero(label_map.table >= 0).tolist()}
        names = {
            value: f"{'unseen' if number in data.unseen else 'seen':7}{data.names[number]}"
            for value, number in sorted(new.items(), key=lambda item: item[1] or 0)
            if number is not None
        }
        labels = {} if validation else names
        return Role(name, listed.context, ids, MASKS, label_map, validation, where=where, labels=labels)

    for place, part in enumerate(training_lists(context)):
        left = set(val.ids) if context.cfg.data.use_sbd else set()  # as training leaves them out
        yield role("train of SBD" if place else "train", part, [name for name in part.ids if name not in left])
    yield role("val", val, val.ids, validation=True)


def weak_shot(context: DataContext, found: Found) -> Iterator[Role]:
    """The training images, with a file of tags perhaps without masks, and the validation images."""
    data = replace(WeakShotData.open(context.cfg), context=context)
    kinds = {number: "novel" if number in data.novel else "base" for number in range(data.num_classes)}
    names = {value: f"{kinds[place]:6}{data.names[place]}" for place, value in enumerate(data.groups.order)}
    tagged, label_map = data.cfg.data.tags not in ("crop", "image"), data.label_map()
    yield Role("train", context, data.train_ids(), MASKS, label_map, optional=tagged, labels=names)
    yield Role("val", context, data.val_ids(), MASKS, label_map, validation=True)


def contrast(context: DataContext, found: Found) -> Iterator[Role]:
    """The images to train on with their object masks, and the validation images that have some."""
    d = context.cfg.data
    where, val = {"saliency_folder": d.saliency_folder}, d.val_list or context.layout.val_list
    train = image_list(context, d.train_list)
    yield Role("train", context, train, OBJECTS, optional=d.missing == "drop", rule=d.mask_rule, where=where)
    if d.val_list or find_list(context, val):
        ids = image_list(context, val)
        yield Role("val", context, ids, OBJECTS, validation=True, optional=True, rule=d.mask_rule, where=where)


def probes(context: DataContext, found: Found) -> Iterator[Role]:
    """Images that a probe or the memory of retrieval learns from, and those that are scored."""
    cfg, d, names = context.cfg, context.cfg.data, dict(enumerate(load_classes(context.cfg.data.dataset).names))
    same = LabelMap.from_pairs({number: number for number in names})
    fields = (*MASKS, "saliency") if cfg.foreground == "saliency" and cfg.mode != "linear" else MASKS
    options: dict[str, Any] = {"optional": d.missing == "drop", "rule": d.mask_rule}
    where = {"saliency_folder": d.saliency_folder}
    learnt = {"linear": d.train_list, "retrieval": cfg.retrieval.memory}.get(cfg.mode)
    if learnt:
        full = cfg.mode == "linear" or learnt.startswith("trainaug")
        folder = {"label_folder": "SegmentationClassAug" if full else cfg.evaluation.label_folder}
        ids = image_list(context, learnt)
        yield Role("train", context, ids, fields, same, labels=names, where=where | folder, **options)
    where |= {"label_folder": cfg.evaluation.label_folder}
    ids = image_list(context, d.val_list or context.layout.val_list)
    yield Role("val", context, ids, fields, same, validation=True, where=where, **options)


def labelled(context: DataContext, found: Found) -> Iterator[Role]:
    """Of any other system: the lists of section `data` with masks of the class list."""
    d, names = context.cfg.data, dict(enumerate(load_classes(context.cfg.data.dataset).names))
    same = LabelMap.from_pairs({number: number for number in names})
    yield Role("train", context, image_list(context, d.train_list or "trainaug"), MASKS, same, labels=names)
    val = image_list(context, d.val_list or context.layout.val_list)
    yield Role("val", context, val, MASKS, same, validation=True)


def about_zero_shot(cfg: Any) -> Iterator[str]:
    """How step 1 divides the training images, and the word vectors."""
    data = ZeroShotData.open(cfg)
    yield f"step 1: {len(data.seen_images)} training images show no unseen class, {len(data.unseen_images)} do"
    vectors = data.embeddings
    yield f"word vectors: {vectors.shape[1]} numbers for each of {len(vectors)} classes"


ABOUT: dict[str, Callable[[Any], Iterator[str]]] = {"zs3": about_zero_shot}  # more lines for data without a fault
ROLES: dict[str, Roles] = {
    "ncdss": discovery,
    "ssul": incremental,
    "maskcontrast": contrast,
    "probe": probes,
    "zs3": zero_shot,
    "simformer": weak_shot,
}


def roles_of(cfg: Any, read_list: Callable[..., list[str]], found: Found) -> Iterator[Role]:
    """The roles of a configuration one after the other; `found` is to hold the values of those before."""
    context = open_context(cfg) if cfg.system == "zs3" else DataContext.open(cfg)
    yield from ROLES.get(cfg.system, labelled)(replace(context, read_list=read_list), found)


def _showing(groups: ClassGroups, group: int, values: Values) -> list[str]:
    wanted = groups.having(group)
    return [name for name, numbers in values.items() if numbers & wanted]


def _union(*lists: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))
