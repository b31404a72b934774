"""The page of evaluated networks whose files are written here, so that every number it must show is known."""

import re

import numpy as np
import pytest
import yaml

import report
from reports.contrast import probe
from utils.checkpoint import write_json, write_text
from utils.report.results import find_stages
from utils.run import guarded

CONFIG = "configs/demo/probe.yaml"
CLASSES = {"background": 0.9, "cat": 0.25, "dog": None}


def write(folder, network, stage, dataset="demo", **metrics):
    path = folder / network / stage
    write_json(path / "metrics.json", {"miou": 0.4, "per_class": CLASSES, **metrics})
    write_text(path / "config.yaml", yaml.safe_dump({"system": "probe", "data": {"dataset": dataset}}))
    return path


@pytest.fixture
def evaluated(tmp_path):
    """Two networks: both clustered, one with a linear probe."""
    ours = write(tmp_path, "ours", "kmeans", miou_std=0.012, match=[[0, 0], [1, 2], [2, 1]])
    write(tmp_path, "imagenet", "kmeans", miou=0.3, miou_std=0.02, match=[[0, 0], [1, 1], [2, -1]])
    write(tmp_path, "ours", "eval_linear", miou=0.6)
    linear = write(tmp_path, "ours", "linear", miou=0.99)
    (linear / "history.jsonl").write_text('{"step": 1, "epoch": 1, "train": {"ce": 0.5, "loss": 0.5}}\n')
    write_text(ours / "prototypes.svg", '<svg xmlns="http://www.w3.org/2000/svg"><desc>mine</desc></svg>')
    return tmp_path


def page_of(folder, capsys, *more: str) -> tuple[str, list[list[str]]]:
    assert guarded(report.main, [CONFIG, f"output_dir={folder}", *more]) == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    return (folder / "report.html").read_text(), rows


def test_networks_by_mode(evaluated, capsys):
    page, rows = page_of(evaluated, capsys)
    assert rows[0] == ["features", "linear", "k-means"]
    assert rows[2:4] == [["imagenet", "-", "30.0 ± 2.0"], ["ours", "60.0", "40.0 ± 1.2"]]
    assert "<td>ours</td><td>60.0</td><td>40.0 ± 1.2</td>" in page and "paper" not in page
    assert "Not there yet: python probe_features.py CONFIG mode=linear evaluation.crf=true; " in page
    assert "<desc>mine</desc>" in page and ">ours</span>" in page


def test_classes_of_each_mode(evaluated):
    text = probe.classes(find_stages([evaluated]))
    assert re.findall(r"<h3>([^<]*)</h3>", text) == ["linear", "k-means"]
    assert text.count(">25.0</text>") == text.count(">90.0</text>") == 1 + 2


def test_the_papers_values_stand_beside_its_data(evaluated, capsys):
    for path in evaluated.rglob("config.yaml"):
        path.write_text("system: probe\ndata: {dataset: pascal}")
    page, rows = page_of(evaluated, capsys)
    assert ["paper: supervised saliency, ImageNet start", "63.9", "44.2"] in rows
    assert '<tr class="reference"><td>paper: supervised saliency, ImageNet start</td>' in page


def test_published_classes_beside_the_papers_network(evaluated):
    path = evaluated / "ours" / "kmeans"
    write_json(
        path / "metrics.json", {"miou": 0.4, "per_class": CLASSES, "protocol": "image size, one vector per image"}
    )
    model = {"kind": "maskcontrast", "backbone": "resnet50"}
    write_text(path / "config.yaml", yaml.safe_dump({"system": "probe", "data": {"dataset": "pascal"}, "model": model}))
    text = probe.classes(find_stages([path]))
    assert ">paper</span>" in text and ">88.2</text>" in text and ">46.1</text>" in text and ">43.9</text>" in text


def test_confusion_of_clusters_where_it_was_saved(evaluated):
    """Clusters in the order of their classes; of dog's 4 pixels 3 are in cluster 1."""
    assert probe.confusion(find_stages([evaluated])) == ""
    np.save(evaluated / "ours" / "kmeans" / "confusion.npy", np.array([[8, 1, 1], [0, 1, 9], [0, 3, 1]]))
    text = probe.confusion(find_stages([evaluated]))
    assert [t for t in re.findall(r">([^<]*)</text>", text) if "→" in t] == [
        *("0 → background", "2 → cat", "1 → dog"),
    ]
    assert re.findall(r">(\d+)</text>", text) == ["80", "10", "10", "90", "10", "25", "75"]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("metrics.json", b"{}", "metrics.json: empty; do the stage again"),
        ("metrics.json", b"[1]", "metrics.json: holds a list, not an object"),
        ("metrics.json", b"\xff\xfe", "metrics.json: not UTF-8 text"),
        ("config.yaml", b"", "config.yaml: no key 'system'"),
        ("config.yaml", b"[1]", "config.yaml: expected key: value lines, got list"),
        ("confusion.npy", b"\x93NUMPY\x01\x00v\x00", "confusion.npy: not a readable array"),
    ],
)
def test_damaged_results_are_one_line(evaluated, capsys, name, content, said):
    (evaluated / "ours" / "kmeans" / name).write_bytes(content)
    assert guarded(report.main, [CONFIG, f"output_dir={evaluated}"]) == 2
    error = capsys.readouterr().err
    assert f"{evaluated / 'ours' / 'kmeans' / name}: " in error and said in error and error.count("\n") == 1


def test_training_of_the_linear_probe(evaluated):
    assert guarded(report.main, [CONFIG, f"output_dir={evaluated}"]) == 0
    text = (evaluated / "report.html").read_text()
    assert text[text.index("Cross-entropy of the linear probes") :].count("<polyline") == 1


def test_without_clusters_there_are_no_prototypes(tmp_path, capsys):
    write(tmp_path, "ours", "retrieval", kept_miou=0.5)
    page, rows = page_of(tmp_path, capsys)
    assert rows[0] == ["features", "retrieval", "kept classes"]
    assert "Nothing is clustered yet: <code>python probe_features.py CONFIG mode=kmeans" in page


def test_nothing_evaluated(tmp_path, capsys):
    for folder in (tmp_path / "none", tmp_path):
        assert guarded(report.main, [CONFIG, f"output_dir={folder}"]) == 2
        error = capsys.readouterr().err
        assert "no evaluated network to report on; run first: python probe_features.py CONFIG" in error
        assert error.count("\n") == 1
