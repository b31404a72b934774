"""The page of a pre-training whose files are written here."""

import json
import re

import pytest

import report
from utils.checkpoint import write_json, write_text
from utils.run import guarded

CONFIG = "configs/demo/contrast.yaml"


@pytest.fixture
def pretrained(tmp_path):
    folder = tmp_path / "pretrain"
    write_json(folder / "metrics.json", {"saliency_miou": 0.625, "epoch": 2, "training_images": 38})
    train = {"contrast": 3.5, "saliency": 0.25, "top1": 0.5, "top5": 0.75, "loss": 3.75}
    lines = [{"step": step, "epoch": step, "train": train} for step in (1, 2)]
    lines += [{"step": epoch, "epoch": epoch, "val": {"saliency_miou": 0.5 + epoch / 16}} for epoch in (1, 2)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_curves_and_the_table(pretrained, capsys):
    assert guarded(report.main, [CONFIG, f"output_dir={pretrained}"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row == ["last", "reported", "step", "2", "3.500", "0.250", "50.0", "75.0", "62.5"]
    page = (pretrained / "report.html").read_text()
    assert page.count("<polyline") == 2 + 2 + 1 and "38 images with object masks" in page
    assert re.findall(r"<h3>([^<]*)</h3>", page) == ["Losses", "Own prototype is ranked"]
    assert "No probe of it lies here: <code>python probe_features.py" in page
    assert "| last reported step | 2 | 3.500 |" in (pretrained / "table.md").read_text()


def test_pointer_to_probes(pretrained):
    folder = pretrained / "probes" / "ours" / "kmeans"
    write_json(folder / "metrics.json", {"miou": 0.3})
    write_text(folder / "config.yaml", "system: probe\n")
    assert guarded(report.main, [CONFIG, f"output_dir={pretrained}"]) == 0
    page = (pretrained / "report.html").read_text()
    assert "Evaluated below this folder: probes/ours." in page and "No probe" not in page


def test_training_without_validation(pretrained):
    lines = [line for line in (pretrained / "pretrain" / "history.jsonl").read_text().splitlines() if "val" not in line]
    (pretrained / "pretrain" / "history.jsonl").write_text("\n".join(lines))
    write_json(pretrained / "pretrain" / "metrics.json", {"epoch": 2})
    assert guarded(report.main, [CONFIG, f"output_dir={pretrained}"]) == 0
    assert "<h2>Saliency</h2>" not in (pretrained / "report.html").read_text()


def test_nothing_trained(tmp_path, capsys):
    for _ in range(2):
        assert guarded(report.main, [CONFIG, f"output_dir={tmp_path}"]) == 2
        error = capsys.readouterr().err
        assert "run first: python pretrain_contrast.py CONFIG" in error and error.count("\n") == 1
        write_json(tmp_path / "other" / "metrics.json", {})
