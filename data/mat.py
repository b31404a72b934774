"""Label maps from MATLAB files: SBD, COCO-Stuff-10K, Pascal-Context."""

from pathlib import Path

import numpy as np

from utils.checkpoint import first_line
from utils.errors import UserError, missing_package
from utils.labels import IGNORE, WIDE_IGNORE


def read_sbd(path: Path) -> np.ndarray:
    """uint8 [H, W] of an SBD class file (GTcls.Segmentation): VOC's class numbers, without void border."""
    return _matrix(path, IGNORE, "GTcls", "Segmentation").astype(np.uint8)


def read_stuff(path: Path) -> np.ndarray:
    """uint8 [H, W] of a COCO-Stuff-10K annotation (S, where 1 is unlabelled): classes from 0, 255 for unlabelled."""
    values = _matrix(path, IGNORE + 1, "S").astype(np.int32) - 2
    return np.where(values < 0, IGNORE, values).astype(np.uint8)


def read_context(path: Path) -> np.ndarray:
    """uint16 [H, W] of a Pascal-Context annotation (LabelMap): line numbers of labels.txt, from 1."""
    return _matrix(path, WIDE_IGNORE, "LabelMap").astype(np.uint16)


def _matrix(path: Path, most: int, variable: str, *fields: str) -> np.ndarray:
    """The matrix of a variable. Raises UserError unless its values are integers from 0 to `most`."""
    matrix = _content(path, variable, *fields)
    if matrix.size and not (matrix.min() >= 0 and matrix.max() <= most and np.array_equal(matrix, matrix.round())):
        found = f"{matrix.min():g} to {matrix.max():g}"
        raise UserError(f"{path}: values {found} in {variable}; expected whole class numbers from 0 to {most}")
    return matrix


def _content(path: Path, variable: str, *fields: str) -> np.ndarray:
    from scipy.io import loadmat  # takes 5 % of a command's start-up time

    found = ".".join((variable, *fields))
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a MATLAB file")
    try:
        content = loadmat(path, variable_names=[variable], appendmat=False)
    except NotImplementedError:  # MATLAB 7.3 is HDF5
        return _label_map(_hdf5(path, variable, *fields), path, found)
    except Exception as error:  # scipy raises a dozen types for damaged files, UnboundLocalError among them
        raise UserError(f"{path}: not a readable MATLAB file ({first_line(error)})") from None
    value = content.get(variable)
    for name in fields:
        names = value.dtype.names if isinstance(value, np.ndarray) else None
        value = value[0, 0][name] if names and name in names else None
    return _label_map(value, path, found)


def _label_map(value: object, path: Path, found: str) -> np.ndarray:
    """`value`, the content of variable `found`. Raises UserError unless it is a matrix of numbers."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or not np.issubdtype(value.dtype, np.number):
        raise UserError(f"{path}: has no label map {found}; expected a matrix of class numbers under that name")
    return value


def _hdf5(path: Path, *names: str) -> np.ndarray | None:
    """A variable or struct field of a MATLAB 7.3 file, transposed to rows first; None if it is no data set."""
    try:
        import h5py
    except ImportError:
        raise missing_package(f"{path}: a file of MATLAB 7.3", "h5py") from None
    try:
        with h5py.File(path, "r") as file:
            found = file.get("/".join(names))  # a struct is a group of its fields
            return np.asarray(found).T if isinstance(found, h5py.Dataset) else None
    except Exception as error:  # a damaged file raises almost anything
        raise UserError(f"{path}: not a readable MATLAB file ({first_line(error)})") from None
