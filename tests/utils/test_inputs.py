"""The fingerprint of the data of a stage: what makes a finished stage another one, and what does not."""

import os
import shutil
from pathlib import Path

import pytest

from utils.config.discovery import DiscoveryConfig
from utils.config.zeroshot import ZeroShotConfig
from utils.inputs import DataFiles, changed_data

FILES = {
    "images/a.jpg": b"picture",
    "images/b.jpg": b"another picture",
    "masks/a.png": b"mask",
    "sets/all.txt": b"a\nb",
}


def config(root: Path) -> DiscoveryConfig:
    return DiscoveryConfig.model_validate({"data": {"root": root}})


@pytest.fixture
def root(tmp_path) -> Path:
    return write(tmp_path / "voc")


def write(root: Path) -> Path:
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def record(root: Path, *more: Path) -> Path:
    files = DataFiles()
    files.add([*(root / name for name in FILES), root / "sets/none.txt", None, *more])
    files.write(root.parent / "data.json", config(root))
    return root.parent / "data.json"


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


def test_the_first_file_that_changed_is_named(root):
    kept = record(root)
    assert changed_data(kept, config(root)) is None
    (root / "masks/a.png").write_bytes(b"MASK")
    assert changed_data(kept, config(root)) == f"{root}/masks/a.png has changed"
    (root / "masks/a.png").write_bytes(b"mask")
    assert changed_data(kept, config(root)) is None  # later written, with the same content
    (root / "images/b.jpg").unlink()
    assert changed_data(kept, config(root)) == f"{root}/images/b.jpg is gone"
    (root / "images/b.jpg").write_bytes(b"longer than before")
    (root / "sets/none.txt").touch()
    assert changed_data(kept, config(root)) == f"{root}/images/b.jpg has changed"
    (root / "images/b.jpg").write_bytes(FILES["images/b.jpg"])
    assert changed_data(kept, config(root)) == f"{root}/sets/none.txt is new"


def test_a_moved_root_is_the_same_when_its_files_are(root, tmp_path):
    kept = record(root)
    other = write(tmp_path / "elsewhere")  # a copy has other times
    assert changed_data(kept, config(other)) is None
    (other / "sets/all.txt").write_bytes(b"b\na")
    assert changed_data(kept, config(other)) == f"{other}/sets/all.txt has changed"
    shutil.rmtree(root)
    assert changed_data(kept, config(root)) is None  # without data nothing can be said


def test_large_files_count_by_size_and_time(root, tmp_path, monkeypatch):
    """Beyond the budget, which goes to the smallest folders first: there a copy counts by its sizes alone."""
    monkeypatch.setattr("utils.inputs.BUDGET", 8)  # the list and the mask
    kept, other = record(root), write(tmp_path / "elsewhere")
    (other / "images/a.jpg").write_bytes(b"PICTURE")
    assert changed_data(kept, config(other)) is None
    touch(root / "masks/a.png")
    assert changed_data(kept, config(root)) is None
    touch(root / "images/a.jpg")
    assert changed_data(kept, config(root)) == f"{root}/images/a.jpg has changed"


def test_every_folder_that_may_move(root, tmp_path):
    """SBD's beside VOC's, and a file outside of both, which may not."""
    outside = tmp_path / "split.yaml"
    outside.write_text("novel: [cat]")
    files, data = DataFiles(), {"root": root / "sets", "sbd_root": root / "masks", "use_sbd": True}
    files.add([root / "masks/a.png", outside])
    files.write(tmp_path / "data.json", ZeroShotConfig.model_validate({"data": data}))
    (root / "masks").rename(tmp_path / "sbd")
    moved = ZeroShotConfig.model_validate({"data": data | {"sbd_root": tmp_path / "sbd"}})
    assert changed_data(tmp_path / "data.json", moved) is None
    outside.write_text("novel: [dog]")
    assert changed_data(tmp_path / "data.json", moved) == f"{outside} has changed"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "roots": {}, "files": {"root:": {"a": 3}}}'])
def test_a_damaged_record_is_no_finished_stage(root, content):
    kept = root.parent / "data.json"
    kept.write_text(content)
    assert changed_data(kept, config(root)) == f"{kept} is damaged"
    kept.unlink()
    assert changed_data(kept, config(root)) is None  # of an earlier version, which wrote none
