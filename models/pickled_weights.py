"""Pickled numpy weights (detectron2's .pkl files), read without executing any of their code."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    """Decodes bytes of pickle protocol 2. Other codecs are refused, because some unpack archives."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """Empty bytes, as protocol 2 writes them for an empty array."""
    return b""


NUMPY = {  # (module below numpy.core or numpy._core, name) -> object
    ("multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
}
ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.{module}", name): made for core in ("core", "_core") for (module, name), made in NUMPY.items()},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
}


class _Unpickler(pickle.Unpickler):
    """Creates numpy arrays and plain containers; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only numpy arrays and plain containers are read"
            )
        return ALLOWED[module, name]


def is_pickle(path: Path) -> bool:
    """Whether a file is named .pkl and is no zip archive, as files of torch.save are."""
    return path.suffix == ".pkl" and not zipfile.is_zipfile(path)


def read_pickle(path: Path) -> Any:
    """The content of a pickle, arrays as tensors. Raises UserError if it is missing, damaged or holds other objects."""
    try:
        with path.open("rb") as stream:
            return _with_tensors(_Unpickler(stream, encoding="latin1").load())
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # a damaged pickle raises almost anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from None


def _with_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tensors(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    return value
