import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import prepare_data
from data.embeddings import read_table
from data.io import read_image, read_label, voc_palette, write_label
from tests.conftest import CLASSES, make_voc, write_tiny
from tests.zeroshot_data import make_voc_sbd
from utils.checkpoint import write_list
from utils.run import guarded


@pytest.fixture
def config(tmp_path) -> Path:
    images = {"train": {"a": (1,), "b": (10, 1)}, "sbd": {"c": (3,)}, "val": {"v": (5,)}}
    data = {"dataset": "pascal", "use_sbd": True, "root": str(make_voc_sbd(tmp_path / "voc", images))}
    path = tmp_path / "zs3.yaml"
    path.write_text(yaml.safe_dump({"system": "zs3", "output_dir": str(tmp_path / "out"), "data": data}))
    return path


def test_zero_shot_data_is_checked(config, capsys):
    assert guarded(prepare_data.main, ["check", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "train: 2 images, no fault",
        "train of SBD: 1 images, no fault",
        "val: 1 images, no fault",
    ]
    assert "  seen   aeroplane                2 training images" in lines
    assert "  unseen cow                      1 training images" in lines
    assert lines[-2] == "step 1: 2 training images show no unseen class, 1 do"
    assert lines[-1] == "word vectors: 300 numbers for each of 21 classes"


@pytest.fixture
def root(tmp_path) -> Path:
    """A data root to damage: disc, square, bar and dot in turn."""
    return make_voc(tmp_path / "voc", train=16, val=8)


def check(config: Path, *options: str) -> int:
    return guarded(prepare_data.main, ["check", str(config), *options])


def rows(table: Path) -> list[tuple[str, str, str]]:
    with table.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["kind", "file", "what"]
    return [tuple(row) for row in found]


def mask_of(path: Path, values: np.ndarray, palette: np.ndarray | None = None) -> None:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path)


def test_every_fault_of_every_file_is_listed(root, tmp_path, capsys):
    """Damage of each kind, some of it twice; the table has nothing else."""
    config, masks = write_tiny(tmp_path, root), root / "SegmentationClassAug"
    saliency, label = root / "saliency_supervised_model", {path.stem: read_label(path) for path in masks.iterdir()}
    with Image.open(root / "images/t000.jpg") as image:  # a turn that changes no size
        exif = Image.Exif()
        exif[0x0112] = 3
        image.save(root / "images/t000.jpg", exif=exif)
    (root / "images/t001.jpg").write_bytes((root / "images/t001.jpg").read_bytes()[:-200])
    write_label(masks / "t002.png", label["t002"][:, :-1])
    write_label(masks / "t003.png", np.where(label["t003"] == 4, 200, label["t003"]).astype(np.uint8))
    grey = np.array([0, 38, 75, 113, 15])  # luminance of VOC's colours 0 to 4
    mask_of(masks / "t004.png", grey[label["t004"] % 255].astype(np.uint8))
    mask_of(masks / "t005.png", (label["t005"] == 2).astype(np.uint8), voc_palette()[[0, 2]])  # square became 1
    (masks / "t006.png").unlink()
    write_label(saliency / "t007.png", np.zeros((40, 40), np.uint8))
    (saliency / "t010.png").unlink()
    flipped = bytearray((masks / "t008.png").read_bytes())
    flipped[-30] ^= 4
    (masks / "t008.png").write_bytes(flipped)
    mask_of(masks / "t009.png", np.repeat(label["t009"][..., None], 3, 2))
    mask_of(masks / "t012.png", label["t012"], 255 - voc_palette())  # of other colours, a warning
    write_png = Image.fromarray(np.zeros((40, 40), np.uint16) + 4000)
    (root / "images/t013.jpg").unlink()
    write_png.save(root / "images/t013.png")
    shutil.copy(root / "images/t014.jpg", root / "images/t015.jpg")
    names = [f"v{number:03d}" for number in range(8)]
    write_list(root / "sets/val.txt", [*names, "v001", "t014", "v001"])
    table = tmp_path / "faults.csv"
    assert check(config, "--to", str(table)) == 2
    expected = {
        ("turned", "images/t000.jpg"),
        ("damaged", "images/t001.jpg"),
        ("size", "SegmentationClassAug/t002.png"),
        ("value", "SegmentationClassAug/t003.png"),
        ("luminance", "SegmentationClassAug/t004.png"),
        ("palette", "SegmentationClassAug/t005.png"),
        ("missing", "SegmentationClassAug/t006.png"),
        ("saliency", "saliency_supervised_model/t007.png"),
        ("missing", "saliency_supervised_model/t010.png"),
        ("damaged", "SegmentationClassAug/t008.png"),
        ("kind", "SegmentationClassAug/t009.png"),
        ("kind", "images/t013.png"),
        ("duplicate", "images/t015.jpg"),
        ("list", "sets/val.txt"),
        ("overlap", "t014"),
    }
    found = rows(table)
    assert {(kind, file.removeprefix(f"{root}/")) for kind, file, _ in found} == expected
    assert len(found) == len(expected)
    what = {file.removeprefix(f"{root}/"): text for _, file, text in found}
    assert what["SegmentationClassAug/t002.png"] == f"39x40 pixels, but {root}/images/t002.jpg has 40x40"
    assert what["SegmentationClassAug/t003.png"] == "label value 200 is not a class here; allowed: 0-4, 255"
    assert what["sets/val.txt"] == "image 'v001' is there 3 times"
    out, err = capsys.readouterr()
    assert all(f"{kind:10}{file}: {text}" in out for kind, file, text in found)
    assert "train: 16 images, " in out and "val: 9 images, no fault" in out and "novel: 6 images, 2 faults" in out
    assert "warning: palettes differ: 0 has another colour in t012 than in " in out
    counts = "1 list, 2 missing, 2 damaged, 2 kind, 1 size, 1 value, 1 luminance, 1 palette, 1 saliency, 1 turned"
    assert err == f"error: 15 faults: {counts}, 1 overlap, 1 duplicate ({table})\n"


def test_damage_inside_a_jpeg_is_found_where_others_fill_it(root, tmp_path, capsys):
    """With 64 zero bytes, OpenCV and Pillow return an image; the strict decoder reports extra data."""
    pytest.importorskip("simplejpeg")
    path = root / "images/t001.jpg"
    content = bytearray(path.read_bytes())
    content[-400:-336] = bytes(64)
    path.write_bytes(content)
    assert read_image(path).shape == (40, 40, 3)
    assert check(write_tiny(tmp_path, root)) == 2
    assert f"damaged   {path}: not a readable image (Corrupt JPEG data" in capsys.readouterr().out


def test_kinds_may_be_allowed(root, tmp_path, capsys):
    """COCO has a few pictures twice, and saliency of photographs without an object is empty."""
    config = write_tiny(tmp_path, root)
    shutil.copy(root / "images/t014.jpg", root / "images/t015.jpg")
    assert check(config, "--allow", "duplicate,saliency") == 0
    assert f"duplicate {root}/images/t015.jpg: the same picture as {root}/images/t014.jpg" in capsys.readouterr().out
    assert check(config, "--allow", "twins") == 2
    assert "--allow twins: no kind of fault; they are list, missing" in capsys.readouterr().err


def test_maps_that_may_be_missing_are_counted(root, tmp_path, capsys):
    config = write_tiny(tmp_path, root)
    (root / "saliency_supervised_model/t002.png").unlink()
    assert check(config, "data.missing=drop") == 0
    assert "novel: 7 images, no fault, 1 without all files" in capsys.readouterr().out
    shutil.rmtree(root / "SegmentationClassAug")
    assert check(config) == 2
    out, err = capsys.readouterr()
    assert "has no folder 'SegmentationClassAug'" in out and "error: 3 faults: 1 list, 2 missing" in err


SYSTEMS = {  # keys of each, and the lists that are checked
    "ssul": ({"task": "abc", "ssul": {"unknown": "saliency"}}, "train val"),
    "maskcontrast": ({}, "train val"),
    "probe": ({"mode": "kmeans", "foreground": "saliency"}, "val"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_its_data_checked(root, tmp_path, capsys, system):
    dataset = tmp_path / "classes"
    (dataset / "tasks").mkdir(parents=True)
    (dataset / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    (dataset / "tasks/abc.yaml").write_text("steps: [[disc, square], [bar, dot]]")
    keys, lists = SYSTEMS[system]
    data = {"dataset": str(dataset), "root": str(root), "train_list": "trainaug", "missing": "error"}
    path = tmp_path / f"{system}.yaml"
    path.write_text(yaml.safe_dump({"system": system, "output_dir": str(tmp_path / "out"), "data": data, **keys}))
    assert check(path) == 0
    counts = {"train": 16, "val": 8}
    said = [f"{name}: {counts[name]} images, no fault" for name in lists.split()]
    assert capsys.readouterr().out.splitlines()[: len(said)] == said
    broken = root / "saliency_supervised_model" / ("v003.png" if lists == "val" else "t003.png")
    write_label(broken, np.zeros((2, 2), np.uint8))
    assert check(path) == 2
    assert f"size      {broken}: 2x2 pixels, but {root}/images/{broken.stem}.jpg has 40x40" in capsys.readouterr().out


def test_a_table_of_word_vectors(tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("".join(f"{word} {at} 1\n" for at, word in enumerate(("disc", "square", "background", "zebra"))))
    (tmp_path / "classes.yaml").write_text("[background, disc, square]")
    where = ["--words", str(words), "--dataset", str(tmp_path), "--to", str(tmp_path / "t.npz")]
    assert guarded(prepare_data.main, ["vectors", *where, "--names", "zebra, square"]) == 0
    table = read_table(tmp_path / "t.npz")
    assert table.names == ("background", "disc", "square", "zebra")
    assert table.vectors.tolist() == [[2, 1], [0, 1], [1, 1], [3, 1]]
    assert guarded(prepare_data.main, ["vectors", *where, "--names", "canoe"]) == 2
    assert "no vector for 1 of 4 names: 'canoe'" in capsys.readouterr().err
