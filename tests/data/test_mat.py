"""Label maps in MATLAB files, up to version 7 by scipy and those of 7.3 by h5py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from data.mat import read_context, read_sbd, read_stuff
from utils.errors import UserError

LABEL = np.array([[0, 15, 15], [7, 0, 20]], np.uint8)
# start of a MATLAB 7.3 file: a header of 512 bytes before the HDF5 content
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"


def write_hdf5(path: Path, names: str, values: np.ndarray | str) -> Path:
    """A file as written by MATLAB 7.3: names with a slash are struct fields, matrices are transposed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        file[names] = values.T if isinstance(values, np.ndarray) else values
    with path.open("r+b") as stream:
        stream.write(HEADER.ljust(512, b"\0"))
    return path


def write_header(path: Path) -> Path:
    path.write_bytes(HEADER.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    return path


def test_matlab_5(tmp_path):
    savemat(tmp_path / "sbd.mat", {"GTcls": {"Segmentation": LABEL}})
    savemat(tmp_path / "stuff.mat", {"S": LABEL.astype(float) + 1})
    savemat(tmp_path / "context.mat", {"LabelMap": LABEL.astype(np.uint16) * 20})
    assert np.array_equal(read_sbd(tmp_path / "sbd.mat"), LABEL)
    assert read_stuff(tmp_path / "stuff.mat").tolist() == [[255, 14, 14], [6, 255, 19]]
    assert np.array_equal(read_context(tmp_path / "context.mat"), LABEL.astype(np.uint16) * 20)


def test_matlab_7_3(tmp_path):
    """Rows stay rows, and a struct's field is found."""
    assert np.array_equal(read_sbd(write_hdf5(tmp_path / "sbd.mat", "GTcls/Segmentation", LABEL)), LABEL)
    stuff = read_stuff(write_hdf5(tmp_path / "stuff.mat", "S", LABEL.astype(float) + 1))
    assert stuff.tolist() == [[255, 14, 14], [6, 255, 19]]
    context = read_context(write_hdf5(tmp_path / "context.mat", "LabelMap", LABEL.astype(np.uint16) * 20))
    assert context.dtype == np.uint16 and np.array_equal(context, LABEL.astype(np.uint16) * 20)


def test_other_content_of_matlab_7_3_is_one_line(tmp_path):
    struct = write_hdf5(tmp_path / "struct.mat", "S/Segmentation", LABEL)
    text = write_hdf5(tmp_path / "text.mat", "S", "label")
    large = write_hdf5(tmp_path / "large.mat", "S", LABEL.astype(float) * 100)
    for path, read, said in (
        (struct, read_stuff, "has no label map S; expected a matrix of class numbers"),
        (struct, read_sbd, "has no label map GTcls.Segmentation; expected"),
        (text, read_stuff, "has no label map S; expected"),
        (large, read_stuff, "values 0 to 2000 in S; expected whole class numbers from 0 to 256"),
        (write_header(tmp_path / "cut.mat"), read_stuff, "not a readable MATLAB file"),
    ):
        with pytest.raises(UserError, match=said) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_without_h5py_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"a file of MATLAB 7\.3 needs h5py \(pip install h5py; all optional packages"):
        read_stuff(write_header(tmp_path / "new.mat"))


def test_damaged_files_are_one_line(tmp_path):
    (tmp_path / "text.mat").write_text("no MATLAB file, but a text that is long enough to be taken for one " * 4)
    with pytest.raises(UserError, match=r"text\.mat: not a readable MATLAB file"):
        read_sbd(tmp_path / "text.mat")
    with pytest.raises(UserError, match=r"none\.mat: no such file"):
        read_sbd(tmp_path / "none.mat")
