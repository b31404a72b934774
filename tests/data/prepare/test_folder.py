"""A data root from a few photographs, some of them labelled."""

import unicodedata

import numpy as np
import pytest
import yaml
from PIL import Image

import prepare_data
from data.discovery.builder import DiscoveryData
from data.prepare.folder import draw_validation
from data.prepare.folder_config import Facts, batch_size, image_size
from utils.checkpoint import read_list
from utils.config.reader import load_config
from utils.errors import UserError
from utils.run import guarded

LABELLED, ALL = 6, 12


def write_photos(folder, turned: str = "") -> None:
    """Twelve pictures of 40 x 30 pixels, the first six with colour masks; `turned` was taken on its side."""
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    (folder / "classes.csv").write_text("dog,250,0,0\ncat,0,250,0\n")
    for place in range(ALL):
        name, image = f"p{place:02d}", Image.fromarray(np.full((30, 40, 3), 9 * place, np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if name == turned else 1
        image.save(folder / "photos" / f"{name}{('.JPG', '.png')[place % 2]}", exif=exif)
        if place < LABELLED:
            rgb = np.zeros((40, 30, 3) if name == turned else (30, 40, 3), np.uint8)
            rgb[10:20, 10:25] = (250, 0, 0) if place % 2 else (0, 250, 0)
            Image.fromarray(rgb).save(folder / "masks" / f"{name}.png")


def arguments(folder, *more: str) -> list[str]:
    given = {"images": "photos", "labels": "masks", "colors": "classes.csv", "root": "mine", "config": "mine.yaml"}
    options = [word for name, path in given.items() for word in (f"--{name}", str(folder / path))]
    return ["folder", *options, "--workers", "1", *more]


def test_a_folder_becomes_a_data_root(tmp_path, capsys):
    write_photos(tmp_path)
    assert prepare_data.main(arguments(tmp_path, "--val", "0.34")) == 0
    root, said = tmp_path / "mine", capsys.readouterr().out
    assert yaml.safe_load((root / "classes.yaml").read_text()) == ["background", "dog", "cat"]
    lists = {part: read_list(root / "sets" / f"{part}.txt") for part in ("train", "val", "unlabelled")}
    assert [len(names) for names in lists.values()] == [4, 2, 6]
    assert sorted(lists["train"] + lists["val"]) == [f"p{place:02d}" for place in range(LABELLED)]
    label = np.array(Image.open(root / "labels" / "p00.png"))
    assert label[12, 12] == 2 and label.sum() == 2 * 10 * 15
    assert "12 photographs; labels read as colour PNG" in said and "to discover classes in: 6" in said

    cfg = load_config([str(tmp_path / "mine.yaml")], "")
    data = DiscoveryData.open(cfg)
    assert data.is_unknown and data.num_known == 3 and cfg.cluster.k == "auto"
    assert list(data.lists.novel) == lists["unlabelled"] and list(data.lists.base) == lists["train"]
    assert [sample.image.suffix for sample in data.context.index(["p06", "p07"], ("image",))] == [".JPG", ".png"]


def test_the_configuration_is_kept_the_rest_is_made_anew(tmp_path, capsys):
    write_photos(tmp_path)
    prepare_data.main(arguments(tmp_path))
    (tmp_path / "mine.yaml").write_text("edited: true\n")
    (tmp_path / "masks" / "p05.png").unlink()
    prepare_data.main(arguments(tmp_path))
    assert (tmp_path / "mine.yaml").read_text() == "edited: true\n"
    assert len(read_list(tmp_path / "mine" / "sets" / "unlabelled.txt")) == 7
    assert not (tmp_path / "mine" / "labels" / "p05.png").exists()


def test_a_photograph_labelled_the_way_it_is_shown_is_turned(tmp_path):
    write_photos(tmp_path, turned="p02")
    prepare_data.main(arguments(tmp_path))
    assert Image.open(tmp_path / "mine" / "images" / "p02.png").size == (30, 40)
    assert Image.open(tmp_path / "mine" / "labels" / "p02.png").size == (30, 40)


def test_a_fault_leaves_what_was_there(tmp_path):
    write_photos(tmp_path)
    prepare_data.main(arguments(tmp_path))
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "masks" / "p03.png")
    before = sorted(path for path in (tmp_path / "mine").rglob("*"))
    with pytest.raises(UserError, match=r"p03\.png: 5x5 pixels, but its image has 40x30"):
        prepare_data.main(arguments(tmp_path))
    assert sorted(path for path in (tmp_path / "mine").rglob("*")) == before


def test_too_few_and_none_that_fit_are_errors(tmp_path):
    write_photos(tmp_path)
    for place in range(3, LABELLED):
        (tmp_path / "masks" / f"p{place:02d}.png").unlink()
    with pytest.raises(UserError, match="3 photographs with labels and 9 without; needs 4 of each"):
        prepare_data.main(arguments(tmp_path))
    for path in (tmp_path / "masks").glob("*.png"):
        path.rename(path.with_name(f"mask_{path.name}"))
    with pytest.raises(UserError, match=r"no photograph has labels; .*photograph 'p00', label 'mask_p00'"):
        prepare_data.main(arguments(tmp_path))
    assert not (tmp_path / "mine" / "sets").exists()


@pytest.mark.parametrize("case", ["photographs", "labels", "others"])
def test_nothing_is_deleted_that_was_not_made_here(tmp_path, capsys, case):
    write_photos(tmp_path)
    mine, given = tmp_path / "mine", arguments(tmp_path)
    mine.mkdir()
    source, part = {
        "photographs": ("photos", "images"),
        "labels": ("masks", "labels"),
        "others": ("notes", "sets"),
    }[case]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    (tmp_path / source).rename(mine / part)
    before = sorted(path.name for path in (mine / part).iterdir())
    given = [word.replace(str(tmp_path / source), str(mine / part)) for word in given]
    assert guarded(prepare_data.main, given) == 2
    said = "was not made by this command" if case == "others" else "is inside a folder that will be overwritten"
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in (mine / part).iterdir()) == before


def test_accents_go_together_however_they_are_stored(tmp_path):
    write_photos(tmp_path)
    for folder, form in (("photos", "NFD"), ("masks", "NFC")):
        for path in (tmp_path / folder).glob("p00.*"):
            path.rename(path.with_stem(unicodedata.normalize(form, "é")))
    assert guarded(prepare_data.main, arguments(tmp_path)) == 0
    listed = [name for part in ("train", "val") for name in read_list(tmp_path / "mine" / "sets" / f"{part}.txt")]
    assert unicodedata.normalize("NFC", "é") in listed and len(listed) == LABELLED


@pytest.mark.parametrize("name", [" p07", "p\n07", "p07\u2028x"])
def test_names_that_no_list_can_hold_are_refused(tmp_path, capsys, name):
    write_photos(tmp_path)
    (tmp_path / "photos" / "p07.png").rename(tmp_path / "photos" / f"{name}.png")
    assert guarded(prepare_data.main, arguments(tmp_path)) == 2
    assert "cannot be a line" in capsys.readouterr().err and not (tmp_path / "mine" / "images").exists()


@pytest.mark.parametrize("option", [("--workers", "0"), ("--seed", "-1"), ("--workers", "two")])
def test_numbers_of_the_command_line(tmp_path, option):
    with pytest.raises(SystemExit, match="2"):
        prepare_data.main([*arguments(tmp_path), *option])


def test_validation_is_drawn_by_the_seed():
    shown = {f"{place}": {place % 2} for place in range(20)}
    one, again, other = (draw_validation(shown, 0.2, seed)["val"] for seed in (0, 0, 1))
    assert one == again != other and len(one) == 4
    assert draw_validation({"a": {0}, "b": {0}}, 0.9, 0)["train"]  # never all of them


@pytest.mark.parametrize("seed", range(20))
def test_validation_leaves_an_image_of_every_class_to_train_on(seed):
    shown = {f"{place}": {0, 1 + place // 2} for place in range(9)}  # classes 1 to 4 twice, class 5 once
    lists = draw_validation(shown, 0.9, seed)
    assert set().union(*(shown[name] for name in lists["train"])) == set(range(6))
    assert len(lists["val"]) == 4 and sorted(lists["train"] + lists["val"]) == list(shown)
    assert len(draw_validation({"a": {0}, "b": {1}}, 0.5, seed)["val"]) == 1  # one validates in any case


def test_sizes_follow_from_the_data():
    voc = Facts(train=100, unlabelled=100, side=500, area=187500, object_share=0.25)
    assert image_size(voc) == 128  # an object of half the side: 3 cells of 16 pixels are 96
    assert image_size(Facts(100, 100, 500, 187500, object_share=0.01)) == 480  # of a tenth of the side
    assert image_size(Facts(100, 100, 200, 30000, object_share=0.01)) == 192  # no larger than the pictures
    assert [batch_size(count, 16) for count in (3, 8, 20, 1000)] == [2, 4, 8, 16]
