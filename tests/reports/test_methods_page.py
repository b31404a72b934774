"""The page of evaluated methods, for the settings that declare one, with a method of the user's own."""

import json
import re

import pytest
import yaml

import collect
import report
from utils.checkpoint import write_json
from utils.run import guarded

SETTINGS = {  # configuration, metric on the tiles, system, split, a known method
    "zeroshot": ("configs/demo/zeroshot.yaml", "harmonic_miou", "zs3", "unseen4", "zs3_strict"),
    "weakshot": ("configs/demo/weakshot.yaml", "novel_miou", "simformer", "fold3", "simformer"),
}


def write(folder, system, split, **metrics):
    write_json(folder / "metrics.json", {"miou": 0.5, "per_class": {}, **metrics})
    config = {"system": system, "split": split, "seed": 1, "data": {"dataset": "demo"}, "recipe": "mine:GceRecipe"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(params=SETTINGS)
def evaluated(request, tmp_path):
    """(configuration, output_dir, split): a known method and one of the user's own, which has a history."""
    config, metric, system, split, known = SETTINGS[request.param]
    for name, value in ((known, 0.25), ("gce", 0.375)):
        write(tmp_path / split / f"eval_{name}", system, split, **{metric: value})
    line = {"step": 1, "epoch": 1, "train": {"ce": 0.5}}
    (tmp_path / split / "gce").mkdir()
    (tmp_path / split / "gce" / "history.jsonl").write_text(json.dumps(line) + "\n")
    return config, tmp_path, split


def test_an_own_method_has_a_row_a_tile_and_its_losses(evaluated, capsys):
    config, folder, split = evaluated
    assert guarded(report.main, [config, f"output_dir={folder}", "data.root=/none"]) == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:5] if row[0] == "gce"] == ["gce"] and "37.5" in next(
        r for r in rows if r[0] == "gce"
    )
    page = (folder / split / "report.html").read_text()
    assert "<b>37.5</b>" in page and "mIoU, gce" in page and page.index("<td>gce</td>") > 0
    assert page.count("<polyline") == 1 and "data.root=/none: no such folder" in page


def test_an_own_method_has_a_row_in_the_table_over_runs(evaluated, capsys):
    _, folder, split = evaluated
    assert collect.main([str(folder)]) == 0
    assert f"{split}, gce" in capsys.readouterr().out


def test_nothing_evaluated(evaluated, tmp_path, capsys):
    config, *_ = evaluated
    assert guarded(report.main, [config, f"output_dir={tmp_path / 'none'}"]) == 2
    error = capsys.readouterr().err
    assert (
        "nothing evaluated to report on; run first: python eval.py CONFIG method=" in error and error.count("\n") == 1
    )
