import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from data.crops import CentreCrop, ResizedCrop, ScaleBlurCrop, ScaleCrop, ShorterSide, blurred, padding
from utils.resize import resize_box, resize_shorter, shorter_to

FIXTURES = Path(__file__).parents[1] / "fixtures" / "incremental"
GOLDEN = np.load(FIXTURES / "transforms.npz")
MINI = np.load(FIXTURES / "minivoc.npz")
CASES = json.loads((FIXTURES / "transforms_index.json").read_text())


def fields_of(name: str) -> dict[str, np.ndarray]:
    image = np.asarray(Image.open(io.BytesIO(MINI[f"jpeg/{name}"].tobytes())).convert("RGB"))
    return {"image": image, "label": MINI[f"mask/{name}"], "saliency": MINI[f"saliency/{name}"]}


def close(found: np.ndarray, expected: np.ndarray, tolerance: int) -> bool:
    return bool((abs(found.astype(int) - expected.astype(int)) <= tolerance).all())


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "train"], ids=lambda c: str(c["n"]))
def test_scaled_crop_is_that_of_the_official_code(case):
    fields, n = fields_of(case["image"]), case["n"]
    scaled = tuple(int(side * case["scale"]) for side in fields["image"].shape[:2])
    pad, _ = padding(scaled, case["crop"])
    crop = ScaleCrop(case["crop"])
    made = {
        name: crop.crop(name, values, scaled, case["i"] - pad, case["j"] - pad, case["flip"])
        for name, values in fields.items()
    }
    assert close(made["image"].transpose(2, 0, 1), GOLDEN[f"img_{n}"], 1)
    assert np.array_equal(made["label"], GOLDEN[f"lbl_{n}"])
    assert np.array_equal(made["saliency"] > 0, GOLDEN[f"sal_{n}"] > 0)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "val"], ids=lambda c: str(c["n"]))
def test_evaluation_crop_is_that_of_the_official_code(case):
    made, n = CentreCrop(case["crop"])(fields_of(case["image"]), None), case["n"]
    assert np.array_equal(made["image"].transpose(2, 0, 1), GOLDEN[f"img_{n}"])
    assert np.array_equal(made["label"], GOLDEN[f"lbl_{n}"])


def pil_centre(values: np.ndarray, size: int, mode: Image.Resampling) -> np.ndarray:
    """Reference by PIL alone: resizes the whole image, then crops the central square."""
    height, width = values.shape[:2]
    short = min(height, width)
    rows, columns = int(size * height / short), int(size * width / short)
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    resized = Image.fromarray(values).resize((columns, rows), mode)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def both_fields(seed: int, height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, (height, width, *rest), np.uint8) for name, rest in (("image", [3]), ("label", []))
    }


def is_pil_centre(seed: int, height: int, width: int, size: int) -> bool:
    fields = both_fields(seed, height, width)
    made = CentreCrop(size)(fields, None)
    modes = {"image": Image.Resampling.BILINEAR, "label": Image.Resampling.NEAREST}
    return all(np.array_equal(made[name], pil_centre(fields[name], size, mode)) for name, mode in modes.items())


@pytest.mark.parametrize("size", [257, 513])
@pytest.mark.parametrize("shape", [(500, 333), (333, 500), (640, 480), (480, 640), (513, 513), (500, 113)])
def test_evaluation_crop_is_pil_to_the_last_digit_on_photographs(shape, size):
    assert is_pil_centre(0, *shape, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 160), st.integers(4, 160), st.integers(3, 130))
def test_evaluation_crop_is_pil_to_the_last_digit(seed, height, width, size):
    assert is_pil_centre(seed, height, width, size)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 160), st.integers(8, 160), st.floats(0.5, 2.0))
def test_scaled_crop_is_pil_to_a_grey_level(seed, height, width, scale):
    fields, scaled = both_fields(seed, height, width), (int(height * scale), int(width * scale))
    pad, (rows, columns) = padding(scaled, 40)
    top, left = (rows - 40) // 2 - pad, (columns - 40) // 2 - pad
    crop = ScaleCrop(40)
    modes = {"image": (Image.Resampling.BILINEAR, 1), "label": (Image.Resampling.NEAREST, 0)}
    for name, (mode, tolerance) in modes.items():
        made = crop.crop(name, fields[name], scaled, top, left, flip=False)
        whole = Image.fromarray(fields[name]).resize(scaled[::-1], mode)
        assert close(made, np.asarray(whole.crop((left, top, left + 40, top + 40))), tolerance)


def test_padding_by_hand():
    assert padding((70, 80), 65) == (0, (70, 80))
    assert padding((80, 60), 65) == (3, (86, 66))  # (1 + 65 - 60) // 2 on all sides
    assert padding((50, 60), 65) == (3 + 5, (66, 76))  # 3 for the width; then (1 + 65 - 56) // 2


class Fixed:
    def __init__(self, *values: float):
        self.values = iter(values)

    def random(self) -> float:
        return next(self.values)


def test_draws_in_order_scale_row_column_flip():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    label = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60).astype(np.uint8)
    made = ScaleCrop(32)({"image": image, "label": label}, Fixed(1 / 3, 0.5, 0.999, 0.9))  # scale 1
    assert np.array_equal(made["image"], image[4:36, 28:60]) and np.array_equal(made["label"], label[4:36, 28:60])
    flipped = ScaleCrop(32)({"image": image, "label": label}, Fixed(1 / 3, 0.5, 0.999, 0.4))
    assert np.array_equal(flipped["label"], label[4:36, 28:60][:, ::-1])
    exact = ScaleCrop(40)({"image": image[:, :40], "label": label[:, :40]}, Fixed(1 / 3, 0.9))  # nothing to draw
    assert np.array_equal(exact["image"], image[:, :40])


def test_padding_is_black_background():
    ones = np.ones((20, 20), np.uint8)
    made = ScaleCrop(33)(
        {"image": np.full((20, 20, 3), 9, np.uint8), "label": ones, "saliency": ones}, Fixed(0.0, 0.5, 0.5, 0.9)
    )
    assert all(made[name].shape[:2] == (33, 33) and made[name][0, 0].max() == 0 for name in made)
    assert made["label"].sum() == 10 * 10


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from([ScaleCrop, ResizedCrop, CentreCrop]),
)
def test_fields_move_alike_and_make_no_new_values(seed, height, width, kind):
    label = np.random.default_rng(seed).choice(np.array([0, 3, 255], np.uint8), (height, width))
    fields = {"image": np.repeat(label[..., None], 3, axis=2), "label": label, "saliency": label}
    made = kind(33)(fields, np.random.default_rng(seed))
    assert all(values.shape[:2] == (33, 33) and values.dtype == np.uint8 for values in made.values())
    assert np.array_equal(made["label"], made["saliency"]) and set(np.unique(made["label"])) <= {0, 3, 255}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 200), st.integers(8, 200))
def test_resized_crops_fit_and_keep_their_ratio(seed, height, width):
    top, left, h, w = ResizedCrop(8).draw((height, width), np.random.default_rng(seed))
    assert 0 <= top <= height - h and 0 <= left <= width - w
    assert (
        0.5 * height * width * 0.8 <= h * w
        or w / h == pytest.approx(4 / 3, abs=0.15)
        or h / w == pytest.approx(4 / 3, abs=0.15)
    )


def test_whole_image_with_its_shorter_side_at_a_size():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    assert np.array_equal(resize_shorter(image, 60), image)
    assert resize_shorter(image, 33).shape == (33, 49, 3)
    assert resize_shorter(image, 33, divisor=32).shape == (32, 64, 3)
    expected = np.asarray(Image.fromarray(image).resize((64, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_shorter(image, 33, divisor=32), expected)


# ---- zero-shot segmentation

ZS3 = np.load(FIXTURES.parent / "zeroshot" / "transforms.npz")
SIDE, MEAN, STD = 96, np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalized(image: np.ndarray) -> np.ndarray:
    return ((image / 255 - MEAN) / STD).transpose(2, 0, 1)


def zs3_fields(number: int) -> dict[str, np.ndarray]:
    return {"image": ZS3[f"img_{number}"], "label": ZS3[f"lab_{number}"]}


class Drawn:
    """Returns numbers in [0, 1) that reproduce the draws of the official code."""

    def __init__(self, trace: np.ndarray):
        flip, short, width, height, left, top, blur, radius = trace.tolist()
        low, high = SIDE // 2, 2 * SIDE
        places = [(at, max(side, SIDE) - SIDE) for at, side in ((left, width), (top, height))]
        self.values = iter(
            [
                0.25 if flip else 0.75,
                (short - low + 0.5) / (high - low + 1),
                *((at + 0.5) / (room + 1) for at, room in places if room),
                0.25 if blur else 0.75,
                radius,
            ]
        )

    def random(self) -> float:
        return next(self.values)


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("number", range(3))
def test_zero_shot_training_crop_is_that_of_the_official_code(number, draw):
    made = ScaleBlurCrop(SIDE)(zs3_fields(number), Drawn(ZS3[f"trace_{number}_{draw}"]))
    assert np.array_equal(made["label"], ZS3[f"tr_lab_{number}_{draw}"])
    assert made["image"].shape == (SIDE, SIDE, 3) and made["image"].dtype == np.uint8
    difference = normalized(made["image"])[:, ::9, ::9] - ZS3[f"tr_img_sub_{number}_{draw}"]
    assert np.abs(difference).max() < 0.02


@pytest.mark.parametrize("number", range(4))
def test_zero_shot_evaluation_is_that_of_the_official_code(number):
    made = ShorterSide(SIDE)(zs3_fields(number), None)
    assert made["image"].transpose(2, 0, 1).shape == tuple(ZS3[f"val_shape_{number}"])
    assert np.array_equal(made["label"], ZS3[f"val_lab_{number}"])
    difference = normalized(made["image"])[:, ::7, ::7] - ZS3[f"val_img_sub_{number}"]
    assert np.abs(difference).max() < 0.02


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.45, 0.99])
def test_blur_is_that_of_pil(radius):
    image = ZS3["img_3"]
    expected = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    difference = np.abs(blurred(image, radius).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_sizes_and_places_of_the_zero_shot_crop_are_uniform():
    """All shorter sides of 4..16 and all corners are equally likely."""
    image = np.zeros((8, 8, 3), np.uint8)
    label = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rng, sides, inside = np.random.default_rng(0), [], 0
    for _ in range(2600):
        made = ScaleBlurCrop(8, blur=False)({"image": image, "label": label}, rng)
        kept = int((made["label"] != 255).any(0).sum())
        sides.append(kept)
        inside += kept == 8
    counts = np.bincount(sides, minlength=9)
    assert counts[:4].sum() == 0 and inside == pytest.approx(2600 * 9 / 13, rel=0.1)
    assert counts[4:8] == pytest.approx(200, rel=0.3)  # 4, 5, 6, 7 of the thirteen sides need padding


def test_padding_is_black_and_ignored():
    image, label = np.full((8, 16, 3), 200, np.uint8), np.ones((8, 16), np.uint8)
    values = iter([0.75, 0.0, 0.0])  # no flip, half the size: 4 x 8, no room to move in
    small = ScaleBlurCrop(8, blur=False)(
        {"image": image, "label": label}, type("R", (), {"random": lambda _: next(values)})()
    )
    assert (small["label"][:4] == 1).all() and (small["label"][4:] == 255).all()
    assert (small["image"][:4] == 200).all() and (small["image"][4:] == 0).all()


@pytest.mark.parametrize("shorter", [160, 300, 431, 624])
def test_a_box_of_the_resized_image_is_that_of_all_of_it(shorter):
    image = np.asarray(Image.fromarray(ZS3["img_3"]).resize((500, 375)))
    size = shorter_to(image.shape[:2], shorter)
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    rows, columns = (slice(side // 5, side // 5 + min(side // 2, 312)) for side in size)
    difference = np.abs(resize_box("image", image, size, rows, columns) - whole[rows, columns])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02
    label = image[..., 0]
    expected = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))[rows, columns]
    assert np.array_equal(resize_box("label", label, size, rows, columns), expected)


@pytest.mark.parametrize(("make", "seed"), [(ScaleCrop, 0), (ScaleCrop, 3), (ScaleBlurCrop, 1), (ResizedCrop, 2)])
def test_fast_crops_have_the_same_place_and_labels(make, seed):
    """Labels are equal; colours differ by one level when enlarging, by more when shrinking."""
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(few, (130, 90), interpolation=cv2.INTER_LINEAR)
    fields = {"image": image, "label": (image[..., 0] > 127).astype(np.uint8)}
    official, fast = (make(64, way)(fields, np.random.default_rng(seed)) for way in ("official", "fast"))
    assert np.array_equal(official["label"], fast["label"])
    off = np.abs(official["image"].astype(int) - fast["image"])
    assert off.mean() < 1 and np.percentile(off, 99) <= 4
