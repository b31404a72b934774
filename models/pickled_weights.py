"""Weights that a program pickled as numpy arrays (detectron2's .pkl files), read without running anything of it."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them; no other codec, since some unpack archives."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """How protocol 2 makes the bytes of an empty array."""
    return b""


NUMPY = {  # module (before numpy 2: without the underscore), name -> what it stands for
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
    """Makes numpy arrays and plain containers; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only numpy arrays and plain containers are read"
            )
        return ALLOWED[module, name]


def is_pickle(path: Path) -> bool:
    """Whether a file is a plain pickle by its name, and not one of torch.save, which is a zip archive."""
    return path.suffix == ".pkl" and not zipfile.is_zipfile(path)


def read_pickle(path: Path) -> Any:
    """Content of a pickle of numpy arrays and plain containers, the arrays as tensors; UserError in one line."""
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
