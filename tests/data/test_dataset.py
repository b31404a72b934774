from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.dataset import Draw, SegmentationDataset
from data.io import read_image, read_label, write_label
from data.label_map import LabelMap
from data.layouts import Sample, index_samples
from data.transforms import TrainTransform, ValTransform, WeakStrongTransform
from utils.errors import UserError

MAP = LabelMap.from_pairs({0: 0, 1: 1, 2: 2, 3: 0, 4: 0})
FIELDS = ("image", "label", "saliency")


@pytest.fixture
def samples(voc) -> list[Sample]:
    return index_samples(voc, [f"t{i:03d}" for i in range(6)], fields=FIELDS)


@pytest.fixture
def wide(tmp_path) -> Sample:
    """One image of 200x120 pixels: a bright box with label 1."""
    label = np.zeros((120, 200), np.uint8)
    label[30:80, 51:152] = 1
    Image.fromarray(np.repeat(255 * label[..., None], 3, axis=2)).save(tmp_path / "w.jpg", quality=100)
    write_label(tmp_path / "w.png", label)
    return Sample("w", tmp_path / "w.jpg", label=tmp_path / "w.png")


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_a_sample_by_hand(samples):
    item = SegmentationDataset(samples, FIELDS, transform=ValTransform(20), label_map=MAP)[2]
    assert item.keys() == {"image", "label", "saliency", "index", "size"}
    assert item["index"] == 2 and item["size"].tolist() == [40, 40]
    image = cv2.resize(read_image(samples[2].image), (20, 20), interpolation=cv2.INTER_CUBIC)
    assert item["image"].dtype == torch.uint8 and item["image"].is_contiguous()
    assert np.array_equal(item["image"].permute(1, 2, 0), image)
    raw = read_label(samples[2].label)
    assert 3 in raw  # class 3 becomes background here
    expected = cv2.resize(np.where(raw == 3, 0, raw), (20, 20), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(item["label"], expected) and item["label"].dtype == torch.uint8
    assert item["label"][0, 0] == 255 and item["saliency"].max() == 1  # saliency is not re-indexed


def test_labels_stay_raw_without_a_map(samples):
    item = SegmentationDataset(samples, ("image", "label"), transform=ValTransform(40))[2]
    assert np.array_equal(item["label"], read_label(samples[2].label))
    assert "saliency" not in item


def test_pseudo_labels_have_a_map_of_their_own(samples):
    pseudo = [replace(sample, pseudo=sample.label) for sample in samples]
    to_five = LabelMap.from_pairs({0: 0, 1: 5, 2: 5, 3: 5, 4: 5})
    dataset = SegmentationDataset(
        pseudo, ("image", "label", "pseudo"), transform=ValTransform(40), label_map=MAP, pseudo_map=to_five
    )
    item = dataset[0]
    assert set(item["label"].unique().tolist()) == {0, 1, 255} and set(item["pseudo"].unique().tolist()) == {0, 5, 255}


def test_augmentation_is_decided_by_seed_epoch_cycle_and_index(samples):
    same = [samples[0]] * 3

    def image(draw, seed=0):
        return SegmentationDataset(same, ("image",), transform=TrainTransform(32), seed=seed)[draw]["image"]

    first = image(Draw(1, 2, 3))
    assert torch.equal(first, image(Draw(1, 2, 3)))
    assert torch.equal(image(1), image(Draw(1, 0, 0)))
    others = [image(Draw(0, 2, 3)), image(Draw(1, 3, 2)), image(Draw(1, 2, 0)), image(Draw(1, 2, 3), seed=1)]
    assert not any(torch.equal(first, other) for other in others)
    rng = np.random.default_rng([0, 2, 3, 1])
    by_hand = TrainTransform(32)({"image": read_image(samples[0].image)}, rng)["image"]
    assert np.array_equal(first.permute(1, 2, 0), by_hand)


def test_global_random_state_plays_no_part_and_is_left_alone(samples):
    dataset = SegmentationDataset(samples, ("image",), transform=WeakStrongTransform(32))
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = dataset[Draw(3, 1)]
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1)
    torch.manual_seed(1)
    assert equal(dataset[Draw(3, 1)], first)


def test_strong_view_is_a_tensor_like_the_image(samples):
    item = SegmentationDataset(samples, ("image",), transform=WeakStrongTransform(24))[0]
    assert item["strong"].shape == item["image"].shape == (3, 24, 24) and item["strong"].dtype == torch.uint8
    item["strong"][:] = 0  # own, writable memory
    assert item["image"].any()


def test_cache_gives_the_same_samples_and_reads_once(samples, monkeypatch):
    plain = SegmentationDataset(samples, FIELDS, transform=TrainTransform(24), label_map=MAP)
    cached = SegmentationDataset(samples, FIELDS, transform=TrainTransform(24), label_map=MAP, cache=True)
    draws = [Draw(1, 0), Draw(1, 1), Draw(2, 1), Draw(1, 0, 1)]
    expected = [plain[draw] for draw in draws]
    reads = []
    monkeypatch.setattr("data.dataset.read_image", lambda path: reads.append(path) or read_image(path))
    made = [cached[draw] for draw in draws]
    assert all(equal(a, b) for a, b in zip(made, expected, strict=True))
    assert reads == [samples[1].image, samples[2].image]
    made[0]["label"][:] = 77  # what a batch does to its sample never reaches the memory
    assert equal(cached[draws[0]], expected[0])


def test_shrinking_keeps_aspect_size_and_alignment(wide):
    seen = []

    def keep(fields, rng):
        seen.append(fields)
        return fields

    item = SegmentationDataset([wide], ("image", "label"), transform=keep, max_side=50)[0]
    assert seen[0]["image"].shape == (30, 50, 3) and seen[0]["label"].shape == (30, 50)
    assert item["size"].tolist() == [120, 200]  # of the file
    bright = seen[0]["image"][..., 0] > 127
    # 51..151 of 200 is 12.75..37.75 of 50: the label must take the pixel whose centre it is
    assert np.array_equal(bright, seen[0]["label"] == 1)
    assert set(np.unique(seen[0]["label"])) == {0, 1}


def test_small_images_are_not_enlarged(wide):
    keep = SegmentationDataset([wide], ("image",), transform=lambda fields, rng: fields, max_side=200)
    assert keep[0]["image"].shape == (3, 120, 200)


def test_different_sizes_are_an_error_that_names_both_files(wide):
    write_label(wide.label, np.zeros((60, 100), np.uint8))
    with pytest.raises(UserError) as caught:
        SegmentationDataset([wide], ("image", "label"), transform=ValTransform(8))[0]
    message = str(caught.value)
    assert f"{wide.label}: 100x60" in message and str(wide.image) in message and "200x120" in message


def test_a_foreign_label_value_is_an_error_that_names_the_file(samples):
    no_four = LabelMap.from_pairs({0: 0, 1: 1, 2: 2, 3: 3})
    dataset = SegmentationDataset(samples, ("image", "label"), transform=ValTransform(8), label_map=no_four)
    assert dataset[2]["index"] == 2
    with pytest.raises(UserError, match=f"{samples[3].label}: label value 4 is not a class here; allowed: 0-3, 255"):
        dataset[3]


def test_iteration_ends(samples):
    dataset = SegmentationDataset(samples, ("image",), transform=ValTransform(8))
    assert len(dataset) == 6
    with pytest.raises(IndexError):
        dataset[6]


def test_real_images(voc_subset):
    ids = (voc_subset / "sets" / "val_mixed.txt").read_text().split()[::10]
    samples = index_samples(voc_subset, ids, fields=FIELDS)
    every = LabelMap.from_pairs({value: value for value in range(21)})
    dataset = SegmentationDataset(samples, FIELDS, transform=TrainTransform(128), label_map=every)
    for index, sample in enumerate(samples):
        item = dataset[index]
        with Image.open(sample.image) as image:
            assert item["size"].tolist() == [image.height, image.width]
            assert np.array_equal(read_image(sample.image), np.asarray(image.convert("RGB")))
        assert item["image"].shape == (3, 128, 128) and item["label"].shape == item["saliency"].shape == (128, 128)
        assert item["saliency"].max() <= 1
