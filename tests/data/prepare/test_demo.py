import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import load_split
from data.discovery.lists import load_lists
from data.io import read_image, read_label
from data.layouts import index_samples
from data.prepare import demo
from data.prepare.demo import DemoOptions, build_demo, draw_object, draw_scene, estimate_saliency, image_id
from data.prepare.demo_shapes import CLASSES, TEXTURES, texture
from data.source import DataContext
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError

SMALL = DemoOptions(train=40, val=20, size=64)
IDS = [image_id("train", i) for i in range(SMALL.train)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("built") / "new" / "demo"  # the parent folder does not exist either
    build_demo(root, SMALL, workers=2)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def scene(index: int, saliency_error: float = 0.25, **options) -> tuple[np.ndarray, ...]:
    """(image, label, saliency), as _draw_files makes them."""
    rng = np.random.default_rng([0, index])
    image, label, masks = draw_scene(rng, DemoOptions(size=64, **options), index % len(CLASSES))
    return image, label, estimate_saliency(rng, masks, saliency_error)


def known_iou(label: np.ndarray, saliency: np.ndarray) -> float:
    """IoU of saliency and objects where the label is not 255."""
    objects, found = label[label != 255] > 0, saliency[label != 255] > 0
    return np.count_nonzero(objects & found) / max(np.count_nonzero(objects | found), 1)


def test_bytes_do_not_depend_on_the_workers(root, tmp_path):
    build_demo(tmp_path / "demo", SMALL, workers=1)
    assert contents(tmp_path / "demo") == contents(root)


def test_an_image_depends_on_seed_part_and_index_alone(root, tmp_path):
    build_demo(tmp_path / "fewer", DemoOptions(train=3, val=2, size=64), workers=1)
    build_demo(tmp_path / "other", DemoOptions(train=3, val=2, size=64, seed=1), workers=1)
    whole, fewer, other = contents(root), contents(tmp_path / "fewer"), contents(tmp_path / "other")
    drawn = [name for name in fewer if name.startswith(("images", "Segmentation", "saliency"))]
    assert len(drawn) == 4 * 5
    assert all(fewer[name] == whole[name] for name in drawn)
    assert all(other[name] != fewer[name] for name in drawn if name.startswith("images"))
    assert whole["images/train_00000.jpg"] != whole["images/val_00000.jpg"]


def test_lists_and_folders_fit_each_other(root):
    assert (root / "sets/trainaug.txt").read_text().split() == IDS
    assert (root / "sets/val.txt").read_text().split() == [image_id("val", i) for i in range(SMALL.val)]
    for folder, suffix in (("images", ".jpg"), ("SegmentationClassAug", ".png"), ("saliency_supervised_model", ".png")):
        names = {path.name for path in (root / folder).iterdir()}
        assert len(names) == SMALL.train + SMALL.val
        assert names >= {f"{name}{suffix}" for name in IDS}
    assert {path.name for path in root.parent.iterdir()} == {"demo"}  # no temporary folder is left


def test_sizes_and_values(root):
    for sample in index_samples(root, IDS, fields=("image", "label", "saliency")):
        assert read_image(sample.image).shape == (64, 64, 3)
        label, saliency = read_label(sample.label), read_label(sample.saliency)
        assert label.shape == saliency.shape == (64, 64)
        assert set(np.unique(label)) <= {*range(len(CLASSES) + 1), 255} and 255 in label and 0 in label
        assert set(np.unique(saliency)) <= {0, 1}
    assert Image.open(sample.label).mode == "P"


def test_every_class_dominates_equally_many_images(root):
    labels = np.stack([read_label(root / f"SegmentationClassAug/{name}.png") for name in IDS])
    # the main object is in front, so its class is there in any case, and it is nearly always the largest
    assert all((label == i % len(CLASSES) + 1).sum() > 60 for i, label in enumerate(labels))
    areas = np.stack([(labels == c).sum((1, 2)) for c in range(1, len(CLASSES) + 1)], axis=1)
    assert np.mean(areas.argmax(1) == np.arange(len(IDS)) % len(CLASSES)) > 0.9
    assert DemoOptions().train >= 25 * len(CLASSES) and DemoOptions().train % len(CLASSES) == 0
    assert 0.3 < np.mean((areas > 0).sum(1) > 1) < 0.8  # about half of the images hold a second class


def test_border_by_hand():
    label = np.zeros((5, 6), np.uint8)
    label[:, 3:] = 7
    expected = np.zeros((5, 6), bool)
    expected[:, 2:4] = True  # one pixel on either side
    np.testing.assert_array_equal(demo._edges(label), expected)


def test_objects_never_touch_without_a_border(root):
    for name in IDS:
        label = read_label(root / f"SegmentationClassAug/{name}.png")
        straight = [(label[1:], label[:-1]), (label[:, 1:], label[:, :-1])]
        diagonal = [(label[1:, 1:], label[:-1, :-1]), (label[1:, :-1], label[:-1, 1:])]
        for a, b in straight + diagonal:
            assert not np.any((a != b) & (a != 255) & (b != 255))


def test_saliency_gets_worse_with_its_error():
    means = []
    for error in (0.0, 0.15, 0.5, 1.0):
        drawn = [scene(i, saliency_error=error) for i in range(60)]
        means.append(np.mean([known_iou(label, saliency) for _, label, saliency in drawn]))
    assert means[0] > 0.98
    assert means[0] - means[1] > 0.05 and means[1] - means[2] > 0.1 and means[2] - means[3] > 0.1


def test_saliency_without_error_is_the_union():
    square, disc = np.zeros((2, 64, 64), bool)
    square[8:30, 8:30] = True
    y, x = np.mgrid[:64, :64]
    disc = (x - 45) ** 2 + (y - 45) ** 2 < 120
    found = estimate_saliency(np.random.default_rng(0), [square, disc], 0.0) > 0
    union = square | disc
    assert np.count_nonzero(found != union) <= 8  # the corners are rounded
    assert found[20, 20] and found[45, 45] and not found[5, 5]


def test_saliency_misses_small_objects_more_often():
    small, main = np.zeros((2, 64, 64), bool)
    small[4:16, 4:16] = True
    main[30:60, 30:60] = True
    found = [estimate_saliency(np.random.default_rng(i), [small, main], 0.3) > 0 for i in range(200)]
    missed = [np.mean([np.mean(f[mask]) < 0.2 for f in found]) for mask in (small, main)]
    assert 0.3 < missed[0] < 0.6  # 1.5 x error, less what leaks cover
    assert 0.02 < missed[1] < 0.2  # a quarter of error, plus the largest cuts


def test_saliency_error_changes_the_saliency_only():
    clean, rough = scene(3, saliency_error=0.0), scene(3, saliency_error=0.8)
    np.testing.assert_array_equal(clean[0], rough[0])
    np.testing.assert_array_equal(clean[1], rough[1])
    assert np.any(clean[2] != rough[2])


def test_the_rough_maps_are_worse_ones_of_the_same_objects(root):
    scores = {"saliency_supervised_model": [], "saliency_rough": []}
    for name in IDS:
        label = read_label(root / f"SegmentationClassAug/{name}.png")
        for folder, found in scores.items():
            found.append(known_iou(label, read_label(root / f"{folder}/{name}.png")))
    fine, rough = (np.mean(found) for found in scores.values())
    assert 0.2 < rough < fine - 0.1


def hues(kind: int, spread: float) -> np.ndarray:
    """Distance of the median hue of 30 objects from the hue of their class, on a circle of length 1."""
    options, distances = DemoOptions(size=48, color_spread=spread), []
    for i in range(30):
        alpha, color = draw_object(np.random.default_rng(i), options, kind, np.array([24.0, 24.0]), 18.0)
        red, green, blue = np.median(color[alpha == 1], axis=0) / 255
        distances.append((colorsys.rgb_to_hsv(red, green, blue)[0] - kind * 0.618 + 0.5) % 1 - 0.5)
    return np.abs(distances)


def test_color_spread():
    for kind in (0, 5, 12):
        assert np.quantile(hues(kind, 0.0), 0.9) < 0.1
        assert 0.15 < hues(kind, 0.5).mean() < 0.35  # 0.25 when the hue says nothing


def test_texture_swap(monkeypatch):
    worn = []
    monkeypatch.setattr(demo, "texture", lambda kind, *rest: worn.append(kind) or texture(kind, *rest))
    names = [own for _, own in CLASSES.values()]
    for swap in (0.0, 0.5):
        options = DemoOptions(size=32, texture_swap=swap)
        for i in range(200):
            draw_object(np.random.default_rng(i), options, i % 20, np.array([16.0, 16.0]), 12.0)
    own = np.array([name == names[i % 20] for i, name in enumerate(worn)])
    assert own[:200].all()
    assert own[200:].mean() == pytest.approx(1 - 0.5 * (1 - 1 / len(TEXTURES)), abs=0.1)


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_are_patterns(kind):
    v, u = np.mgrid[-1:1:48j, -1:1:48j]
    pattern = texture(kind, u, v, np.random.default_rng(0))
    assert pattern.shape == (48, 48) and pattern.min() >= 0 and pattern.max() <= 1
    assert kind == "plain" or pattern.std() > 0.1


def test_class_files_name_the_drawn_classes(root):
    splits = [load_split(f"fold{fold}", "demo") for fold in range(4)]
    assert splits[0].classes == ("background", *CLASSES)
    assert [split.groups[1] for split in splits] == [tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)]
    for split in splits:
        data = {"dataset": "demo", "root": root, "train_list": "trainaug"}
        lists = load_lists(split, DataContext.open(DiscoveryConfig.model_validate({"data": data})))
        assert len(lists.novel) >= 10 and len(lists.base) >= 10 and not set(lists.novel) & set(lists.base)


def test_a_finished_set_is_left_alone(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    build_demo(root, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("changed", [{"seed": 1}, {"saliency_error": 0.2}, {"train": 41}])
def test_other_options_need_another_folder(root, changed):
    before = contents(root)
    with pytest.raises(UserError, match="other options; remove it or choose another"):
        build_demo(root, replace(SMALL, **changed))
    assert contents(root) == before


def test_a_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="not empty and not a demo set"):
        build_demo(tmp_path, SMALL)
    assert contents(tmp_path) == {"photo.jpg": b"mine"}


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    options, target = DemoOptions(train=2, val=1, size=32), tmp_path / "demo"
    target.mkdir()  # an empty folder is as good as none
    with monkeypatch.context() as broken:
        broken.setattr(demo, "write_list", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            build_demo(target, options, workers=1)
    assert list(tmp_path.iterdir()) == [target] and not any(target.iterdir())
    build_demo(target, options, workers=1)
    assert (target / "demo.json").is_file() and (target / "images/val_00000.jpg").is_file()
