from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from data.io import read_label
from data.weakshot.builder import WeakShotData
from tests.weakshot_data import BASE, NOVEL, TEST, TRAIN, UNLABELLED, make_ade, make_stuff, open_data
from utils.checkpoint import write_list
from utils.errors import UserError

KEPT = list(TRAIN)[:6]  # neither left out officially nor without a class


@pytest.fixture(scope="module")
def stuff(tmp_path_factory) -> Path:
    return make_stuff(tmp_path_factory.mktemp("stuff"))


@pytest.fixture(scope="module")
def ade(tmp_path_factory) -> Path:
    return make_ade(tmp_path_factory.mktemp("ade"))


def ids(data: WeakShotData) -> list[str]:
    return [image.sample.id for image in data.known]


def first_batch(source, epoch: int = 0) -> dict:
    return next(source.epoch(epoch, range(1)))


def test_classes_and_images_of_coco_stuff(stuff, tmp_path):
    data = open_data(stuff, tmp_path)
    assert data.num_classes == 171 and len(data.novel) == 43 and set(NOVEL) < set(data.novel)
    assert data.groups.order == tuple(range(171)) and not set(data.base) & set(data.novel)
    assert ids(data) == KEPT
    assert [set(np.flatnonzero(row)) for row in data.presence] == [set(TRAIN[name]) for name in KEPT]
    assert data.output_classes({})[3] == (3, "motorcycle")


def test_ade20k_has_no_background_and_keeps_its_numbers(ade, tmp_path):
    data = open_data(ade, tmp_path, dataset="ade", background="ignore")
    assert data.num_classes == 150 and len(data.novel) == 38
    assert data.output_classes({})[0] == (1, "wall")  # train id 0 is number 1 in the masks
    assert len(data.known) == 7 and set(np.flatnonzero(data.presence[2])) == {0, 3, 6}
    batch = first_batch(data.source(7))
    assert set(np.unique(batch["label"])) <= {0, 1, 2, 3, 6, 10, UNLABELLED}


def test_a_background_may_be_a_base_class(voc, tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/classes.yaml").write_text("[background, disc, square, bar, dot]")
    (tmp_path / "shapes/two.yaml").write_text("novel: [bar, dot]")
    options = {"dataset": str(tmp_path / "shapes"), "split": "two", "train_list": "trainaug"}
    data = open_data(voc, tmp_path, **options)
    assert data.names[0] == "background" and data.base == (0, 1, 2) and data.novel == (3, 4)
    without = open_data(voc, tmp_path, background="ignore", **options)
    assert without.names == ["disc", "square", "bar", "dot"] and without.novel == (2, 3)


def test_a_batch(stuff, tmp_path):
    """Novel pixels are in the label, whose classes are those of the crop."""
    data = open_data(stuff, tmp_path)
    batch = first_batch(data.source(6))
    assert batch["image"].shape == (6, 3, 32, 32) and batch["label"].shape == batch["padding"].shape == (6, 32, 32)
    assert all(batch[name].dtype == torch.uint8 for name in ("image", "label", "padding", "present"))
    assert batch["present"].shape == (6, 171)
    for label, padding, present in zip(batch["label"], batch["padding"], batch["present"], strict=True):
        assert set(present.nonzero()[:, 0].tolist()) == set(label.unique().tolist()) - {UNLABELLED}
        assert (label[padding == 1] == UNLABELLED).all()
    assert set(NOVEL) & set(batch["label"].unique().tolist())


def test_batches_are_those_of_seed_and_epoch(stuff, tmp_path):
    def drawn(seed: int, epoch: int) -> dict:
        return first_batch(open_data(stuff, tmp_path, seed=seed).source(3, pairs=True), epoch)

    one, same, later, other = (drawn(*key) for key in ((1, 0), (1, 0), (1, 1), (2, 0)))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["image"], later["image"]) and not torch.equal(one["image"], other["image"])


def test_pairs_share_a_novel_class_and_are_augmented_apart(stuff, tmp_path):
    data = open_data(stuff, tmp_path)
    batch = first_batch(data.source(6, pairs=True))
    assert {name for name in batch if name.startswith("partner_")} == {
        f"partner_{name}" for name in batch if "partner" not in name
    }
    for one, other in zip(batch["index"].tolist(), batch["partner_index"].tolist(), strict=True):
        shared = set(TRAIN[KEPT[one]]) & set(TRAIN[KEPT[other]])
        assert shared & set(NOVEL) or KEPT[one].endswith(("04", "05"))  # 4 is alone with class 10, 5 has no novel class
        assert one != other or KEPT[one].endswith("04")
    alone = batch["index"].tolist().index(KEPT.index("COCO_train2014_000000000005"))
    assert not torch.equal(batch["image"][alone], batch["partner_image"][alone])


def test_with_tags_no_pixel_of_a_novel_mask_is_read(stuff, tmp_path):
    data = open_data(stuff, tmp_path, tags="image")
    batch = first_batch(data.source(6, pairs=True))
    for prefix in ("", "partner_"):
        assert set(batch[f"{prefix}label"].unique().tolist()) <= {*BASE, UNLABELLED}
        for index, label, present in zip(
            *(batch[prefix + name] for name in ("index", "label", "present")), strict=True
        ):
            novel = set(TRAIN[KEPT[index]]) & set(NOVEL)  # of the whole image, whatever the crop shows
            shown = set(label.unique().tolist()) - {UNLABELLED}
            assert set(present.nonzero()[:, 0].tolist()) == novel | shown


def test_tags_of_a_file_stand_in_for_masks(stuff, tmp_path):
    """The third image has no mask; the tags of the first name another novel class than its mask shows."""
    root = make_stuff(tmp_path / "own")
    (root / "annotations" / f"{KEPT[2]}.mat").unlink()
    rows = [f"{KEPT[0]},6;person", f"{KEPT[2]},motorcycle;bicycle", f"{KEPT[3]},10"]
    (tmp_path / "tags.csv").write_text("\n".join(rows))
    data = open_data(root, tmp_path, tags=str(tmp_path / "tags.csv"))
    assert [set(image.classes) for image in data.known] == [{0, 6}, {1}, {1, 3}, {2, 10}, {0, 1}, {2}]
    assert [image.has_mask for image in data.known] == [True, True, False, True, True, True]
    batch = first_batch(data.source(6))
    row = batch["index"].tolist().index(2)
    assert (batch["label"][row] == UNLABELLED).all() and batch["present"][row].nonzero()[:, 0].tolist() == [1, 3]
    assert data.pseudo_quality(tmp_path).keys() == {"images"}
    (tmp_path / "tags.csv").write_text(f"{KEPT[0]},motorcycle\n")
    with pytest.raises(
        UserError, match=rf"tags\.csv: image '{KEPT[2]}' has no tags there, and no mask below data\.root"
    ):
        open_data(root, tmp_path, tags=str(tmp_path / "tags.csv")).source(2)
    (tmp_path / "tags.csv").write_text(f"{KEPT[0]},motorcylce\n")
    with pytest.raises(UserError, match=rf"image '{KEPT[0]}': unknown class 'motorcylce' .*did you mean 'motorcycle'"):
        open_data(root, tmp_path, tags=str(tmp_path / "tags.csv")).source(2)


@pytest.mark.parametrize("by_file", [False, True])
def test_images_with_novel_classes_may_have_tags_alone(stuff, tmp_path, by_file):
    tags = tmp_path / "tags.yaml"
    tags.write_text("".join(f"{name}: {list(TRAIN[name])}\n" for name in KEPT))
    data = open_data(stuff, tmp_path, tags=str(tags) if by_file else "image", masks="base")
    assert {image.sample.id for image in data.known if image.has_mask} == {KEPT[4]}  # the only one without
    assert [set(np.flatnonzero(row)) for row in data.presence] == [set(TRAIN[name]) for name in KEPT]
    assert all((image.sample.load_label() == UNLABELLED).all() for image in data.known if not image.has_mask)
    batch = first_batch(data.source(6))
    assert set(NOVEL) & set(np.flatnonzero(batch["present"].any(0))) and batch["present"][:, 0].any()


def test_masks_may_be_those_of_a_list(voc, tmp_path):
    """Background is no tag: an image without a mask is not known to show it."""
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/classes.yaml").write_text("[background, disc, square, bar, dot]")
    (tmp_path / "shapes/two.yaml").write_text("novel: [bar, dot]")
    write_list(tmp_path / "lists/masked.txt", ["t001", "t002"])
    options = {"dataset": str(tmp_path / "shapes"), "split": "two", "train_list": "trainaug", "tags": "image"}
    data = open_data(voc, tmp_path, lists=tmp_path / "lists", masks="masked", **options)
    assert [image.sample.id for image in data.known if image.has_mask] == ["t001", "t002"]
    assert data.presence[:4].tolist() == [[0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_the_upper_bound_sees_every_mask(stuff, tmp_path):
    batch = first_batch(open_data(stuff, tmp_path, tags="image").supervised_source(6))
    assert set(NOVEL) & set(batch["label"].unique().tolist())


def labelled(data: WeakShotData, folder: Path, network: Path) -> Path:
    """Pseudo-labels that are right but for the upper left corner, where class 10 is predicted."""
    with data.pseudo_labels(folder).writing({"network": network}, {}) as add:
        for index, image in enumerate(data.known):
            prediction = data.label_map()(image.sample.load_label()).copy()
            prediction[:8, :8] = 10
            add(data.pseudo_label(index, prediction))
    return folder


def test_pseudo_labels_are_written_scored_and_learned_from(stuff, tmp_path):
    (tmp_path / "network").write_text("weights")
    data = open_data(stuff, tmp_path, tags="image")
    folder = labelled(data, tmp_path / "pseudo", tmp_path / "network")
    truth = data.known[3].sample.load_label()
    corner = np.zeros_like(truth, bool)
    corner[:8, :8] = True
    found = read_label(folder / f"{KEPT[3]}.png")
    assert np.array_equal(found, np.where(corner & (truth == UNLABELLED), 10, truth))  # class 10 is in this image
    assert np.array_equal(read_label(folder / f"{KEPT[0]}.png"), data.known[0].sample.load_label())
    assert data.pseudo_quality(folder)["miou"] == 1
    batch = first_batch(data.retraining_source(folder, 6))
    assert set(NOVEL) & set(batch["label"].unique().tolist())


def test_pseudo_labels_of_an_image_without_mask_are_scored_by_its_mask(stuff, tmp_path):
    """What is predicted stands in it, base classes of its tags, too."""
    (tmp_path / "network").write_text("weights")
    data, seen = (open_data(stuff, tmp_path, tags="image", masks=masks) for masks in ("base", "all"))
    with data.pseudo_labels(tmp_path / "pseudo").writing({"network": tmp_path / "network"}, {}) as add:
        for index, image in enumerate(seen.known):
            add(data.pseudo_label(index, seen.label_map()(image.sample.load_label())))
    found = data.pseudo_quality(tmp_path / "pseudo")
    assert found["miou"] == 1 and found["images"] == 6


def test_quality_of_pseudo_labels_counts_missed_pixels(stuff, tmp_path):
    """All novel pixels missed: base classes are perfect, novel ones 0, and no pixel goes to another class."""
    (tmp_path / "network").write_text("weights")
    data = open_data(stuff, tmp_path)
    with data.pseudo_labels(tmp_path / "pseudo").writing({"network": tmp_path / "network"}, {}) as add:
        for index, image in enumerate(data.known):
            add(data.pseudo_label(index, np.full_like(image.sample.load_label(), 170)))
    found = data.pseudo_quality(tmp_path / "pseudo")
    assert found["base_miou"] == 1 and found["novel_miou"] == 0 and found["miou"] == pytest.approx(3 / 6)
    truth = [image.sample.load_label() for image in data.known]
    base = sum(int(np.isin(label, BASE).sum()) for label in truth)
    assert found["pixel_accuracy"] == pytest.approx(base / sum(int((label != UNLABELLED).sum()) for label in truth))


def test_a_missing_pseudo_label_or_another_split_is_an_error(stuff, tmp_path):
    (tmp_path / "network").write_text("weights")
    data = open_data(stuff, tmp_path)
    folder = labelled(data, tmp_path / "pseudo", tmp_path / "network")
    with pytest.raises(UserError, match=r"pseudo: pseudo-labels of split=split1 \(43: .* but split=split2 has 43: "):
        open_data(stuff, tmp_path, split="split2").retraining_source(folder, 2)
    (folder / f"{KEPT[1]}.png").unlink()
    with pytest.raises(UserError, match=rf"{KEPT[1]}\.png: no such file; 1 of 6 images have no pseudo-label"):
        data.retraining_source(folder, 2)
    with pytest.raises(UserError, match=r"none/manifest\.json: missing or incomplete"):
        data.retraining_source(tmp_path / "none", 2)


class Identity(nn.Module):
    def normalize(self, images):
        return images

    def forward(self, images):
        return images


def test_networks_are_scored_at_the_size_of_the_files(stuff, tmp_path):
    data = open_data(stuff, tmp_path)
    sizes = []

    def decide(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        sizes.append((tuple(images.shape[2:]), size))
        return torch.zeros(1, *size, dtype=torch.long)

    run = SimpleNamespace(device=torch.device("cpu"), autocast=lambda: torch.autocast("cpu", enabled=False))
    metrics = data.protocol().score(Identity(), run, decide)
    truth = [data.protocol().images.native(index) for index in range(len(TEST))]
    assert [size for _, size in sizes] == [label.shape for label in truth]
    assert all(min(shape) == 32 for shape, _ in sizes)
    person, pixels = sum(int((t == 0).sum()) for t in truth), sum(int((t != UNLABELLED).sum()) for t in truth)
    assert metrics["base_miou"] == pytest.approx(person / pixels / 3) and metrics["novel_miou"] == 0
    assert metrics["protocol"] == "shorter side 32, image size"


def test_a_network_of_other_classes_is_refused(stuff, tmp_path):
    data = open_data(stuff, tmp_path)
    network = SimpleNamespace(path=Path("x.pth"), num_outputs=150, classes=[])
    with pytest.raises(
        UserError, match=r"x\.pth: 150 outputs, of other classes than data\.dataset=cocostuff10k has \(171\)"
    ):
        data.evaluation(network)
    own = data.output_classes({})
    assert data.evaluation(SimpleNamespace(path=Path("x.pth"), num_outputs=171, classes=own)).about == {"images": 3}


def test_nothing_to_train_on(stuff, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("COCO_train2014_000000000008\n")
    with pytest.raises(UserError, match=r"data\.train_list=train: none of its 1 images shows a class of the split"):
        open_data(stuff, tmp_path, lists=tmp_path / "lists").source(2)
