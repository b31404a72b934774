"""Tables over many runs, with means worked by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.report.aggregate import Column, Options, Paper, ResultTable, result_table, same_seed
from utils.report.results import Stage

ABOUT = ResultTable(
    columns=(Column("all", "miou"), Column("other", "miou", "extra")),
    evaluated_by="eval.py",
    method=lambda stage: None if stage.name == "extra" else stage.name,
    split=lambda config: config["split"],
    methods=("late", "early"),
    paper=Paper({("birds", "s1", "late"): {"all": "31.4"}}, columns=("all",)),
)


def stage(path: str, miou: float | None, seed: int = 0, dataset: str = "birds", **metrics) -> Stage:
    """A stage at <output_dir>/<split>/<name>."""
    folder = Path("/runs") / path
    config = {"split": folder.parent.name, "seed": seed, "data": {"dataset": dataset}}
    return Stage(folder, "x", config, {"miou": miou, **metrics})


def test_rows_and_columns_of_one_split():
    """Methods in the order of the table; a column of another stage that nobody ran is left out."""
    stages = [stage("a/s1/early", 0.1), stage("a/s1/late", 0.2), stage("a/s1/unknown", 0.3), stage("a/s1/none", None)]
    assert result_table(stages, ABOUT) == [
        ["method", "all", "paper, all"],
        ["late", "20.0", "31.4"],
        ["early", "10.0", "not known"],
        ["unknown", "30.0", "not known"],
    ]


def test_nothing_but_a_heading_without_results():
    assert result_table([stage("a/s1/extra", 0.1)], ABOUT) == [["method"]]


def test_splits_are_told_apart_and_seeds_counted():
    """Runs of s1: 10 and 30 per cent, mean 20, deviation sqrt(200) = 14.1."""
    stages = [stage("a/s1/late", 0.1), stage("b/s1/late", 0.3, seed=1), stage("a/s2/late", 0.5)]
    assert [row[:2] for row in result_table(stages, ABOUT)[1:]] == [
        ["s1, late (2)", "20.0 ± 14.1"],
        ["s2, late (1)", "50.0"],
    ]
    assert result_table(stages, ABOUT, Options(over="splits"))[1] == ["late (3)", "30.0 ± 20.0"]


def test_data_sets_are_averaged_on_request_only():
    stages = [stage("a/s1/late", 0.1), stage("b/s1/late", 0.3, dataset="fish")]
    assert [row[:2] for row in result_table(stages, ABOUT, Options(over="splits"))[1:]] == [
        ["birds, late", "10.0"],
        ["fish, late", "30.0"],
    ]
    assert result_table(stages, ABOUT, Options(over="datasets"))[1] == ["late (2)", "20.0 ± 14.1"]


def test_columns_of_splits_and_mean_of_complete_runs():
    stages = [stage("a/s1/late", 0.1), stage("a/s2/late", 0.2), stage("b/s1/late", 0.5, seed=1)]
    rows = result_table(stages, ABOUT, Options(columns="split"))
    assert rows == [["all", "s1", "s2", "mean"], ["late", "30.0 ± 28.3", "20.0", "15.0"]]


def test_stages_without_splits():
    with pytest.raises(UserError, match="--columns split: these stages have no splits"):
        bare = Stage(Path("/runs/a/late"), "x", {"split": ""}, {"miou": 0.1})
        result_table([bare], ABOUT, Options(columns="split"))


def test_variants_of_a_system_that_has_no_columns_for_them():
    """A row per variant and method, each set against its own default."""
    stages = [stage("default/s1/late", 0.1), stage("default/s1/early", 0.5), stage("big/s1/late", 0.4)]
    assert result_table(stages, ABOUT, Options(rows="variant")) == [
        ["variant", "all", "against default"],
        ["default, late", "10.0", "-"],
        ["default, early", "50.0", "-"],
        ["big, late", "40.0", "+30.0"],
    ]


def test_a_metric_that_is_no_column():
    stages = [stage("a/s1/late", 0.1, recall=0.7)]
    assert result_table(stages, ABOUT, Options(metric="recall")) == [["method", "recall"], ["late", "70.0"]]
    with pytest.raises(UserError, match="--metric precision: no stage has it; there are miou, recall"):
        result_table(stages, ABOUT, Options(metric="precision"))


def test_deviation_that_a_single_run_knows_itself():
    """Zero is known, too; with several runs it is theirs."""
    assert result_table([stage("a/s1/late", 0.1, miou_std=0.0)], ABOUT)[1][1] == "10.0 ± 0.0"
    assert result_table([stage("a/s1/late", 0.1, miou_std=None)], ABOUT)[1][1] == "10.0"
    several = [stage("a/s1/late", 0.1, miou_std=0.5), stage("b/s1/late", 0.3, seed=1, miou_std=0.5)]
    assert result_table(several, ABOUT)[1][1] == "20.0 ± 14.1"


def test_runs_that_share_a_seed():
    stages = [
        stage("a/s1/late", 0.1),
        stage("b/s1/late", 0.3),
        stage("b/s2/late", 0.3),
        stage("c/s1/late", 0.3, seed=1),
    ]
    assert same_seed(stages, ABOUT) == ["/runs/a and /runs/b have the same seed, 0"]


def test_methods_are_compared_seed_by_seed():
    """Early less late: -10 and -6, so -8 over 2: 4.0 of the 12.7 standard errors that two seeds need. In a table of
    splits the differences are those of the means of a seed: -8 and -4, so -6 over 2.
    """
    values = {"late": (0.20, 0.40), "early": (0.10, 0.34)}
    stages = [
        stage(f"{seed}/s1/{name}", found, seed=seed) for name, both in values.items() for seed, found in enumerate(both)
    ]
    about = replace(ABOUT, paper=None)
    assert result_table(stages, about) == [
        ["method", "all", "difference / s.e. to late"],
        ["late (2)", "30.0 ± 14.1", "-"],
        ["early (2)", "22.0 ± 17.0", "-4.0"],
    ]
    assert result_table(stages, replace(about, against="early"))[1:] == [
        ["late (2)", "30.0 ± 14.1", "+4.0"],
        ["early (2)", "22.0 ± 17.0", "-"],
    ]
    other = {"late": (0.30, 0.50), "early": (0.24, 0.48)}
    stages += [
        stage(f"{seed}/s2/{name}", found, seed=seed) for name, both in other.items() for seed, found in enumerate(both)
    ]
    rows = result_table(stages, about, Options(columns="split"))
    assert [row[-1] for row in rows] == ["difference / s.e. to late", "-", "-3.0"]
    assert result_table(stages, about, Options(against="early"))[0][-1] == "difference / s.e. to early"
    with pytest.raises(UserError, match="--against never: no such row; there are late, early"):
        result_table(stages, about, Options(against="never"))
