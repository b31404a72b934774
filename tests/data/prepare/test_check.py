from pathlib import Path

import numpy as np
import pytest
import yaml

import prepare_data
from data.embeddings import read_table
from data.io import write_label
from tests.zeroshot_data import make_voc_sbd
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
        "train: 3 images, no fault",
        "val: 1 images, no fault",
        "step 1: 2 training images show no unseen class, 1 do",
    ]
    assert "  seen   aeroplane                2 training images" in lines
    assert "  unseen cow                      1 training images" in lines
    assert lines[-1] == "word vectors: 300 numbers for each of 21 classes"


def test_a_fault_is_one_line(config, capsys):
    path = config.parent / "voc/SegmentationClass/v.png"
    write_label(path, np.zeros((2, 2), np.uint8))
    assert guarded(prepare_data.main, ["check", str(config)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and f"{path}: 2x2 pixels, but" in error[0]


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
