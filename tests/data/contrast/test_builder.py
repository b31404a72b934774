"""Views of pre-training compared with the official code, and the choice of usable images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.contrast.builder import AREAS, ContrastData, TwoViews, can_be_valid, recolor
from data.dataset import ATTEMPTS, Draw, SegmentationDataset
from data.io import read_mask
from data.layouts import Sample
from models.trunks import build_backbone
from tests.conftest import make_voc
from utils.config.contrast import ContrastConfig
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contrast"
GOLDEN = json.loads((FIXTURES / "g6_pretrain_tf.json").read_text())
ARRAYS = np.load(FIXTURES / "g6_pretrain_tf.npz")


def picture(seed: int, height: int, width: int) -> np.ndarray:
    r = np.random.RandomState(seed)
    small = Image.fromarray((r.rand(12, 16, 3) * 255).astype(np.uint8))
    noise = r.randint(-20, 21, (height, width, 3))
    return np.clip(np.array(small.resize((width, height), Image.Resampling.BILINEAR)) + noise, 0, 255).astype(np.uint8)


def labels(seed: int, height: int, width: int) -> np.ndarray:
    r, made = np.random.RandomState(seed), np.zeros((height, width), np.uint8)
    for _ in range(5):
        y, x, value = r.randint(0, height - 20), r.randint(0, width - 20), r.randint(1, 21)
        rows, columns = r.randint(15, height // 2), r.randint(15, width // 2)
        made[y : y + rows, x : x + columns] = value
    made[height // 2 : height // 2 + 4] = 255
    return made


@pytest.mark.parametrize("name", ["c0", "c1", "c2"])
def test_a_view_is_that_of_the_official_code(name):
    case = GOLDEN[name]
    size = case["h"], case["w"]
    image, mask = picture(case["seed"], *size), labels(case["seed"] + 50, *size) > 0
    assert image.sum() == case["input_image_sum"]
    made = TwoViews(224).crop(
        {"image": image, "saliency": mask.astype(np.uint8)}, tuple(case["crop_top_left_h_w"]), case["flip"]
    )
    batch = torch.from_numpy(made["image"].transpose(2, 0, 1)[None].copy())
    normalised = build_backbone("resnet18", 8, "random").normalize(batch)[0]
    assert np.abs(normalised[:, ::7, ::7].numpy() - ARRAYS[f"{name}_image"]).max() < 0.02
    assert normalised.double().sum().item() == pytest.approx(case["image"]["sum"], abs=0.005 * normalised.numel())
    assert np.array_equal(np.packbits(made["saliency"].astype(bool)), ARRAYS[f"{name}_sal"])


# ---- masks


def test_masks_of_every_kind(tmp_path):
    """Ours is wider than the official reader, which takes 255 alone: the upper half of grey levels, and 1 among 0."""
    case = GOLDEN["sal_to_tensor"]
    values = np.array(case["values"], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(tmp_path / "rgb.png")
    Image.fromarray(values >= 128).save(tmp_path / "bits.png")
    Image.fromarray(np.where(values == 255, 255, 0).astype(np.uint8)).save(tmp_path / "official.png")
    Image.fromarray((values == 255).astype(np.uint8)).save(tmp_path / "ones.png")
    for name in ("grey", "rgb", "bits"):
        assert read_mask(tmp_path / f"{name}.png").tolist() == case["mode_1"]
    for name in ("official", "ones"):
        assert read_mask(tmp_path / f"{name}.png").tolist() == case["mode_L"]
    Image.fromarray(values.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="deep.png: .* at most 8 bits"):
        read_mask(tmp_path / "deep.png")


class Whole(TwoViews):
    """Without crops, so that the share of the object is that of the mask."""

    def draw(self, size, rng):
        return 0, 0, *size


def share_of(share: float, side: int = 100) -> np.ndarray:
    mask = np.zeros(side * side, np.uint8)
    mask[: round(share * side * side)] = 1
    return mask.reshape(side, side)


@pytest.mark.parametrize("share", GOLDEN["area_threshold"])
def test_shares_of_the_object_that_are_accepted(share):
    fields = {"image": np.zeros((100, 100, 3), np.uint8), "saliency": share_of(float(share))}
    made = Whole(100)(fields, np.random.default_rng(0))
    assert (made is not None) == (GOLDEN["area_threshold"][share] == "accepted")


def write_samples(folder: Path, shares: list[float]) -> list[Sample]:
    samples = []
    for index, share in enumerate(shares):
        sample = Sample(str(index), folder / f"{index}.jpg", saliency=folder / f"{index}.png")
        Image.fromarray(np.full((20, 20, 3), 10 * index, np.uint8)).save(sample.image)
        Image.fromarray(share_of(share, 20)).save(sample.saliency)
        samples.append(sample)
    return samples


def paired(samples: list[Sample], size: int, transform=TwoViews) -> SegmentationDataset:
    return SegmentationDataset(samples, ("image", "saliency"), transform=transform(size), mask_rule="any")


def test_another_image_takes_the_place_of_one_that_is_refused(tmp_path):
    dataset = paired(write_samples(tmp_path, [0.005, 0.5, 0.99, 0.995]), 20, Whole)  # a file without any is refused
    for index, expected in ((int(key), case["returned"]) for key, case in GOLDEN["rejection"].items() if key.isdigit()):
        assert dataset[index]["index"] == expected
    calls, plain = [], dataset.transform
    dataset.transform = lambda fields, rng: calls.append(fields["image"][0, 0, 0]) or plain(fields, rng)
    _ = dataset[0]
    assert calls[:3] == [0, 0, 0] and calls[-1] in (9, 10, 11)  # the grey of image 1


def test_a_list_without_valid_views_is_an_error_not_an_endless_loop(tmp_path):
    dataset = paired(write_samples(tmp_path, [0.005, 0.995]), 20, Whole)
    with pytest.raises(UserError, match=f"none of {ATTEMPTS} draws"):
        _ = dataset[0]


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_what_can_never_be_valid_is_never_accepted(seed, share):
    mask = share_of(share, 30)
    fields = {"image": np.zeros((30, 30, 3), np.uint8), "saliency": mask}
    rng = np.random.default_rng(seed)
    if any(TwoViews(64)(fields, rng) for _ in range(5)):
        assert can_be_valid(mask)


def test_masks_that_can_be_valid_by_hand():
    least = 0.01 * AREAS[0]
    assert [can_be_valid(share_of(s, 1000)) for s in (0, 0.9 * least, 1.1 * least, 1 - 1.1 * least, 1)] == [
        *(False, False, True, True, False)
    ]


# ---- views


def test_views_are_two_and_share_geometry_with_their_masks():
    """Red where the mask is, before colours change: the crop and flip of a view are those of its mask."""
    mask = np.zeros((60, 80), np.uint8)
    mask[15:45, 10:50] = 1
    image = np.where(mask[..., None] == 1, np.uint8([255, 0, 0]), np.uint8([0, 0, 0]))
    views = TwoViews(48)(dict(image=image, saliency=mask), np.random.default_rng(3))
    assert set(views) == {"key", "key_saliency", "query", "query_saliency"}
    for name in ("key", "query"):
        assert views[name].shape == (48, 48, 3) and views[name].dtype == np.uint8
        assert ((views[name].max(2) > 60) == views[f"{name}_saliency"]).mean() > 0.95
    assert not np.array_equal(views["key_saliency"], views["query_saliency"])


def test_colours_change_as_often_as_published():
    rng, image = np.random.default_rng(0), picture(0, 8, 8)
    made = [recolor(image, rng) for _ in range(400)]
    gray = np.mean([np.array_equal(view[..., 0], view[..., 2]) for view in made])
    same = np.mean([np.array_equal(view, image) for view in made])
    assert gray == pytest.approx(0.2, abs=0.05) and same == pytest.approx(0.2 * 0.8, abs=0.05)
    assert np.array_equal(image, picture(0, 8, 8))  # the cached original is left alone


def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path):
    samples = write_samples(tmp_path, [0.3, 0.5, 0.4])
    one, two = paired(samples, 16), paired(samples, 16)
    _ = two[Draw(1, 5)]
    first, again, later = one[Draw(2, 4)], two[Draw(2, 4)], one[Draw(2, 5)]
    assert all(torch.equal(first[key], again[key]) for key in ("key", "query", "query_saliency"))
    assert not torch.equal(first["query"], later["query"])


# ---- lists


def config(root: Path, **data) -> ContrastConfig:
    return ContrastConfig(data={"root": root, "image_size": 32, "workers": 0, **data}, training={"batch_size": 4})


def test_images_without_a_usable_mask_are_left_out(tmp_path):
    root = make_voc(tmp_path, train=6, val=2)
    folder = root / "saliency_supervised_model"
    (folder / "t000.png").unlink()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "t001.png")
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "t002.png")
    (folder / "v000.png").unlink()
    views = ContrastData.open(config(root))
    assert [s.id for s in views.train_samples] == ["t003", "t004", "t005"]
    assert [s.id for s in views.val_samples] == ["v001"]
    (batch,) = views.source("train").epoch(0, range(1))
    assert batch["key"].shape == (4, 3, 32, 32) and batch["query_saliency"].unique().tolist() == [0, 1]
    with pytest.raises(UserError, match=r"t000.png: no such file"):
        ContrastData.open(config(root, missing="error"))


def test_official_rule_takes_255_alone(tmp_path):
    """The official loader treats objects of value 254 and 1 as background."""
    root = make_voc(tmp_path, train=4, val=1)
    for name, value in (("t000", 255), ("t001", 254)):  # the other masks hold 0 and 1
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 10:30] = value
        Image.fromarray(mask).save(root / "saliency_supervised_model" / f"{name}.png")
    assert len(ContrastData.open(config(root)).train_samples) == 4
    views = ContrastData.open(config(root, mask_rule="official"))
    assert [s.id for s in views.train_samples] == ["t000"]


def test_another_folder_of_masks(tmp_path):
    root = make_voc(tmp_path, train=3, val=1)
    (root / "saliency_supervised_model").rename(root / "mine")
    assert len(ContrastData.open(config(root, saliency_folder="mine")).train_samples) == 3
    with pytest.raises(UserError, match="no folder 'saliency_unsupervised_model'"):
        ContrastData.open(config(root, saliency_folder="saliency_unsupervised_model"))


def test_nothing_to_train_on_is_said_at_once(tmp_path):
    root = make_voc(tmp_path, train=2, val=1)
    for path in (root / "saliency_supervised_model").glob("t*.png"):
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    with pytest.raises(UserError, match="none of its 2 images has an object mask"):
        ContrastData.open(config(root))
    (root / "sets" / "val.txt").unlink()  # no list, no validation
    with pytest.raises(UserError, match="none of its 2 images"):
        ContrastData.open(config(root))


def test_real_masks(voc_subset):
    views = ContrastData.open(config(voc_subset))
    assert 0.9 < len(views.train_samples) / 463 <= 1 and views.val_samples
    (batch,) = views.source("train").epoch(0, range(1))
    assert (batch["query_saliency"].float().mean((1, 2)) > 0.01).all()
