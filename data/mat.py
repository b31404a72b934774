"""Label maps in MATLAB files: SBD, COCO-Stuff-10K, Pascal-Context."""

from pathlib import Path

import numpy as np

from utils.checkpoint import first_line
from utils.errors import UserError
from utils.labels import IGNORE, WIDE_IGNORE


def read_sbd(path: Path) -> np.ndarray:
    """uint8 [H, W] of an SBD class file: the struct GTcls, field Segmentation; VOC's class numbers, no border."""
    return _matrix(path, IGNORE, "GTcls", "Segmentation").astype(np.uint8)


def read_stuff(path: Path) -> np.ndarray:
    """uint8 [H, W] of a COCO-Stuff-10K annotation, variable S, where 1 is unlabelled: classes from 0, 255 for that."""
    values = _matrix(path, IGNORE + 1, "S").astype(np.int32) - 2
    return np.where(values < 0, IGNORE, values).astype(np.uint8)


def read_context(path: Path) -> np.ndarray:
    """uint16 [H, W] of a Pascal-Context annotation, variable LabelMap: lines of labels.txt, from 1."""
    return _matrix(path, WIDE_IGNORE, "LabelMap").astype(np.uint16)


def _matrix(path: Path, most: int, variable: str, *fields: str) -> np.ndarray:
    """The numbers of a variable, whole ones from 0 to `most`; UserError for any other."""
    matrix = _content(path, variable, *fields)
    if matrix.size and not (matrix.min() >= 0 and matrix.max() <= most and np.array_equal(matrix, matrix.round())):
        found = f"{matrix.min():g} to {matrix.max():g}"
        raise UserError(f"{path}: values {found} in {variable}; expected whole class numbers from 0 to {most}")
    return matrix


def _content(path: Path, variable: str, *fields: str) -> np.ndarray:
    from scipy.io import loadmat  # a twentieth of what a command takes to start

    try:
        content = loadmat(path, variable_names=[variable])
    except NotImplementedError:  # MATLAB 7.3 is HDF5
        return _hdf5(path, variable)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # scipy raises a dozen types for damaged files, UnboundLocalError among them
        raise UserError(f"{path}: not a readable MATLAB file ({first_line(error)})") from None
    value, found = content.get(variable), variable
    for name in fields:
        names = value.dtype.names if isinstance(value, np.ndarray) else None
        value, found = (value[0, 0][name] if names and name in names else None), f"{found}.{name}"
    if not isinstance(value, np.ndarray) or value.ndim != 2 or not np.issubdtype(value.dtype, np.number):
        raise UserError(f"{path}: has no label map {found}; expected a matrix of class numbers under that name")
    return value


def _hdf5(path: Path, variable: str) -> np.ndarray:
    """The same from a file of MATLAB 7.3, which lists columns first."""
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: a MATLAB 7.3 file; reading it needs h5py (pip install h5py)") from None
    try:
        with h5py.File(path, "r") as file:
            found = np.asarray(file[variable]).T if variable in file else None
    except Exception as error:
        raise UserError(f"{path}: not a readable MATLAB file ({first_line(error)})") from None
    if found is None:
        raise UserError(f"{path}: has no label map {variable}; expected a matrix of class numbers under that name")
    return found
