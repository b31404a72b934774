"""Tables on the terminal: every number in its place, in per cent."""

import statistics

import pytest

from utils.report.published import PROBE_IOU
from utils.report.tables import percent, print_metrics, print_repeats, spread, table

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
    assert percent(-0.0004) == "0.0" and percent(-0.01) == "-1.0"


def test_mean_and_sample_deviation():
    """Of 10, 20 and 30 per cent: 20 ± sqrt((100 + 0 + 100) / 2) = 10."""
    assert spread([0.1, 0.2, None, 0.3]) == "20.0 ± 10.0"
    assert spread([0.1]) == "10.0" and spread([]) == spread([None]) == "-"
    assert spread([0.01, 0.03], "+") == "+2.0 ± 1.4" and spread([-0.01], "+") == "-1.0"


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


def test_accuracies_below_the_means(capsys):
    values = {"pixel_accuracy": 0.9, "mean_accuracy": 0.5, "fw_iou": 0.8, "base_accuracy": 0.7, "novel_accuracy": None}
    print_metrics(BASE | values, "base")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[-6:]] == [
        "----------------------------",
        "accuracy, base          70.0",
        "accuracy, novel            -",
        "accuracy, all           50.0",
        "accuracy, pixels        90.0",
        "frequency-weighted IoU  80.0",
    ]
    print_metrics({"miou": 0.5, "fw_iou": 0.8, "per_class": {"cat": 0.2}}, "linear", {"cat": 79.1})
    assert capsys.readouterr().out.splitlines()[-1].split() == ["frequency-weighted", "IoU", "80.0", "-"]


def test_beside_the_values_of_the_paper(capsys):
    print_metrics(
        {"miou": 0.5, "per_class": {"background": 0.8, "cat": 0.2}}, "linear", {"background": 90.95, "cat": 79.1}
    )
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "-" not in line][1:] == [
        ["class", "IoU", "paper"],
        ["background", "80.0", "91.0"],
        ["cat", "20.0", "79.1"],
        ["all", "50.0", "85.0"],
    ]


def test_values_of_the_paper_average_to_those_it_gives():
    """The README's classes give its linear value; those of k-means 43.9, where it says 44.2."""
    linear, kmeans = PROBE_IOU.values()
    assert statistics.mean(linear.values()) == pytest.approx(63.9, abs=0.1)
    assert statistics.mean(kmeans.values()) == pytest.approx(43.9, abs=0.1) and len(kmeans) == 21


def test_groups_that_are_not_measured_are_left_out(capsys):
    print_metrics(BASE, "base")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["base", "61.0"] in lines and ["all", "70.0"] in lines
    assert not {"novel", "harmonic"} & {line[0] for line in lines}


STEP = {
    **{"step": 1, "miou": 0.3, "old_miou": 0.25, "new_miou": 0.4, "foreground_miou": 0.2},
    "per_class": {"background": 0.4, "cat": 0.1, "dog": None},
}


def test_groups_of_every_system_in_one_order(capsys):
    print_metrics(STEP, "step 1")
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[-4:] == ["old", "new", "all", "foreground"]


def test_repetitions_and_fewer_classes(capsys):
    metrics = {"miou": 0.3, "miou_std": 0.012, "seeds": [1, 2], "kept_miou": 0.4}
    metrics |= {"nmi_before_match": 0.5, "ari_before_match": 0.25, "nmi_after_match": 0.6, "ari_after_match": 0.125}
    print_repeats(metrics | {"kept_per_class": {"cat": 0.4}, "compared": [{}, {"model": "last epoch", "miou": 0.2}]})
    assert capsys.readouterr().out.splitlines() == [
        "  last epoch: mIoU 20.0",
        "  mIoU 30.0 ± 1.2 over 2 seeds",
        "  after matching: NMI 0.600, ARI 0.125 (classes from clusters, as published)",
        "  before matching: NMI 0.500, ARI 0.250 (the clusters themselves)",
        "  mIoU of 1 classes: 40.0",
    ]


ROWS = [["method", "base mIoU", "novel mIoU", "all mIoU"], ["EUMS", "65.4 ± 1.0", "25.0", "50.0"]]


def test_table_as_text():
    assert table([*ROWS, ["basic", "-", "-", "-"]]).splitlines() == [
        "  method   base mIoU  novel mIoU  all mIoU",
        "  ----------------------------------------",
        "  EUMS    65.4 ± 1.0        25.0      50.0",
        "  basic            -           -         -",
    ]


def test_table_as_markdown():
    assert table(ROWS, "markdown").splitlines() == [
        "| method | base mIoU | novel mIoU | all mIoU |",
        "|---|--:|--:|--:|",
        "| EUMS | 65.4 ± 1.0 | 25.0 | 50.0 |",
    ]


def test_table_as_latex():
    assert table([*ROWS, ["ssul_m", "1", "2", "3"]], "latex").splitlines() == [
        r"\begin{tabular}{lrrr}",
        r"method & base mIoU & novel mIoU & all mIoU \\",
        r"\hline",
        r"EUMS & 65.4 $\pm$ 1.0 & 25.0 & 50.0 \\",
        r"ssul\_m & 1 & 2 & 3 \\",
        r"\end{tabular}",
    ]
