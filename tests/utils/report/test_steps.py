"""Tables, files and log lines of the steps of a class-incremental task."""

import logging

import numpy as np

from utils.checkpoint import read_json
from utils.report.steps import log_trust, write_summary
from utils.report.tables import print_steps, steps_table

STEPS = [
    {"step": 0, "miou": 0.5, "old_miou": 0.5, "foreground_miou": 0.4, "per_class": {"background": 0.9, "cat": 0.1}},
    {
        **{"step": 1, "miou": 0.3, "old_miou": 0.25, "new_miou": 0.4, "foreground_miou": 0.2},
        "per_class": {"background": 0.4, "cat": 0.1, "dog": None},
    },
]


def test_steps_of_a_task(capsys):
    assert steps_table(STEPS) == [
        ["after", "old", "new", "all", "foreground"],
        ["step 0", "50.0", "-", "50.0", "40.0"],
        ["step 1", "25.0", "40.0", "30.0", "20.0"],
    ]
    print_steps(STEPS, "ssul")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["ssul"] and ["step", "1", "25.0", "40.0", "30.0", "20.0"] in lines and ["dog", "-"] in lines


def test_summary_and_curves(tmp_path):
    """Two steps: cat falls from 10 to 10, so nothing is forgotten; the mean of all classes is (50 + 30) / 2."""
    write_summary(STEPS, [["cat"], ["dog"]], tmp_path)
    summary = read_json(tmp_path / "summary.json")
    assert summary["last"]["step"] == 1 and summary["mean_over_steps"]["miou"] == 0.4 and summary["forgetting"] == 0.0
    assert (tmp_path / "curve.svg").read_text().count("<polyline") == 3
    write_summary(STEPS[:1], [["cat"]], tmp_path)
    assert (tmp_path / "curve.svg").read_text() == ""


def test_trust_is_logged_and_small_shares_are_warned_of(caplog):
    with caplog.at_level(logging.INFO):
        log_trust(2, ["cat", "dog", "cow", "new"], np.array([0.5, 0.25, 0.125]), np.array([0.5, 0.1, np.nan]))
    first, warning = (record.getMessage() for record in caplog.records)
    assert first.endswith("cat 0.5000 50%, dog 0.2500 10%, cow 0.1250 -")
    assert "PLOP trusts less than 20 % of dog 0.2500 10%, which" in warning and "cat" not in warning
