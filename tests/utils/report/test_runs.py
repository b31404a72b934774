"""Runs on disk: their progress, and the keys in which two of them differ."""

import fcntl
import json
import multiprocessing

import pytest
import yaml

import collect
from utils.errors import UserError
from utils.report.results import Stage
from utils.report.runs import age, differences, find_runs, is_held
from utils.run import guarded


def write_run(folder, *, metrics=None, last=False, history=(), **config):
    folder.mkdir(parents=True)
    tree = {"system": "ncdss", "split": "fold0", "data": {"dataset": "demo"}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (folder / "inputs.json").write_text("{}")
    (folder / "run.lock").touch()
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if last:
        (folder / "last.pth").touch()
    return folder


def hold(path, held, release):
    with path.open("w") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        held.set()
        release.wait(20)


def test_states_and_best_scores(tmp_path, capsys):
    history = [{"step": k, "epoch": k, "val": {"novel_miou": score}} for k, score in enumerate((0.1, 0.3, 0.2))]
    out = tmp_path / "out" / "fold0"
    write_run(out / "basic", metrics={"novel_miou": 0.25, "miou": 0.5}, history=history)
    write_run(out / "eums", last=True, history=history)
    write_run(out / "ranking")
    running = write_run(out / "pseudo")
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(running / "run.lock", held, release))
    process.start()
    try:
        assert held.wait(20)
        found = {run.folder.name: (run.state, run.scores.get("novel_miou")) for run in find_runs([tmp_path])}
    finally:
        release.set()
        process.join()
    assert found == {
        "basic": ("finished", 0.25),  # the figure that the stage reports
        "eums": ("stopped", 0.3),
        "ranking": ("failed", None),
        "pseudo": ("running", None),
    }
    assert not is_held(running / "run.lock")
    collect.main(["--list", str(tmp_path), "--style", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run,system,split,state,best,of,age"
    assert f"{out / 'eums'},ncdss,fold0,stopped,30.0,novel mIoU" in "\n".join(lines)


def test_values_of_another_kind(tmp_path):
    """A score that was not defined is no score; a configuration that is empty is an error that names it."""
    history = [{"step": 1, "epoch": 1, "val": {"miou": value, "other": 0.5}} for value in (None, "x", 0.25)]
    folder = write_run(tmp_path / "out" / "fold0" / "eums", history=history)
    assert find_runs([tmp_path])[0].scores == {"miou": 0.25, "other": 0.5}
    (folder / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"config\.yaml: no key 'system'"):
        find_runs([tmp_path])


def test_ages_have_one_unit():
    assert [age(seconds) for seconds in (5, 90, 7200, 200000)] == ["5 s", "2 min", "2 h", "2 d"]


def test_two_runs_differ_in_keys_and_figures(tmp_path, capsys):
    for name, k, score in (("one", 5, 0.2), ("two", 10, 0.25)):
        config = {"cluster": {"k": k}, "output_dir": name}
        write_run(tmp_path / name / "fold0" / "eval_eums", metrics={"novel_miou": score, "images": 3}, **config)
    collect.main([str(tmp_path / "one"), str(tmp_path / "two"), "--diff", "--style", "csv"])
    keys, figures = capsys.readouterr().out.strip().split("\n\n")
    assert keys.splitlines() == ["key,first,second", "cluster.k,5,10"]
    assert figures.splitlines() == ["figure,first,second,difference", "eval_eums novel_miou,20.0,25.0,+5.0"]


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    write_run(tmp_path / "one" / "base", metrics={"miou": 0.5})
    write_run(tmp_path / "two" / "pseudo", metrics={"k": 3})
    assert guarded(collect.main, ["--diff", str(tmp_path / "one")]) == 2
    assert guarded(collect.main, ["--diff", str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert guarded(collect.main, ["--list", str(tmp_path / "none")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "1 folders; give two" in lines[0] and "no finished stage in common" in lines[1]
    assert "no such folder" in lines[2]


def test_stages_of_other_splits_are_not_paired(tmp_path):
    def stage(run, split, score):
        return Stage(tmp_path / run / split / "eval_eums", "ncdss", {"split": split}, {"miou": score})

    one, other = ([stage(run, split, 0.5) for split in ("fold0", "fold1")] for run in ("one", "two"))
    keys, figures = differences(one, other)
    assert len(keys) == 1 and len(figures) == 3
    assert figures[1] == ["eval_eums miou", "50.0", "50.0", "+0.0"]
