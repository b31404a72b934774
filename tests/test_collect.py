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


def test_nothing_to_collect(tmp_path):
    with pytest.raises(UserError, match="no evaluated stage"):
        collect.main([str(tmp_path)])
