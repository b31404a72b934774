"""Files are whole or absent, and damaged ones are named in one line."""

import errno
import fractions
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils import checkpoint
from utils.errors import UserError, one_line


def test_an_exception_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    checkpoint.write_text(path, "old")
    with pytest.raises(RuntimeError), checkpoint.atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_checkpoint_that_cannot_be_pickled_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.pth"
    checkpoint.save(path, {"model": torch.ones(3)})
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(path, {"model": torch.zeros(3), "broken": lambda: None})
    assert checkpoint.load(path)["model"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_nothing_is_in_place_before_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with checkpoint.atomic(path) as temporary:
        temporary.write_text("all")
        assert not path.exists() and temporary.parent == path.parent  # same folder: replacing is one step of the disk
    assert path.read_text() == "all"


def test_many_files_are_brought_to_the_disk_at_once(tmp_path, monkeypatch):
    """None of them while it is written, each one at the end, and the folder that names them."""
    synced, real = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))
    )
    for name in ("a.txt", "below/b.txt"):
        with checkpoint.atomic(tmp_path / name, settled=False) as temporary:
            temporary.write_text(name)
    assert not synced
    checkpoint.settle(tmp_path)
    assert sorted(synced) == [str(tmp_path / name) for name in ("", "a.txt", "below", "below/b.txt")]
    with checkpoint.atomic(tmp_path / "c.txt") as temporary:
        temporary.write_text("c")
    assert len(synced) == 5


def test_a_leftover_of_a_kill_is_overwritten(tmp_path):
    path = tmp_path / "a.txt"
    with checkpoint.atomic(path) as temporary:
        temporary.write_text("x")
    temporary.write_text("a long leftover of a killed run")
    checkpoint.write_text(path, "y")
    assert path.read_text() == "y" and not temporary.exists()


def test_round_trip(tmp_path):
    state = {"model": {"w": torch.arange(3.0)}, "progress": {"step": 2, "best": float("-inf")}, "names": ["a", "b"]}
    checkpoint.save(tmp_path / "a.pth", state)
    loaded = checkpoint.load(tmp_path / "a.pth")
    assert loaded["format"] == checkpoint.FORMAT and loaded["progress"] == state["progress"]
    assert torch.equal(loaded["model"]["w"], state["model"]["w"]) and loaded["names"] == ["a", "b"]


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text", "foreign", "code"])
def test_damaged_checkpoints_are_one_line(tmp_path, damage):
    path = tmp_path / "a.pth"
    checkpoint.save(path, {"model": torch.ones(1000)})
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif damage == "foreign":
        torch.save({"model": torch.ones(1)}, path)
    else:
        torch.save({"format": 1, "model": fractions.Fraction(1, 2)}, path)  # an object: reading it would run code
    with pytest.raises(UserError, match="a.pth: (no such|not a)") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        checkpoint.write_json(tmp_path / "a.json", {"miou": float("nan")})
    assert not list(tmp_path.iterdir())


def test_digest_sees_names_and_contents(tmp_path):
    folder = tmp_path / "folder"
    checkpoint.write_text(folder / "a.txt", "1")
    digests = [checkpoint.digest(folder)]
    checkpoint.write_text(folder / "a.txt", "2")
    digests.append(checkpoint.digest(folder))
    (folder / "a.txt").rename(folder / "b.txt")
    digests.append(checkpoint.digest(folder))
    checkpoint.write_text(folder / "c.txt", "")
    digests.append(checkpoint.digest(folder))
    assert len(set(digests)) == 4 and checkpoint.digest(folder) == digests[-1]


def test_lists(tmp_path):
    checkpoint.write_list(tmp_path / "a.txt", ["x", "y"])
    assert checkpoint.read_list(tmp_path / "a.txt") == ["x", "y"]
    (tmp_path / "b.txt").write_text("x \r\n\r\n y\n")
    assert checkpoint.read_list(tmp_path / "b.txt") == ["x", "y"]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):  # PowerShell redirects into the last
        (tmp_path / "c.txt").write_bytes("caf\u00e9\r\nx\r\n".encode(encoding))
        assert checkpoint.read_list(tmp_path / "c.txt") == ["caf\u00e9", "x"]
    for encoding, text, wrong in (
        ("latin-1", "x\ncaf\u00e9", "line 2 is not in utf-8"),
        ("utf-16-le", "x\ny", "contains zero bytes"),
    ):
        (tmp_path / "c.txt").write_bytes(text.encode(encoding))
        with pytest.raises(UserError, match=rf"c.txt: .*{wrong}.*; save the list as UTF-8"):
            checkpoint.read_list(tmp_path / "c.txt")
    (tmp_path / "c.txt").write_text("x\ny\nx\n")
    with pytest.raises(UserError, match=r"c.txt: image 'x' is twice in the list; keep it once"):
        checkpoint.read_list(tmp_path / "c.txt")
    (tmp_path / "c.txt").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a file; expected a list"):  # and not a wait for ever
        checkpoint.read_list(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"c.txt: cannot be read .*one image id per line"):
        checkpoint.read_list(tmp_path / "c.txt")


def test_unreadable_json_is_named(tmp_path):
    for content in (b"{", b"[]", b"3", b"\xff\xfe{\x00}\x00", b"[" * 100_000, b""):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match="a.json: (not |holds a)"):
            checkpoint.read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="b.json: no such file"):
        checkpoint.read_json(tmp_path / "b.json")


def test_a_key_that_a_file_lacks_is_named_with_the_file(tmp_path):
    checkpoint.write_json(tmp_path / "a.json", {"miou": 0.5})
    found = checkpoint.read_json(tmp_path / "a.json")
    assert found == {"miou": 0.5} and found.get("other") is None and {**found} == {"miou": 0.5}
    with pytest.raises(UserError, match="a.json: has no 'other'; damaged"):
        found["other"]


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, checkpoint.atomic(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert one_line(caught.value) == f"{tmp_path / 'a.txt'}: No space left on device" and not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        checkpoint.write_text(tmp_path / "file" / "a.txt", "")
    assert one_line(caught.value).startswith(f"{tmp_path / 'file'}: ")


@given(
    st.lists(st.text("aä_.-7 日", min_size=1).map(str.strip).filter(bool), unique=True),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
)
def test_lists_of_any_editor(names, encoding, ends):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes("".join(name + ends for name in names).encode(encoding))
        assert checkpoint.read_list(path) == names
