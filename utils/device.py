"""The option --device of predict.py, export.py and prepare_data.py."""

import torch

from utils.errors import UserError

CHOICES = "auto, cpu, cuda, cuda:N or mps"


def find_device(name: str) -> torch.device:
    """The named device; auto selects CUDA, then Apple's GPU, then the CPU. UserError if the device does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: unknown; use {CHOICES}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: this machine has no usable Apple GPU; use --device cpu")
    count = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and not count:
        raise UserError(f"--device {name}: this machine has no usable CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(f"--device {name}: this machine has {count} CUDA devices; use cuda:0 to cuda:{count - 1}")
    return device
