"""Mean and deviation over runs."""

import json

import pytest

import collect
from utils.errors import UserError


def write(folder, stage, base, novel, miou):
    path = folder / stage / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"base_miou": base, "novel_miou": novel, "miou": miou}))


def test_mean_and_sample_deviation(tmp_path, capsys):
    """30, 34 and 38 per cent: mean 34, deviation sqrt((16 + 0 + 16) / 2) = 4."""
    for seed, novel in enumerate((0.30, 0.34, 0.38)):
        write(tmp_path / str(seed), "eval_eums", 0.5, novel, 0.4)
    write(tmp_path / "0", "eval_basic_random", 0.1, None, 0.1)
    collect.main([str(tmp_path / str(seed)) for seed in range(3)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "EUMS" in line] == [
        ["EUMS", "(3)", "50.0", "±", "0.0", "34.0", "±", "4.0", "40.0", "±", "0.0"]
    ]
    assert [line.split()[-3:] for line in lines if "random" in line] == [["10.0", "-", "10.0"]]


def test_folds_beside_the_paper(tmp_path, capsys):
    """Two seeds of four folds: means 25 and 35, so 30 ± sqrt(50) = 7.1; a third seed lacks folds and stays out."""
    for seed, start in enumerate((0.10, 0.20)):
        for fold in range(4):
            write(tmp_path / str(seed) / f"fold{fold}", "eval_eums", 0.5, start + fold / 10, 0.4)
    write(tmp_path / "2" / "fold0", "eval_eums", 0.5, 0.3, 0.4)
    for file in tmp_path.rglob("metrics.json"):
        (file.parent / "config.yaml").write_text("data: {dataset: pascal}")
    folders = [str(folder) for folder in sorted(tmp_path.glob("*/fold*"))]
    collect.main(["--folds", "--style", "markdown", *folders])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| novel mIoU | fold0 | fold1 | fold2 | fold3 | mean | paper |"
    assert lines[2] == "| EUMS | 20.0 ± 10.0 | 25.0 ± 7.1 | 35.0 ± 7.1 | 45.0 ± 7.1 | 30.0 ± 7.1 | 59.1 |"
    collect.main(["--folds", *folders[:3]])  # not the four folds of the paper
    assert capsys.readouterr().out.split()[-1] == "-"


def test_nothing_to_collect(tmp_path):
    with pytest.raises(UserError, match="no evaluated stage"):
        collect.main([str(tmp_path)])
