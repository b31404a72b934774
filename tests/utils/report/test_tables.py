"""Tables on the terminal: every figure in its place, in per cent."""

import statistics

import pytest

from utils.report.published import PROBE_IOU
from utils.report.tables import chain_table, percent, print_metrics

EUMS = {
    "protocol": "image size",
    "miou": 0.5,
    "base_miou": 0.6543,
    "novel_miou": 0.25,
    "harmonic_miou": 0.36177,
    "per_class": {"background": 0.9999, "aeroplane": 0.5, "dog": None},
}
BASE = {"miou": 0.7, "base_miou": 0.61, "per_class": {"background": 0.79, "dog": 0.61}}


def test_percent():
    assert [percent(x) for x in (0.12345, 1.0, 0.0, None)] == ["12.3", "100.0", "0.0", "-"]


def test_metrics_as_one_aligned_table(capsys):
    print_metrics(EUMS, "eums, image size")
    assert capsys.readouterr().out.splitlines() == [
        "eums, image size",
        "  class         IoU",
        "  -----------------",
        "  background  100.0",
        "  aeroplane    50.0",
        "  dog             -",
        "  -----------------",
        "  base         65.4",
        "  novel        25.0",
        "  all          50.0",
        "  harmonic     36.2",
    ]


def test_beside_the_figures_of_the_paper(capsys):
    print_metrics(
        {"miou": 0.5, "per_class": {"background": 0.8, "cat": 0.2}}, "linear", {"background": 90.95, "cat": 79.1}
    )
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "-" not in line][1:] == [
        ["class", "IoU", "paper"],
        ["background", "80.0", "91.0"],
        ["cat", "20.0", "79.1"],
        ["all", "50.0", "85.0"],
    ]


def test_figures_of_the_paper_average_to_those_it_gives():
    """The README's classes give its linear figure; those of k-means 43.9, where it says 44.2."""
    linear, kmeans = PROBE_IOU.values()
    assert statistics.mean(linear.values()) == pytest.approx(63.9, abs=0.1)
    assert statistics.mean(kmeans.values()) == pytest.approx(43.9, abs=0.1) and len(kmeans) == 21


def test_groups_that_are_not_measured_are_left_out(capsys):
    print_metrics(BASE, "base")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["base", "61.0"] in lines and ["all", "70.0"] in lines
    assert not {"novel", "harmonic"} & {line[0] for line in lines}


def test_chain_table_as_text():
    table = chain_table([("base model", BASE), ("EUMS", EUMS), ("basic", None)])
    assert table.splitlines() == [
        "  method      base mIoU  novel mIoU  all mIoU",
        "  -------------------------------------------",
        "  base model       61.0           -         -",  # its mean runs over fewer classes than the others'
        "  EUMS             65.4        25.0      50.0",
        "  basic               -           -         -",
    ]


def test_chain_table_as_markdown():
    assert chain_table([("EUMS", EUMS)], "markdown").splitlines() == [
        "| method | base mIoU | novel mIoU | all mIoU |",
        "|---|--:|--:|--:|",
        "| EUMS | 65.4 | 25.0 | 50.0 |",
    ]


def test_chain_table_as_latex():
    assert chain_table([("EUMS", EUMS)], "latex").splitlines() == [
        r"\begin{tabular}{lrrr}",
        r"method & base mIoU & novel mIoU & all mIoU \\",
        r"\hline",
        r"EUMS & 65.4 & 25.0 & 50.0 \\",
        r"\end{tabular}",
    ]
