"""Class-incremental training: what MiB, PLOP and an unusual loss report, and how long the steps are."""

import json

import pytest

import train_incremental
from data.incremental.builder import IncrementalData
from train_incremental import choose_memory, run_step
from utils.config.reader import load_config
from utils.errors import UserError
from utils.run import guarded, start_run


def run(config, *overrides) -> int:
    return guarded(train_incremental.main, [str(config), *overrides])


def log_of(folder) -> list[str]:
    return [line.split(" ", 2)[2] for line in (folder / "log.txt").read_text().splitlines()]


def steps_of(folder) -> int:
    """The last optimiser step that was reported on."""
    return json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["step"]


def test_steps_after_the_first_may_be_shorter(task_config, tmp_path, capsys):
    """Two iterations an epoch: six in step 0, two in the others; their number does not make step 0 stale."""
    options = ("method=finetune", "training.first_epochs=3")
    assert run(task_config, *options, "training.epochs=1") == 0
    folder = tmp_path / "out" / "abc-overlap" / "finetune"
    assert [steps_of(folder / f"step{number}") for number in range(3)] == [6, 2, 2]
    capsys.readouterr()
    assert run(task_config, *options, "training.epochs=2") == 2
    out, err = capsys.readouterr()
    assert "finetune/step0: already finished" in out and "step1 was made with other settings (training.epochs" in err


def test_plop_says_what_it_trusts(task_config, tmp_path, monkeypatch):
    """One line per step with all classes in order; a warning for classes of which almost nothing is kept."""
    options = ("method=plop", "plop.median=exact", "training.epochs=1")
    assert run(task_config, *options) == 0
    folder, said = tmp_path / "out" / "abc-overlap" / "plop", "entropy threshold and trusted share of background: "
    for number, names in ((1, ["background", "disc", "square"]), (2, ["background", "disc", "square", "bar"])):
        (line,) = [line for line in log_of(folder / f"step{number}") if said in line]
        assert line.startswith(f"step {number}, ")
        found = dict(part.split(" ", 1) for part in line.split(said)[1].split(", "))
        assert list(found) == names
        for value in found.values():
            threshold, share = value.split()
            assert float(threshold) >= 0.001 and (share == "-" or int(share.rstrip("%")) >= 49)
        assert not any("PLOP trusts less" in line for line in log_of(folder / f"step{number}"))
    monkeypatch.setattr("losses.plop.entropy_thresholds", lambda counts, *rest: 0.0 * counts.sum(1))
    assert run(task_config, *options, "resume=false", f"output_dir={tmp_path / 'none'}") == 0
    lines = log_of(tmp_path / "none" / "abc-overlap" / "plop" / "step1")
    (warning,) = [line for line in lines if "PLOP trusts less" in line]
    assert warning.startswith("step 1: PLOP trusts less than 20 % of ") and " 0.0000 0%" in warning
    assert warning.endswith("which may be forgotten; plop.median=exact trusts half")


@pytest.mark.parametrize(("loss", "scored"), [("bce", "bce"), ("ce", "ce"), ("focal", "bce")])
def test_exemplars_are_chosen_by_sigmoids_unless_the_loss_is_cross_entropy(task_config, monkeypatch, loss, scored):
    """As in the official code, which takes a softmax for ce_loss alone; step 0 needs no scores."""
    data = IncrementalData.open(load_config([str(task_config), "method=ssul_m", f"ssul.loss={loss}"], ""))
    for number in range(2):
        assert run_step(data, number)
    asked, plain = [], train_incremental.best_channel
    monkeypatch.setattr(train_incremental, "best_channel", lambda z, kind: asked.append(kind) or plain(z, kind))
    previous = data.cfg.output_dir / "abc-overlap" / "ssul_m" / "step1" / "best.pth"
    with start_run(data.cfg, "check", (), {}) as opened:
        assert choose_memory(data, 2, previous, opened)
    assert set(asked) == {scored}
    if loss == "bce":  # the memory of step 1 is an input of step 2: without it, old exemplars would be lost
        (previous.parent / "memory.json").unlink()
        with pytest.raises(UserError, match=r"step1/memory\.json: missing although the stage finished"):
            run_step(data, 2)
