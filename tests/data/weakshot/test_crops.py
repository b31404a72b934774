"""Against samples of the official code: an image resized and padded with its classes, colours changed one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.weakshot.crops import (
    GREY,
    ShortestEdge,
    WeakCrop,
    brightness,
    contrast,
    hue,
    recolor,
    resize_label,
    saturation,
    shortest_edge,
)
from utils.labels import IGNORE

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weakshot"
MAPPER, COLOURS = np.load(FIXTURES / "mapper.npz"), np.load(FIXTURES / "colours.npz")
IMAGE = COLOURS["image_rgb"]
CLASSES = 171


class Fixed:
    """A generator that always draws the same number: from 0.5 on no coin falls."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


class Listed:
    """A generator that draws the numbers of a list."""

    def __init__(self, *values: float):
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


@pytest.mark.parametrize(("mode", "label"), [("weak", "label"), ("retrain", "pseudo_label")])
def test_the_official_mapper_without_its_chances(mode, label):
    fields = {"image": MAPPER["image"], "label": MAPPER[label]}
    made = WeakCrop(96, [56], 2560, CLASSES)(fields, Fixed(0.75))
    assert np.array_equal(made["image"].transpose(2, 0, 1), MAPPER[f"{mode}_image"])
    assert np.array_equal(made["label"], MAPPER[f"{mode}_label"])
    assert np.array_equal(made["padding"], MAPPER[f"{mode}_pad"])
    assert np.flatnonzero(made["present"]).tolist() == sorted(MAPPER[f"{mode}_classes"])
    areas = [(made["label"] == number).sum() for number in MAPPER["retrain_classes"]]
    assert mode == "weak" or areas == MAPPER["retrain_mask_area"].tolist()
    assert all(values.dtype == np.uint8 for values in made.values())


def test_the_image_of_the_evaluation_and_its_label_at_its_own_size():
    made = ShortestEdge(64, 2560)({"image": MAPPER["image"], "label": MAPPER["label"]})
    assert np.array_equal(made["image"].transpose(2, 0, 1), MAPPER["test_image"])
    assert made["label"].shape == tuple(MAPPER["test_hw"])


@pytest.mark.parametrize("case", MAPPER["shape_cases"].tolist(), ids=str)
def test_sizes_of_the_shortest_edge_rule(case):
    height, width, size, longest, *expected = case
    assert list(shortest_edge((height, width), size, longest)) == expected


@given(old=st.integers(1, 700), new=st.integers(1, 900))
def test_labels_are_resized_as_torch_does(old, new):
    """But for whole numbers i * old / new, where torch's kernels for one and two axes are one apart, too."""
    label = np.arange(old, dtype=np.int64)[None]
    expected = torch.nn.functional.interpolate(torch.from_numpy(label)[None].double(), new)[0].numpy()
    off = resize_label(label, (1, new), slice(0, 1), slice(0, new)) - expected
    whole = np.arange(new) * old % new == 0
    assert not off[0, ~whole].any() and (np.abs(off) <= 1).all()


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (brightness(IMAGE, 20.7), "brightness_plus20.7"),
        (brightness(IMAGE, -31.9), "brightness_minus31.9"),
        (contrast(IMAGE, 0.55), "contrast_0.55"),
        (contrast(IMAGE, 1.45), "contrast_1.45"),
        (saturation(IMAGE, 0.6), "saturation_0.6"),
        (saturation(IMAGE, 1.4), "saturation_1.4"),
        (hue(IMAGE, 17), "hue_plus17"),
        (hue(IMAGE, -9), "hue_minus9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_single_colour_changes(made, name):
    assert np.array_equal(made, COLOURS[name])


def test_both_orders_of_the_colour_changes():
    """The draws: a coin and a value per change, and a coin for the order."""
    shift, factor, less, turn = (10 + 32) / 64, 1.2 - 0.5, 0.8 - 0.5, (5 + 18.5) / 37
    first = recolor(IMAGE, Listed(0, shift, 0, 0, factor, 0, less, 0, turn))
    assert np.array_equal(first, COLOURS["full_order_contrast_first_b10_c1.2_s0.8_h5"])
    last = recolor(IMAGE, Listed(0, shift, 0.9, 0, less, 0, turn, 0, factor))
    assert np.array_equal(last, COLOURS["full_order_contrast_last_b10_s0.8_h5_c1.2"])
    assert np.array_equal(recolor(IMAGE, Fixed(0.5)), IMAGE)


def scene(seed: int = 0) -> dict[str, np.ndarray]:
    """An image whose grey levels encode the class of a pixel, in blocks of 20."""
    label = np.random.default_rng(seed).integers(0, 5, (6, 8)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    return {"image": np.repeat(40 * label[..., None] + 20, 3, axis=-1), "label": label}


def test_a_crop_is_a_part_of_the_resized_image_and_the_rest_is_padding(monkeypatch):
    monkeypatch.setattr("data.weakshot.crops.recolor", lambda image, rng: image)
    fields, crop = scene(), WeakCrop(100, [60, 120, 180], 2560, 5)
    seen = set()
    for seed in range(40):
        made = crop(fields, np.random.default_rng(seed))
        inside = made["padding"] == 0
        rows, columns = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert inside[:rows, :columns].all() and inside.sum() == rows * columns
        assert (made["image"][~inside] == GREY).all() and (made["label"][~inside] == IGNORE).all()
        level = 40 * made["label"][inside].astype(int) + 20
        assert (abs(made["image"][inside][:, 0] - level) < 10).mean() > 0.8  # but for the blurred borders of blocks
        assert made["present"].tolist() == [int((made["label"] == number).any()) for number in range(5)]
        seen.add((rows, columns))
    assert seen == {(60, 80), (100, 100)}


def test_the_same_generator_gives_the_same_sample():
    fields, crop = scene(), WeakCrop(64, [60, 120], 2560, 5)
    one, same, other = (crop(fields, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["image"], other["image"])


def test_crops_without_a_class_are_drawn_again():
    fields = scene()
    fields["label"] = np.full_like(fields["label"], IGNORE)
    assert WeakCrop(30, [120], 2560, 5)(fields, np.random.default_rng(0)) is None
    fields["label"][:40, :40] = 3  # a twelfth of the image
    for seed in range(20):
        made = WeakCrop(30, [120], 2560, 5)(fields, np.random.default_rng(seed))
        assert made["present"].tolist() == [0, 0, 0, 1, 0] and (made["label"] == 3).any()


def test_tags_are_present_whatever_the_crop_shows():
    fields = scene()
    fields["label"] = np.full_like(fields["label"], IGNORE)
    fields["label"][0, 0] = 1
    made = WeakCrop(120, [120], 2560, 5)(fields | {"tags": np.array([0, 0, 1, 0, 1], np.uint8)}, Fixed(0.0))
    assert made["present"].tolist() == [0, 1, 1, 0, 1]
    assert set(np.unique(made["label"])) == {1, IGNORE}
