"""The machine and its packages for a bug report, without private paths. Imports nothing slow."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTS = ("requirements.txt", "requirements-optional.txt")
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "WORLD_SIZE")


def describe() -> str:
    """The text of a bug report: lines `name: value`."""
    needed, optional = (_packages(ROOT / name) for name in LISTS)
    missing = [name for name, found in needed.items() if found is None]
    rows = {
        "project": git_state(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": f"{platform.python_version()}, {'' if sys.prefix != sys.base_prefix else 'no '}virtual environment",
        "cores": f"{_usable_cores()} of {os.cpu_count()}",
        "memory": _memory(),
        "GPUs": _gpus(),
        "packages": _listed(needed),
        "missing packages": ", ".join(missing) or "none",
        "optional packages": _listed(optional) or "none",
        "environment": ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "-",
        "DATA_ROOT": "set" if os.environ.get("DATA_ROOT") else "not set",
    }
    return "\n".join(f"{name + ':':19}{value}" for name, value in rows.items())


def git_hash() -> str:
    """Short hash of the last commit; "unknown" without git."""
    return _output("git", "rev-parse", "--short", "HEAD") or "unknown"


def git_state() -> str:
    """The last commit and the number of files that differ from it."""
    changed = _output("git", "status", "--porcelain").splitlines()
    return f"git {git_hash()}" + (f", {len(changed)} files changed" if changed else "")


def _packages(path: Path) -> dict[str, str | None]:
    """Package -> version for each package listed in a requirements file; None if it is not installed."""
    names = [match[0] for line in path.read_text().splitlines() if (match := re.match(r"[\w.-]+", line))]
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _listed(packages: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {found}" for name, found in packages.items() if found)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):  # Windows
        return "unknown"


def _gpus() -> str:
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    found = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return "; ".join(found.splitlines()) or "none found"


def _output(*command: str) -> str:
    """Standard output of a program; empty if it fails or is not installed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
