"""A resumed run and damaged files: the checkpoint before the last one takes over, and the result is the same."""

import io
import zipfile

import numpy as np
import pytest

from tests.fingerprint import fingerprint
from tests.utils.toy import ToyRecipe, at_step, terminate, toy_fit
from utils import checkpoint
from utils.errors import Interrupted, UserError


def flip(content: bytes) -> bytes:
    """One bit of the first tensor's data, as a bad disk or memory would."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = content.index(archive.read(next(name for name in archive.namelist() if name.endswith("/data/0"))))
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGE = {"empty": lambda content: b"", "cut": lambda content: content[:-200], "flipped": flip}


def damage(path, kind: str) -> None:
    path.write_bytes(DAMAGE[kind](path.read_bytes()))


@pytest.fixture
def stopped(tiny, tmp_path):
    """The folder of a run stopped at step 8; it saved at steps 3, 6 and 8."""
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(trouble=at_step(8, terminate)))
    return tmp_path / "out" / "two" / "toy"


@pytest.fixture
def expected(tiny, tmp_path) -> str:
    _, run = toy_fit(tiny, ToyRecipe(), f"output_dir={tmp_path}/reference")
    return fingerprint(run.dir)


@pytest.mark.parametrize("kind", [*DAMAGE, "missing"])
def test_the_checkpoint_before_a_damaged_one_takes_over(tiny, stopped, expected, capsys, kind):
    assert checkpoint.load(stopped / "previous.pth")["progress"]["step"] == 6
    last = stopped / "last.pth"
    last.unlink() if kind == "missing" else damage(last, kind)
    recipe = ToyRecipe()
    toy_fit(tiny, recipe)
    assert recipe.steps == 9 - 6 and fingerprint(stopped) == expected
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(shown) == 1 and str(last) in shown[0] and "previous.pth" in shown[0]
    assert {path.name for path in stopped.glob("*.pth")} == {"last.pth", "previous.pth", "best.pth"}


def test_two_damaged_checkpoints_are_an_error(tiny, stopped):
    for name in ("last.pth", "previous.pth"):
        damage(stopped / name, "flipped")
    with pytest.raises(UserError, match=r"previous.pth: not a readable checkpoint .*last.pth is damaged, too; resume="):
        toy_fit(tiny, ToyRecipe())


def test_a_damaged_file_that_was_named_is_an_error(tiny, stopped, tmp_path):
    given = tmp_path / "given.pth"
    given.write_bytes((stopped / "last.pth").read_bytes())
    damage(given, "flipped")
    with pytest.raises(UserError, match=r"given.pth: not a readable checkpoint \(damaged"):
        toy_fit(tiny, ToyRecipe(), f"resume={given}")


def test_a_damaged_best_model_is_found_before_the_training_and_not_after(tiny, stopped, capsys):
    damage(stopped / "best.pth", "cut")
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[0.2]))
    assert metrics["miou"] == 0.2 and metrics["epoch"] == 3
    assert f"warning: {run.best}: not a readable checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, content", [("config.yaml", ""), ("inputs.json", "[]"), ("inputs.json", "{"), ("config.yaml", "a: [")]
)
def test_a_damaged_file_of_a_run_folder_is_named_with_the_cure(tiny, stopped, name, content):
    (stopped / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}: .*; damaged, so resume=false starts over"):
        toy_fit(tiny, ToyRecipe())
    toy_fit(tiny, ToyRecipe(), "resume=false")


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path):
    """Bits of headers may be unused; none may change a value."""
    path, rng = tmp_path / "a.pth", np.random.default_rng(0)
    weight = ToyRecipe().model.state_dict()
    checkpoint.save(path, {"model": weight, "progress": {"step": 3}})
    content, noticed = path.read_bytes(), 0
    for place in rng.integers(0, len(content), 200).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            state = checkpoint.load(path)
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            noticed += 1
        else:
            assert all(state["model"][key].equal(value) for key, value in weight.items())
            assert state["progress"] == {"step": 3} and state["format"] == 1
    assert noticed > 100
