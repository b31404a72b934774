"""Training images of weak-shot segmentation with their mask, if any, and their classes (from masks or tag files)."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.classes import ClassList, class_numbers
from data.io import read_image
from data.label_map import LabelMap
from data.layouts import Sample
from data.lists import TABLE, values_in
from data.source import DataContext
from utils.checkpoint import read_lines
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.labels import IGNORE
from utils.log import log

FIELDS = ("image", "label")
HEADS = ("id", "image")  # first cell of a header line
FORM = "expected a CSV file with lines 'id,class;class', or a YAML file with 'id: [class, class]'"


def read_tags(path: Path, classes: ClassList) -> dict[str, frozenset[int]]:
    """Image id -> class numbers. Ids have no file extension; tags are class names or numbers, without background.

    In a CSV file, tags stand in further cells, or in one cell separated by semicolons. Raises UserError with file,
    image and tag if a tag is no class.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        listed = read_yaml(path)
        if not isinstance(listed, dict):
            raise UserError(f"{path}: no mapping; {FORM}")
        rows = {str(name): tags for name, tags in listed.items()}
    else:
        rows = _rows(path)
    return {name: frozenset(class_numbers(tags, classes, f"{path}, image '{name}'")) for name, tags in rows.items()}


def _rows(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"data.tags={path}: no such file; give crop, image, or a file of tags")
    rows: dict[str, list[int | str]] = {}
    try:
        lines = [row for row in csv.reader(read_lines(path), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path}: {error}; {FORM}") from None
    for number, (name, *cells) in enumerate(lines, start=1):
        if number == 1 and name.strip().lower() in HEADS:
            continue
        if name.strip() in rows:
            raise UserError(f"{path}: image '{name.strip()}' occurs twice; give all its tags in one line")
        tags = [tag.strip() for cell in cells for tag in cell.split(";")]
        rows[name.strip()] = [int(tag) if tag.isdecimal() else tag for tag in tags if tag]
    if not rows:
        raise UserError(f"{path}: no image; {FORM}")
    return rows


class Known(NamedTuple):
    """A training image, its classes (train ids), and whether it has a mask of the base classes."""

    sample: Sample
    classes: frozenset[int]
    has_mask: bool = True

    def without_mask(self) -> "Known":
        """The image with an empty mask (255 everywhere); only its classes are known."""
        blank = replace(self.sample, label=self.sample.image, read_label=unlabelled)
        return self._replace(sample=blank, has_mask=False)

    def vector(self, num_classes: int) -> np.ndarray:
        """uint8 [K], 1 for each of its classes."""
        found = np.zeros(num_classes, np.uint8)
        found[list(self.classes)] = 1
        return found


def known_by_masks(context: DataContext, ids: Sequence[str], label_map: LabelMap) -> list[Known]:
    """Images with the classes of their masks; the masks are read once for all runs in `output_dir`."""
    return _scanned(context, context.index(ids, FIELDS), label_map)


def known_by_tags(
    context: DataContext,
    ids: Sequence[str],
    base_map: LabelMap,
    novel: Sequence[int],
    tags: Mapping[str, frozenset[int]],
    source: Path,
    hidden: Collection[str] = (),
) -> list[Known]:
    """Images with the base classes of their masks and the novel classes of their tags (train ids, from file `source`).

    An image without a mask, or with a `hidden` one, takes all classes from its tags. Raises UserError for an image with
    neither. `base_map` ignores novel pixels.
    """
    found = context.index(ids, FIELDS, missing="none")
    samples = [replace(sample, label=None) if sample.id in hidden else sample for sample in found]
    masked = iter(_scanned(context, [sample for sample in samples if sample.label], base_map))
    known = []
    for sample in samples:
        tagged = tags.get(sample.id, frozenset())
        if sample.label is None and not tagged:
            raise UserError(
                f"{source}: image '{sample.id}' has no tags there, and no mask below data.root={context.root}; give it "
                "one of both, or take it out of the image list"
            )
        if sample.label is None:
            known.append(Known(sample, tagged).without_mask())
        else:
            image = next(masked)
            known.append(image._replace(classes=image.classes | tagged.intersection(novel)))
    if not any(sample.id in tags for sample in samples):
        raise UserError(
            f"{source}: none of its {len(tags)} images, as '{next(iter(tags))}', is in the training list, as "
            f"'{samples[0].id}'; give ids, names without folder and ending"
        )
    untagged = sum(sample.id not in tags for sample in samples)
    if untagged:
        log.info(
            "%s: %d of %d training images are not in it; taken to show no novel class", source, untagged, len(samples)
        )
    return known


def _scanned(context: DataContext, samples: Sequence[Sample], label_map: LabelMap) -> list[Known]:
    found = values_in(samples, context.cfg.output_dir / TABLE, label_map)
    return [Known(sample, label_map.new_values(values)) for sample, values in zip(samples, found, strict=True)]


def unlabelled(image: Path) -> np.ndarray:
    """An empty label of the image's size: uint8 [H, W], 255 everywhere."""
    return np.full(read_image(image).shape[:2], IGNORE, np.uint8)
