"""Reading back what runs left."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from utils.checkpoint import write_json
from utils.config.keys import flatten
from utils.errors import UserError
from utils.report import results


def test_only_finished_stages_count(tmp_path):
    (tmp_path / "basic").mkdir()
    write_json(tmp_path / "eval_eums" / "metrics.json", {"miou": 0.5})
    assert results.finished_stages(tmp_path, "train.py") == {"eval_eums": {"miou": 0.5}}


def test_nothing_finished(tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(UserError, match="no finished stage to report on; run first: train.py"):
        results.finished_stages(tmp_path, "train.py")


def test_history_apart_into_losses_and_scores(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(
        '{"step": 1, "epoch": 1, "train": {"base": 2.0, "novel": 1.5}, "lr": 0.1}\n'
        '{"step": 20, "epoch": 1, "val": {"novel_miou": 0.25}}\n'
        '{"step": 30, "epoch": 2, "train": {"base": 1.0, "novel": 0.5}, "lr": 0.1}\n'
        '{"step": 40, "ep'  # cut by a kill
    )
    train, val = results.read_history(path)
    assert train == {"base": [(1, 2.0), (30, 1.0)], "novel": [(1, 1.5), (30, 0.5)]}
    assert val == {"novel_miou": [(1, 0.25)]}
    assert results.read_history(tmp_path / "none.jsonl") == ({}, {})


def stage(folder, system="ncdss", metrics="metrics.json", **config):
    write_json(folder / metrics, {"miou": 0.5})
    (folder / "config.yaml").write_text(yaml.safe_dump({"system": system, **config}))


def test_stages_are_found_once_below_any_folder(tmp_path, monkeypatch):
    for path in ("a/fold0/base", "a/fold0/eval_eums", "b/fold1/base"):
        stage(tmp_path / path)
    (tmp_path / "a" / "fold0" / "unfinished").mkdir()
    write_json(tmp_path / "a" / "no_config" / "metrics.json", {})
    places = [tmp_path / "b", tmp_path, tmp_path / "a" / "fold0" / "base", tmp_path / "*"]
    found = [stage.folder.relative_to(tmp_path).as_posix() for stage in results.find_stages(places)]
    assert found == ["b/fold1/base", "a/fold0/base", "a/fold0/eval_eums"]


def test_a_folder_that_does_not_exist(tmp_path):
    for name in ("none", "none*"):
        with pytest.raises(UserError, match="no such folder"):
            results.find_stages([tmp_path / name])


def test_dry_runs_count_only_by_themselves(tmp_path):
    stage(tmp_path / "dry" / "fold0" / "base", run={"dry": True})
    assert [found.dry for found in results.find_stages([tmp_path])] == [True]
    stage(tmp_path / "fold0" / "base", run={"dry": False})
    assert [found.dry for found in results.find_stages([tmp_path])] == [False]


def test_what_a_stage_knows(tmp_path):
    stage(tmp_path / "out" / "fold0" / "base", seed=3, data={"dataset": "/my/birds"})
    stage(tmp_path / "out" / "dry" / "fold0" / "base", run={"dry": True})
    stage(tmp_path / "out" / "pretrain", "maskcontrast")
    found = {path: results.find_stages([tmp_path / "out" / path])[0] for path in ("fold0", "dry", "pretrain")}
    assert (found["fold0"].name, found["fold0"].seed, found["fold0"].dataset) == ("base", 3, "birds")
    assert found["fold0"].output_dir("fold0") == found["dry"].output_dir("fold0") == tmp_path / "out"
    assert found["pretrain"].output_dir("") == tmp_path / "out"
    assert found["fold0"].output_dir("renamed") == tmp_path / "out" / "fold0"


def test_a_task_of_several_steps_is_one_stage_and_its_steps(tmp_path):
    """Its configuration is that of its last step; a method that shares its only step takes that one's."""
    stage(tmp_path / "ssul" / "step0", "ssul", seed=1)
    stage(tmp_path / "ssul" / "step1", "ssul", seed=2)
    for method in ("ssul", "ssul_m"):
        write_json(tmp_path / method / "summary.json", {"last": {}})
    found = {stage.name: stage for stage in results.find_stages([tmp_path])}
    assert list(found) == ["ssul", "step0", "step1", "ssul_m"]
    assert [found[name].seed for name in ("ssul", "step0", "ssul_m")] == [2, 1, 2]
    assert found["ssul"].metrics == {"last": {}} and found["step1"].metrics == {"miou": 0.5}


trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3),
    lambda below: st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | below, max_size=3),
)


@given(trees)
def test_dotted_keys_make_the_tree_again(tree):
    assert results._nested(flatten(tree)) == tree


def test_stages_saved_in_one_file_read_as_the_folders_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        folder = tmp_path / f"seed{seed}" / "fold0" / "eval_eums"
        stage(folder, seed=seed, split="fold0", data={"dataset": "demo", "workers": 0})
    write_json(folder / "metrics.json", {"novel_miou": 0.25, "per_class": {"ring": 0.5}, "match": [[0, 1]]})
    found = results.find_stages([tmp_path])
    results.save_stages(found, tmp_path / "figures" / "demo.json")
    again = results.find_stages([tmp_path / "figures" / "*"])
    assert [s.config for s in again] == [s.config for s in found]
    assert [s.metrics for s in again] == [{"miou": 0.5}, {"novel_miou": 0.25}]
    assert [(s.name, s.seed, s.output_dir("fold0").name) for s in again] == [
        ("eval_eums", 1, "seed1"),
        ("eval_eums", 2, "seed2"),
    ]


def test_a_file_of_something_else(tmp_path):
    write_json(tmp_path / "other.json", {"miou": 0.5})
    with pytest.raises(UserError, match="other.json: not a file of collected runs; collect.py FOLDERS --save FILE"):
        results.find_stages([tmp_path / "other.json"])
    with pytest.raises(UserError, match="other.json: not a file of collected runs"):  # nor is it replaced by one
        results.save_stages([], tmp_path / "other.json")
