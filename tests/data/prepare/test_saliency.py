"""Post-processing compared with the official code, the estimator without a network, and folders of maps."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import prepare_data
from data.io import read_label, read_mask, write_grey
from data.prepare.saliency import BATCH, estimate_folder, object_mask, spectral, spectral_object, spectral_residual
from models.saliency.estimator import NETWORKS
from utils.checkpoint import read_json, read_list
from utils.errors import UserError
from utils.run import guarded

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contrast"
CASES = json.loads((FIXTURES / "g5_salpost.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_official_masks(name):
    height, width = CASES[name]["shape"]
    with np.load(FIXTURES / "g5_salpost.npz") as file:
        packed = {kind: file[f"{kind}_{name}"] for kind in ("in", "out") if f"{kind}_{name}" in file}
    bits = {kind: np.unpackbits(value)[: height * width].reshape(height, width) for kind, value in packed.items()}
    # a half is background, whatever is above it foreground
    mask = object_mask(np.where(bits["in"], 0.5 + 1e-6, 0.5))
    if CASES[name]["result"] == "None":
        assert mask is None
    else:
        assert np.array_equal(mask, 255 * bits["out"])


def test_a_small_hole_takes_its_rim_along():
    probability = np.zeros((40, 50), np.float32)
    probability[5:30, 5:40] = 1
    probability[10:12, 10:12] = 0  # with its rim 12 of 2000 pixels, under 1 %
    expected = np.where(probability > 0, 255, 0)
    expected[9:13, 9:13] = [[255, 0, 0, 255], [0] * 4, [0] * 4, [255, 0, 0, 255]]  # a contour cuts corners
    assert np.array_equal(object_mask(probability), expected)
    probability[10:16, 10:16] = 0  # over 1 %: stays as it is
    assert np.array_equal(object_mask(probability), np.where(probability > 0, 255, 0))


@given(arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_post_processing_only_removes(binary):
    mask = object_mask(binary.astype(np.float32))
    if mask is None:
        assert binary.mean() < 0.01 or binary.size > 100  # up to 100 pixels, each is 1 %
    else:
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
        assert not (mask[~binary]).any() and np.count_nonzero(mask) >= 0.01 * mask.size
        assert binary.size > 100 or np.array_equal(mask > 0, binary)


def disc(height: int = 90, width: int = 120, radius: int = 22) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2
    image = rng.integers(60, 90, (height, width, 3))
    image[inside] += (120, 20, 0)
    return image.astype(np.uint8), inside


def test_object_on_a_plain_ground_is_found():
    image, inside = disc()
    residual = spectral_residual(image)
    assert residual.shape == (48, 64) and residual.dtype == np.float32
    found = spectral_object(image)
    assert found.shape == inside.shape and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    mask = object_mask(found) > 0
    assert (mask & inside).sum() / (mask | inside).sum() > 0.9
    with ThreadPoolExecutor(2) as pool:
        assert all(np.array_equal(again, found) for again in spectral([image] * 3, pool))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 40), (300, 2), (7, 7)])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_any_picture_has_a_map(shape, kind):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = spectral_object({"black": 0 * noise, "white": 0 * noise + 255, "noise": noise}[kind])
    assert found.shape == shape and np.isfinite(found).all()


@pytest.fixture
def photos(tmp_path):
    """Ten discs, the third without an object, and one in a PNG."""
    for number in range(10):
        image, _ = disc(60, 80 + number, 20)
        suffix = "png" if number == 9 else "jpg"
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image if number != 2 else 0 * image).save(tmp_path / "photos" / f"p{number}.{suffix}")
    return tmp_path / "photos"


def bright(images, pool):
    """An estimator that says how red a pixel is."""
    return [np.float32(image[..., 0]) / 255 for image in images]


def test_a_folder_of_masks(photos, tmp_path):
    to = tmp_path / "new" / "maps"
    assert estimate_folder(photos, to, bright, raw=False, settings={"model": "red"}, workers=2) == (9, 1)
    names = {path.name for path in to.iterdir()}
    assert names == {*(f"p{i}.png" for i in range(10) if i != 2), "no_mask.txt", "overview.jpg", "saliency.json"}
    assert read_list(to / "no_mask.txt") == ["p2"]
    with Image.open(to / "p9.png") as file:
        assert file.mode == "L" and file.size == (89, 60)
    image, inside = disc(60, 89, 20)
    assert np.array_equal(read_mask(to / "p9.png", "official"), inside) and np.array_equal(
        read_mask(to / "p9.png"), inside
    )
    with Image.open(to / "overview.jpg") as picture:
        assert picture.width > 8 * 240 and picture.height > 3 * 240


def test_raw_maps_are_grey_and_complete(photos, tmp_path):
    to = tmp_path / "maps"
    assert estimate_folder(photos, to, bright, raw=True, settings={}, workers=1) == (10, 0)
    assert np.array_equal(read_label(to / "p9.png"), disc(60, 89, 20)[0][..., 0]) and not (to / "no_mask.txt").exists()


def test_a_stopped_folder_goes_on(photos, tmp_path):
    to, seen = tmp_path / "maps", []

    def failing(images, pool):
        seen.append(len(images))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return bright(images, pool)

    with pytest.raises(KeyboardInterrupt):
        estimate_folder(photos, to, failing, raw=False, settings={}, workers=1)
    assert read_list(to / "no_mask.txt") == ["p2"] and len(list(to.glob("*.png"))) == BATCH - 1
    write_grey(to / "p0.png", np.full((60, 80), 7, np.uint8))
    assert estimate_folder(photos, to, failing, raw=False, settings={}, workers=1) == (9, 1)
    assert seen == [BATCH, 2, 2]  # the image without an object is not tried again
    assert read_label(to / "p0.png")[0, 0] == 7  # what is there is kept
    assert estimate_folder(photos, to, failing, raw=False, settings={}, workers=1) == (9, 1) and len(seen) == 3


def test_maps_of_two_kinds_do_not_mix(photos, tmp_path):
    to = tmp_path / "maps"
    estimate_folder(photos, to, bright, raw=False, settings={"model": "red"}, workers=1)
    for raw, model, named in ((True, "red", "raw=False, now it is True"), (False, "blue", "model=red, now it is blue")):
        with pytest.raises(UserError, match=f"--to .*maps: holds maps made with {named}; choose another folder"):
            estimate_folder(photos, to, bright, raw=raw, settings={"model": model}, workers=1)
    with pytest.raises(UserError, match="the folder of the images themselves"):
        estimate_folder(photos, photos, bright, raw=False, settings={}, workers=1)
    for name in ("p0.png", "overview.jpg"):  # neither taken for a map that is done, nor replaced
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / name)
        with pytest.raises(UserError, match="pictures that were not made here"):
            estimate_folder(photos, tmp_path / name, bright, raw=False, settings={}, workers=1)
        assert len(list((tmp_path / name).iterdir())) == 1


def run(*arguments) -> int:
    return guarded(prepare_data.main, ["saliency", *map(str, arguments)])


def test_the_command_without_weights(voc, tmp_path, capfd):
    to = tmp_path / "maps"
    assert run("--images", voc / "images", "--to", to, "--model", "spectral", "--workers", 2) == 0
    out, err = capfd.readouterr()
    masks = list(to.glob("*.png"))
    assert f"{to}: {len(masks)} maps, {60 - len(masks)} images without an object" in out and not err
    assert read_json(to / "saliency.json") == {"model": "spectral", "weights": None, "raw": False}
    overlaps = [np.mean(read_mask(m) == read_mask(voc / "saliency_supervised_model" / m.name)) for m in masks]
    assert len(masks) >= 55 and np.mean(overlaps) > 0.8


def test_the_command_with_a_network(photos, tmp_path):
    torch.manual_seed(0)
    torch.save(NETWORKS["u2netp"]().state_dict(), tmp_path / "u2netp.pth")
    for path in sorted(photos.iterdir())[1:]:
        path.unlink()
    where = ("--images", photos, "--to", tmp_path / "maps", "--model", "u2netp", "--device", "cpu", "--raw")
    assert run(*where, "--weights", tmp_path / "u2netp.pth") == 0
    values = read_label(tmp_path / "maps" / "p0.png")
    assert values.shape == (60, 80) and np.ptp(values) > 200
    assert len(read_json(tmp_path / "maps" / "saliency.json")["weights"]) == 64


def test_wrong_input_is_one_line(photos, tmp_path, capfd):
    def error(*arguments) -> str:
        assert run(*arguments) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1, err
        return err

    where = ("--images", photos, "--to", tmp_path / "maps")
    assert "--model u2net: needs --weights FILE" in error(*where)
    assert "--model spectral has none" in error(*where, "--model", "spectral", "--weights", photos / "p0.jpg")
    assert "none: no such image or folder" in error("--images", tmp_path / "none", *where[2:], "--model", "spectral")
    assert "no image in these folders; expected one of .jpg" in error(
        "--images", tmp_path, *where[2:], "--model", "spectral"
    )
    assert not (tmp_path / "maps").exists()
    (photos / "p3.jpg").write_bytes(b"no image")
    assert "p3.jpg: not a readable image" in error(*where, "--model", "spectral")
    (photos / "p3.png").write_bytes(b"")
    assert "two images are called 'p3'" in error(*where, "--model", "spectral")
