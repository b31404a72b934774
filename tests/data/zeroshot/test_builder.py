from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from data.classes import load_split
from data.io import read_label, write_label
from data.zeroshot.builder import ZeroShotData
from tests.zeroshot_data import SBD, make_context, make_voc_sbd, save_image, scene, write_labels
from utils.checkpoint import write_list
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError

VOC_ORDER = (10, 14, 1, 18, 8, 20, 19, 5, 9, 16)  # the paper's: K takes the first K
CONTEXT_ORDER = (10, 14, 18, 8, 4, 32, 3, 20, 1, 38)
KS = (2, 4, 6, 8, 10)


def open_data(root: Path, out: Path, split: str = "unseen2", **keys) -> ZeroShotData:
    data = {"dataset": "pascal", "root": root, "image_size": 32, "workers": 0} | keys.pop("data", {})
    tree = {"system": "zs3", "split": split, "output_dir": out, "data": data} | keys
    return ZeroShotData.open(ZeroShotConfig.model_validate(tree))


def ids(images) -> list[str]:
    return [image.sample.id for image in images]


# ---- classes


@pytest.mark.parametrize(("dataset", "order"), [("pascal", VOC_ORDER), ("context", CONTEXT_ORDER)])
@pytest.mark.parametrize("k", KS)
def test_unseen_classes_of_the_paper(dataset, order, k):
    split = load_split(f"unseen{k}", dataset)
    assert split.groups[1] == tuple(sorted(order[:k]))
    assert len(split.groups[0]) == len(split.classes) - 1 - k


def test_train_ids_are_the_numbers_in_the_masks(tmp_path):
    data = open_data(make_voc_sbd(tmp_path / "voc"), tmp_path, "unseen4")
    assert data.groups.order == tuple(range(21)) and data.num_classes == 21 and data.names[11] == "diningtable"
    assert data.unseen == (1, 10, 14, 18) and data.seen[:3] == (0, 2, 3) and len(data.seen) == 17
    values = np.array([[0, 10, 20, 255]], np.uint8)
    assert data.label_map()(values).tolist() == [[0, 10, 20, 255]]
    assert data.label_map(strict=True)(values).tolist() == [[0, 255, 20, 255]]


def test_without_background_its_pixels_are_ignored(tmp_path):
    data = open_data(make_voc_sbd(tmp_path / "voc"), tmp_path, "15-5", data={"background": "ignore"})
    assert data.num_classes == 20 and data.names[0] == "aeroplane" and data.unseen == (15, 16, 17, 18, 19)
    assert data.seen == tuple(range(15)) and data.embeddings.shape == (20, 300)
    assert data.label_map()(np.array([[0, 1, 20, 255]], np.uint8)).tolist() == [[255, 0, 19, 255]]


def test_coco_stuff_leaves_out_what_no_mask_holds(tmp_path):
    (tmp_path / "images").mkdir()
    data = open_data(tmp_path, tmp_path, "156-15", data={"dataset": "cocostuff"})
    assert (data.num_classes, len(data.unseen), len(data.seen)) == (171, 15, 156)
    assert data.groups.order[:12] == (*range(11), 12)  # 11 is the street sign
    assert data.embeddings.shape == (171, 300) and data.embeddings.norm(dim=1).allclose(torch.tensor(1.0), atol=1e-4)
    assert data.label_map()(np.array([[0, 11, 12, 181, 255]], np.uint8)).tolist() == [[0, 255, 11, 170, 255]]


def test_classes_of_ones_own(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "own.yaml").write_text("[coin, star, sun]")
    demo = {"dataset": "demo"}
    assert open_data(tmp_path, tmp_path, data=demo).own_classes() is None
    names, vectors, known = open_data(tmp_path, tmp_path, data=demo, classes=tmp_path / "own.yaml").own_classes()
    assert (
        names == ["coin", "sun"] and vectors.shape == (2, 64) and known.shape == (21, 64)
    )  # the star is a class already
    for text, message in (
        ("[star]", r"own\.yaml: the data set has all of these classes; name others"),
        ("coin: 1", r"own\.yaml: no list of names; expected a list of new class names, each once"),
        ("[coin, coin]", "'coin' occurs twice"),
        ("[coin, canoe]", "no vector for 1 of 23 names: 'canoe'"),
    ):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            open_data(tmp_path, tmp_path, data=demo, classes=tmp_path / "own.yaml").own_classes()


# ---- VOC and SBD

IMAGES = {
    "train": {"a": (1,), "b": (10,), "c": (10, 2), "d": (15,)},
    "sbd": {"e": (3,), "b": (10,), "c": (2,), "a": (4,), "v": (5,), "f": (14,)},  # v is in the val list
    "val": {"v": (5,), "w": (10,)},
}


@pytest.fixture
def voc(tmp_path) -> Path:
    return make_voc_sbd(tmp_path / "voc", IMAGES)


def with_sbd(voc: Path, tmp_path: Path, **keys) -> ZeroShotData:
    return open_data(voc, tmp_path / "out", data={"use_sbd": True}, **keys)


def test_sbd_merge_by_hand(voc, tmp_path):
    """VOC first, its masks preferred; what VOC's mask excludes comes back when SBD's shows no unseen class."""
    data = with_sbd(voc, tmp_path)
    assert ids(data.train_images) == ["a", "b", "c", "d", "e", "f"]
    assert ids(data.seen_images) == ["a", "d", "e", "c"] and ids(data.unseen_images) == ["b", "c", "f"]
    sources = [image.sample.label.suffix for image in data.seen_images]
    assert sources == [".png", ".png", ".mat", ".mat"]
    assert data.seen_images[2].sample.image.parent == voc / SBD / "img"
    label = data.step1_images(train=False)[3]["label"].numpy()
    assert set(np.unique(label)) == {0, 2}  # SBD's mask of c, which has no border
    assert with_sbd(voc, tmp_path, split="unseen10").seen_images


def test_every_split_keeps_the_images_without_its_classes(tmp_path):
    voc, sbd = make_voc_sbd(tmp_path / "voc"), {"2007_000001": (15,)}
    for k in KS:
        data, unseen = open_data(voc, tmp_path, f"unseen{k}", data={"use_sbd": True}), set(VOC_ORDER[:k])
        train = [name for name in ids(data.train_images) if name[:4] == "2007"]
        assert len(train) == 25 and len(data.train_images) == 45
        shown = {name: {int(name[5:]), 15} if int(name[5:]) <= 20 else {2, 15} for name in train}
        kept = [name for name in train if not shown[name] & unseen]
        back = [name for name in sbd if name not in kept]  # SBD shows the person alone
        assert [name for name in ids(data.seen_images) if name[:4] == "2007"] == kept + back
        assert len(data.seen_images) == len(kept) + len(back) + 20 - k
    assert len(open_data(voc, tmp_path, "unseen2", run={"dry": True}, data={"use_sbd": True}).train_images) == 45


def test_steps_and_their_labels(voc, tmp_path):
    data = with_sbd(voc, tmp_path)
    sizes = [len(source.loader.dataset) for source in (data.step1_source(2), data.step2_source(2))]
    assert sizes == [4, 6]
    assert (data.step1_source(2).batches.key, data.step2_source(2).batches.key) != (None, None)
    batch = next(data.step2_source(6).epoch(0, range(1)))
    assert batch["image"].shape == (6, 3, 32, 32) and batch["label"].shape == (6, 32, 32)
    assert str(batch["label"].dtype) == "torch.uint8"
    strict = with_sbd(voc, tmp_path, strict_unseen=True)
    assert ids(strict.seen_images) == ids(data.seen_images) and len(strict.step2_source(2).loader.dataset) == 4


def test_pseudo_labels_stand_in_for_masks_with_an_unseen_class(voc, tmp_path):
    data = with_sbd(voc, tmp_path)
    samples, loader = data.pseudo_label_images()
    assert [sample.id for sample in samples] == ["b", "c", "f"] and all(sample.label is None for sample in samples)
    batches = list(loader)
    assert [batch["image"].shape[2:] for batch in batches] == [scene(n, ())[1].shape for n in (1, 2, 5)]
    assert "label" not in batches[0]
    (tmp_path / "network").write_text("weights")
    with data.pseudo_labels(tmp_path / "pseudo").writing({"network": tmp_path / "network"}, {}) as add:
        for sample, batch in zip(samples, batches, strict=True):
            values = torch.full(batch["image"].shape[2:], 255, dtype=torch.uint8)
            values[8:] = 14
            made = data.pseudo_label(sample, (values, {14: 0.5}), torch.full_like(values, 0.75, dtype=torch.float32))
            assert made.confidence == 0.75 and made.about == {"lowest": {data.names[14]: 0.5}}
            add(made)
    dataset = data.step3_source(tmp_path / "pseudo", 2).loader.dataset
    assert [sample.id for sample in dataset.samples] == ["a", "b", "c", "d", "e", "f"]
    for index, found in enumerate([{0, 1, 255}, {14, 255}, {14, 255}, {0, 15, 255}, {0, 3}, {14, 255}]):
        assert set(np.unique(dataset.native(index))) == found
    (tmp_path / "pseudo" / "c.png").unlink()
    with pytest.raises(
        UserError, match=r"pseudo/c\.png: no such file; 1 of 3 images have no pseudo-label; run: python train_zer"
    ):
        data.step3_source(tmp_path / "pseudo", 2)


def test_masks_are_read_once(voc, tmp_path, monkeypatch):
    assert ids(with_sbd(voc, tmp_path).seen_images) == ["a", "d", "e", "c"]
    monkeypatch.setattr("data.lists.values_of", lambda *_: pytest.fail("a mask was read again"))
    assert len(with_sbd(voc, tmp_path, split="unseen10").train_images) == 6
    monkeypatch.undo()
    write_label(voc / "SegmentationClass" / "d.png", np.full((3, 3), 10, np.uint8))
    assert ids(with_sbd(voc, tmp_path).seen_images) == ["a", "e", "c"]


def test_official_lists_ship(tmp_path):
    for folder in ("JPEGImages", f"{SBD}/cls", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    data = open_data(tmp_path, tmp_path / "out", data={"use_sbd": True})
    with pytest.raises(UserError, match=r"2007_000032\.jpg: no such file"):  # the first of VOC's 1464
        _ = data.train_images


def test_validation_is_whole_and_holds_every_class(voc, tmp_path):
    data = with_sbd(voc, tmp_path)
    protocol = data.protocol()
    assert protocol.name == "shorter side 32" and len(protocol.images) == 2
    assert protocol.spec.groups == {"seen": data.seen, "unseen": (10, 14)} and protocol.spec.num_outputs == 21
    batch = next(iter(protocol.loader))
    assert min(batch["image"].shape[2:]) == 32 and batch["image"].shape[2:] == batch["label"].shape[1:]
    assert len(data.step1_protocol().images) == 2
    assert len(open_data(voc, tmp_path, data={"step1_val": "seen"}).step1_protocol().images) == 1
    assert protocol.classes({})[10] == (10, "cow")


def network(**values) -> SimpleNamespace:
    return SimpleNamespace(**{"path": Path("x.pth"), "num_outputs": 21, "classes": [], **values})


def test_evaluation_at_its_own_size(voc, tmp_path):
    data = open_data(voc, tmp_path, evaluation={"size": 24})
    protocol = data.evaluation(network())
    assert (protocol.name, protocol.stage, protocol.native) == ("shorter side 24", "zs3", False)
    assert min(next(iter(protocol.loader))["image"].shape[2:]) == 24
    assert open_data(voc, tmp_path, evaluation={"native": True}).evaluation(network()).name == "image size"
    own = [*data.output_classes({}), (21, "zebra")]
    more = data.evaluation(network(num_outputs=22, classes=own))
    assert more.spec.num_outputs == 22 and more.classes({})[-1] == (21, "zebra")
    with pytest.raises(
        UserError, match=r"x\.pth: 60 outputs, of other classes than data.dataset=pascal .* \(21\)"
    ) as e:
        data.evaluation(network(num_outputs=60, classes=[(0, "background"), (1, "bag")]))
    assert "\n" not in str(e.value)


def test_a_network_of_another_split_is_refused(voc, tmp_path):
    data, theirs = open_data(voc, tmp_path, "unseen4"), {"split": "unseen2", "data": {"dataset": "pascal"}}
    with pytest.raises(
        UserError, match=r"x\.pth: trained with split=unseen2, unseen cow, motorbike; but split=unseen4"
    ):
        data.check_split(Path("x.pth"), theirs)
    (tmp_path / "same.yaml").write_text("unseen: [sofa, 1, 14, cow]")
    for fits in ({"split": str(tmp_path / "same.yaml")}, {"split": "gone.yaml"}):
        data.check_split(Path("x.pth"), theirs | fits)
    data.check_split(Path("x.pth"), {})  # an official file


def test_photographs_in_a_folder_of_their_own(voc, tmp_path):
    (voc / "JPEGImages").rename(tmp_path / "photographs")
    data = open_data(voc, tmp_path, data={"images": tmp_path / "photographs"})
    assert data.train_images[0].sample.image == tmp_path / "photographs" / "a.jpg"
    with pytest.raises(UserError, match="data.images=.*none: no such folder"):
        open_data(voc, tmp_path, data={"images": tmp_path / "none"})


# ---- Pascal-Context


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Path:
    return make_context(tmp_path_factory.mktemp("context"))


def context_data(root: Path, out: Path, split: str = "unseen2", **data) -> ZeroShotData:
    return open_data(root, out, split, data={"dataset": "context", "step1_val": "seen", **data})


@pytest.mark.parametrize("k", KS)
def test_context_filters_both_of_its_lists(context, tmp_path, k):
    data, unseen = context_data(context, tmp_path, f"unseen{k}"), CONTEXT_ORDER[:k]
    assert ids(data.seen_images) == [f"2008_{n:06d}" for n in range(1, 60) if n not in unseen]
    val = [n for n in range(1, 60, 2) if not {n, 1 + n % 59} & set(unseen)]
    assert [sample.id for sample in data.step1_protocol().images.samples] == [f"2009_{n:06d}" for n in val]
    assert len(data.protocol().images) == 30


def test_context_labels_become_the_sixty_classes(context, tmp_path):
    data = context_data(context, tmp_path)
    for number in (1, 11, 52, 59):
        label = data.step1_images(train=False).native(ids(data.seen_images).index(f"2008_{number:06d}"))
        assert label.dtype == np.uint8
        assert np.array_equal(label, scene(number - 1, (number, 36))[1])
    assert data.embeddings.shape == (60, 300)


def test_context_without_background(context, tmp_path):
    data = context_data(context, tmp_path, background="ignore")
    assert data.num_classes == 59 and data.unseen == (9, 13)
    label = data.step1_images(train=False).native(0)
    expected = scene(0, (1, 36))[1]
    assert np.array_equal(label, np.where(expected == 0, 255, expected - 1))


def test_other_spellings_of_context_names(tmp_path):
    make_context(tmp_path, {"train": {"a": (11, 52)}, "val": {"b": (28,)}})
    path = tmp_path / "full_annotations/labels.txt"
    text = path.read_text()
    for new, old in (("dining table", "table"), ("bedcloth", "bedclothes"), ("clothes", "cloth")):
        text = text.replace(f": {old}\n", f": {new}\n")
    path.write_text(text.replace(": pottedplant\n", ": potted plant\n"))
    data = context_data(tmp_path, tmp_path / "out", "unseen10")
    assert set(np.unique(data.step1_images().native(0))) == {0, 11, 52}


def test_faulty_context_folders_are_one_line(tmp_path):
    make_context(tmp_path, {"train": {"a": (11,)}, "val": {"b": (2,)}})
    labels = tmp_path / "full_annotations/labels.txt"
    text = labels.read_text()
    labels.write_text(text.replace(": cow\n", ": kow\n"))
    with pytest.raises(UserError, match=r"labels\.txt: has no label called cow; of another data set\?"):
        context_data(tmp_path, tmp_path / "out").label_map()
    labels.write_text("no numbers here")
    with pytest.raises(UserError, match=r"labels\.txt: 'no numbers here' is not of the form 'number: name'"):
        context_data(tmp_path, tmp_path / "out").label_map()
    labels.unlink()
    with pytest.raises(UserError, match=r"full_annotations/labels\.txt: no such file; expected the list of Pascal"):
        context_data(tmp_path, tmp_path / "out").label_map()
    write_labels(tmp_path)
    savemat(tmp_path / "full_annotations/trainval/a.mat", {"Labels": 1})
    with pytest.raises(UserError, match=r"a\.mat: has no label map LabelMap"):
        _ = context_data(tmp_path, tmp_path / "out").seen_images


# ---- mistakes


def test_mistakes_are_one_line(voc, tmp_path):
    (tmp_path / "own.yaml").write_text("unseen: [kow]")
    for keys, message in (
        ({"split": str(tmp_path / "own.yaml")}, r"own\.yaml: unknown class 'kow' .*did you mean 'cow'"),
        ({"split": "unseen3"}, "split=unseen3: no such split of pascal; use one of .*unseen10, unseen2"),
    ):
        with pytest.raises(UserError, match=message):
            open_data(voc, tmp_path, **keys)
    with pytest.raises(UserError, match=r"data.use_sbd=true: .*/nothing has no folder 'cls'.*set data.sbd_root"):
        _ = open_data(voc, tmp_path, data={"use_sbd": True, "sbd_root": tmp_path / "nothing"}).train_images
    save_image(tmp_path / "only/images/x.jpg", scene(0, ())[0])
    write_label(tmp_path / "only/SegmentationClassAug/x.png", np.full(scene(0, ())[1].shape, 10, np.uint8))
    for name in ("train", "val"):
        write_list(tmp_path / f"only/sets/{name}.txt", ["x"])
    with pytest.raises(UserError, match="split=unseen2: no training image is without unseen classes"):
        _ = open_data(tmp_path / "only", tmp_path).seen_images
    with pytest.raises(UserError, match="split=unseen4: no training image shows an unseen class"):
        write_label(tmp_path / "only/SegmentationClassAug/x.png", np.zeros(scene(0, ())[1].shape, np.uint8))
        open_data(tmp_path / "only", tmp_path, "unseen4").pseudo_label_images()
    write_label(tmp_path / "only/SegmentationClassAug/x.png", np.full(scene(0, ())[1].shape, 33, np.uint8))
    with pytest.raises(UserError, match=r"x\.png: label value 33 is not a class here; allowed: 0-20, 255"):
        _ = open_data(tmp_path / "only", tmp_path).seen_images


def test_a_mat_file_without_its_field(voc, tmp_path):
    savemat(voc / SBD / "cls/e.mat", {"GTinst": {"Segmentation": 0}})
    with pytest.raises(UserError, match=r"e\.mat: has no label map GTcls\.Segmentation"):
        _ = with_sbd(voc, tmp_path).train_images
    assert read_label(voc / "SegmentationClass" / "a.png").max() == 255
