"""Reading of torch.save files from any origin, without running code from them; damage is found by checksums."""

import argparse
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError

# official checkpoints hold a numpy scalar (the best IoU), written with numpy 1
MAKE_SCALAR = np.float64(0).__reduce__()[0]
ALLOWED: list[Any] = [
    argparse.Namespace,  # command-line arguments, saved by torchvision's and many other training scripts
    (MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64)),
]
STRANGERS = {  # first bytes of files that are often saved in place of weights
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; get it with: git lfs pull",
    b"<!doctype html": "a web page, saved in place of the file; download it again",
    b"<html": "a web page, saved in place of the file; download it again",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}


def read_torch(path: Path) -> Any:
    """Content of a torch.save file, on the CPU. Raises UserError in one line that names what was refused.

    The checksums in the archive are verified, so a flipped bit is an error (0.16 s for 500 MB). Files written by torch
    before 1.6 have no checksums.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'not a file' if path.exists() else 'no such checkpoint'}")
        damaged = _damaged_part(path)
        if damaged:
            raise UserError(f"{path}: not a readable checkpoint (damaged: {damaged})")
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.simplefilter("ignore")  # warnings about pickle protocols; real problems raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises several types for a damaged or unsafe file
        raise UserError(f"{path}: not a readable checkpoint ({_reason(path, error)})") from None


def save_torch(path: Path, content: Any) -> None:
    """torch.save to a file. On a full disk, raises the original OSError instead of torch's RuntimeError."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _damaged_part(path: Path) -> str | None:
    """The part of an archive whose checksum is wrong; None if there is none, or if the file is not an archive."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # zipfile raises a dozen types for damaged directories
        return f"its archive cannot be read: {str(error)[:80] or type(error).__name__}"
    return f"the checksum of {part} differs" if part else None


def _reason(path: Path, error: Exception) -> str:
    """Why the file cannot be read, for a message in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty"
    stranger = next((about for head, about in STRANGERS.items() if start.lstrip().lower().startswith(head)), None)
    if stranger:
        return stranger
    wanted = re.search(r"GLOBAL (\S+)|unsupported class:? (\S+)", str(error))
    name = next(filter(None, wanted.groups()), "") if wanted else _first_global(path)
    if name:
        return f"it contains a {name}, and loading that could run code; save tensors and plain values only"
    if start.startswith(b"\x80") and start[1] > 2:
        return f"a plain pickle of protocol {start[1]}; write it with torch.save"
    text = re.sub(r"\s+", " ", str(error).split("WeightsUnpickler error:")[-1])
    return "truncated, or not a torch.save file" if "operand" in text else text.strip()[:120] or type(error).__name__


def _first_global(path: Path) -> str:
    """First class or function that a plain pickle refers to, found without unpickling."""
    strings: list[str] = []
    try:
        with path.open("rb") as file:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # not a pickle: pickletools raises ValueError and others
        return ""
    return ""
