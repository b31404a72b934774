import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

from data.transforms import STRONG, TrainTransform, ValTransform, WeakStrongTransform, color_jitter
from tests import synthetic

GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "discovery" / "c13_transforms.npz")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Fixed:
    """A generator that returns given numbers."""

    def __init__(self, *values: float):
        self.values = iter(values)

    def random(self) -> float:
        return next(self.values)


def golden_fields() -> dict[str, np.ndarray]:
    return {"image": GOLDEN["image"], "label": GOLDEN["label"]}


def share_close(a: np.ndarray, b: np.ndarray, tolerance: float) -> float:
    return float((abs(a.astype(float) - b.astype(float)) <= tolerance).mean())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_train_transform_equals_the_official_code(seed):
    made = TrainTransform(512)(golden_fields(), np.random.RandomState(seed))
    assert made["image"].shape == (512, 512, 3) and made["label"].shape == (512, 512)
    # cubic kernels differ a little between OpenCV versions
    assert share_close(made["image"][::8, ::8], GOLDEN[f"aug_seed{seed}_image_s8"], 2) >= 0.99
    assert share_close(made["label"][::4, ::4], GOLDEN[f"aug_seed{seed}_label_s4"], 0) >= 0.995
    mean = ((made["image"] / 255 - MEAN) / STD).mean((0, 1))
    assert mean == pytest.approx(GOLDEN[f"aug_seed{seed}_norm_mean"], abs=0.01)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_flip_angle_and_scale_are_drawn_in_the_official_order(seed, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        TrainTransform, "_warp", lambda self, name, values, *drawn_now: drawn.setdefault(name, drawn_now) and values
    )
    TrainTransform(8)(golden_fields(), np.random.RandomState(seed))
    assert drawn["image"] == drawn["label"] == pytest.approx(tuple(GOLDEN[f"aug_seed{seed}_flip_rot_scale"]))


def test_validation_transform_equals_the_official_code():
    made = ValTransform(512)(golden_fields(), None)
    expected = (GOLDEN["val_image_s8"].transpose(1, 2, 0) * STD + MEAN) * 255
    assert share_close(made["image"][::8, ::8], expected, 2.01) >= 0.99
    assert share_close(made["label"][::4, ::4], GOLDEN["val_label_s4"], 0) >= 0.995


def test_identity_when_nothing_is_drawn():
    """No flip, angle 0, scale 1, same size: the input itself."""
    rng = np.random.default_rng(0)
    fields = {
        "image": rng.integers(0, 256, (32, 32, 3), np.uint8),
        "label": rng.integers(0, 22, (32, 32), np.uint8),
    }
    made = TrainTransform(32)(fields, Fixed(0.9, 0.5, 0.5))
    assert all(np.array_equal(made[name], fields[name]) for name in fields)
    flipped = TrainTransform(32)(fields, Fixed(0.1, 0.5, 0.5))
    assert all(np.array_equal(flipped[name], fields[name][:, ::-1]) for name in fields)


def test_turn_is_counter_clockwise_and_scale_is_about_the_centre():
    label = np.zeros((100, 100), np.uint8)
    label[45:55, 85:95] = 1  # right of the centre, 40 pixels away
    made = TrainTransform(100)({"label": label}, Fixed(0.9, 1 - 1e-12, 0))["label"]  # +5 degrees, scale 0.75
    y, x = np.argwhere(made == 1).mean(0)
    radius = 0.75 * np.hypot(89.5 - 50, 49.5 - 50)
    assert (x - 50, 50 - y) == pytest.approx((radius * np.cos(np.radians(5)), radius * np.sin(np.radians(5))), abs=0.6)


def test_border_is_background_or_ignore_in_labels_alone():
    ones = np.ones((40, 60), np.uint8)
    fields = {"image": np.full((40, 60, 3), 9, np.uint8), "label": ones, "pseudo": ones, "saliency": ones}
    small = Fixed(0.9, 0.5, 0.0), Fixed(0.9, 0.5, 0.0)  # scale 0.75: a border all around
    official = TrainTransform(48)(fields, small[0])
    assert all(official[name][0, 0].max() == 0 and official[name][24, 24].max() > 0 for name in fields)
    ignoring = TrainTransform(48, border="ignore")(fields, small[1])
    assert {name: int(ignoring[name][0, 0].max()) for name in fields} == {
        "image": 0, "label": 255, "pseudo": 255, "saliency": 0,
    }  # fmt: skip
    assert np.array_equal(ignoring["image"], official["image"])
    assert set(np.unique(ignoring["label"])) == {1, 255}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 70), st.integers(5, 70), st.integers(4, 64))
def test_all_maps_move_alike_and_make_no_new_values(seed, height, width, size):
    label = np.random.default_rng(seed).choice(np.array([0, 3, 20, 255], np.uint8), (height, width))
    fields = {"image": np.repeat(label[..., None], 3, axis=2), "label": label, "saliency": label, "pseudo": label}
    made = TrainTransform(size)(fields, np.random.default_rng(seed))
    assert all(values.shape[:2] == (size, size) and values.dtype == np.uint8 for values in made.values())
    assert np.array_equal(made["label"], made["saliency"]) and np.array_equal(made["label"], made["pseudo"])
    assert set(np.unique(made["label"])) <= {0, 3, 20, 255}
    assert np.array_equal(fields["label"], label)


def test_image_and_label_stay_aligned():
    """A white square and its mask under the same geometry differ only at the outline."""
    label = np.zeros((300, 400), np.uint8)
    label[80:200, 120:300] = 1
    fields = {"image": np.repeat(255 * label[..., None], 3, axis=2), "label": label}
    for seed in range(5):
        made = TrainTransform(256)(fields, np.random.default_rng(seed))
        bright = made["image"][..., 0] > 127
        differ = cv2.erode((bright != (made["label"] == 1)).astype(np.uint8), np.ones((3, 3), np.uint8))
        assert not differ.any()


def test_jitter_equals_torchvision_given_its_order_and_factors():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    # ranks of the first four draws: contrast, hue, brightness, saturation
    draws = Fixed(0.5, 0.1, 0.9, 0.3, 0.25, 1.0, 0.0, 0.75)
    expected = TF.adjust_contrast(Image.fromarray(image), 0.75)
    expected = TF.adjust_hue(expected, 0.25)
    expected = TF.adjust_brightness(expected, 0.5)
    expected = TF.adjust_saturation(expected, 1.25)
    assert np.array_equal(color_jitter(image, draws), np.asarray(expected))


def test_jitter_ranges_are_those_of_torchvision():
    reference = ColorJitter(0.5, 0.5, 0.5, 0.25)
    ranges = [reference.brightness, reference.contrast, reference.saturation, reference.hue]
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    for end in (0, 1):
        expected = Image.fromarray(image)
        for change, limits in zip(changes, ranges, strict=True):
            expected = change(expected, limits[end])
        draws = Fixed(0.1, 0.2, 0.3, 0.4, *[float(end)] * 4)
        assert np.array_equal(color_jitter(image, draws), np.asarray(expected))


def test_jitter_order_is_uniform(monkeypatch):
    seen = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        change = lambda picture, _, name=name: seen.append(name) or picture  # noqa: E731
        monkeypatch.setattr(f"data.transforms.adjust_{name}", change)
    rng, image, rounds = np.random.default_rng(0), np.zeros((1, 1, 3), np.uint8), 2400
    for _ in range(rounds):
        color_jitter(image, rng)
    orders, counts = np.unique(np.array(seen).reshape(rounds, 4), axis=0, return_counts=True)
    assert len(orders) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 52  # chi-square with 23 degrees of freedom, p 0.0005


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth colours, as photographs have them."""
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("seed", range(4))
def test_fast_jitter_is_a_few_grey_levels_off(seed):
    """The same draws, in the same order; colours as saturated as these are the worst case."""
    image = photograph(seed, 40, 60)
    official, fast = (color_jitter(image, np.random.default_rng(seed), STRONG, way) for way in ("official", "fast"))
    off = np.abs(official.astype(int) - fast)
    assert 0 < off.mean() < 2 and np.percentile(off, 99) < 12


@pytest.mark.parametrize("seed", range(4))
def test_fast_warp_has_the_same_geometry(seed):
    """The border of a label moves by at most one pixel; colours of a smooth image change little."""
    image, label = photograph(seed, 90, 130), np.zeros((90, 130), np.uint8)
    label[:, 70:] = 9
    official, fast = (
        TrainTransform(160, "ignore", way)({"image": image, "label": label}, np.random.default_rng(seed))
        for way in ("official", "fast")
    )
    differ = (official["label"] != fast["label"]).astype(np.uint8)
    assert not cv2.erode(differ, np.ones((4, 4), np.uint8)).any()
    inside = cv2.erode((official["label"] != 255).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert inside.any() and np.abs(official["image"].astype(int) - fast["image"])[inside].mean() < 2


def test_strong_view_shares_the_geometry():
    fields = golden_fields()
    weak = TrainTransform(64)(fields, np.random.default_rng(3))
    both = WeakStrongTransform(64)(fields, np.random.default_rng(3))
    assert both.keys() == {"image", "label", "strong"}
    assert all(np.array_equal(weak[name], both[name]) for name in weak)
    assert both["strong"].shape == (64, 64, 3) and not np.array_equal(both["strong"], both["image"])
    rng = np.random.default_rng(3)
    rng.random(3)
    assert np.array_equal(both["strong"], color_jitter(both["image"], rng))


# ---- the linear probe of MaskContrast has the same transforms

PROBE = Path(__file__).parents[1] / "fixtures" / "contrast"
PROBE_CASES = json.loads((PROBE / "g6_seg_tf.json").read_text())


@pytest.mark.parametrize("name", PROBE_CASES)
def test_probe_transforms_equal_the_official_code(name):
    case, arrays = PROBE_CASES[name], np.load(PROBE / "g6_seg_tf.npz")
    fields = {
        "image": synthetic.picture(case["pic_seed"], case["h"], case["w"]),
        "label": synthetic.label(case["lab_seed"], case["h"], case["w"]),
    }
    assert [int(fields[key].sum()) for key in fields] == [case["input_image_sum"], case["input_label_sum"]]
    train = name.startswith("train")
    transform = TrainTransform(512) if train else ValTransform(512)
    made = transform(fields, np.random.RandomState(case.get("numpy_seed", 0)))
    image = ((made["image"] / 255 - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(image[:, ::23, ::23], arrays[f"{name}_image"], atol=0.09 if train else 0.02)
    assert image.mean() == pytest.approx(case["image"]["mean"], abs=1e-3)
    assert np.array_equal(made["label"][::5, ::5], arrays[f"{name}_lab"])
    values, counts = np.unique(made["label"], return_counts=True)
    assert {str(v): int(c) for v, c in zip(values, counts, strict=True)} == case["label_hist"]
