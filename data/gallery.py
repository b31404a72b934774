"""The images that galleries show: chosen by their labels, never by results."""

from collections.abc import Collection, Sequence

import numpy as np

from data.layouts import Sample
from utils.labels import ignore_of

COLUMNS = 6  # images in a row of pictures
SEARCHED = 1000  # images that are searched
FAIR = (0.04, 0.5)  # share of the image that a wanted class may cover
VISIBLE = 0.03  # share from which another class counts as present


def pick_images(samples: Sequence[Sample], wanted: Collection[int], count: int = COLUMNS) -> list[Sample]:
    """The first images of a list in which a wanted class has a fair size, for the wanted classes in turn.

    Images that show another class, too, come first. The choice depends on the labels only, never on results. Returns
    the first images if there is none with a wanted class.
    """
    if not wanted:
        return list(samples[:count])
    rounds = -(-count // len(wanted))
    found: dict[int, list[tuple[bool, int]]] = {value: [] for value in wanted}
    for place, sample in enumerate(samples[:SEARCHED]):
        label = sample.load_label()
        ignored = ignore_of(label)
        shares = np.bincount(label.ravel(), minlength=ignored + 1)[:ignored] / label.size
        alone = not any(value and value not in wanted for value in np.flatnonzero(shares > VISIBLE).tolist())
        for value in wanted:
            if FAIR[0] < shares[value] < FAIR[1]:
                found[value].append((alone, place))
        if all(sum(not alone for alone, _ in places) >= rounds for places in found.values()):
            break
    chosen: list[int] = []
    for _ in range(rounds):
        for places in found.values():
            rest = [place for _, place in sorted(places) if place not in chosen]
            chosen += rest[:1]
    return [samples[place] for place in chosen[:count]] or list(samples[:count])
