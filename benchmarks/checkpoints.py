"""Reading a checkpoint safely: the checksums of the archive, and whether every weight is finite, beside plain reading.

    python -m benchmarks.checkpoints               500 MB
    python -m benchmarks.checkpoints --mb 50

prints CPU seconds; the file is in the page cache.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from models.weights import read_weights
from utils.torch_file import read_torch, save_torch

TENSOR = 1 << 20  # values, 4 MB


def cpu_seconds(ways: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The least of several runs of each, in turn."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, times in zip(ways, found, strict=True):
            begun = time.process_time()
            way()
            times.append(time.process_time() - begun)
    return [min(times) for times in found]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=500, help="size of the file")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    state = {f"layer{number}": torch.randn(TENSOR) for number in range(max(1, options.mb // 4))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pth"
        save_torch(path, {"model": state})
        read = read_weights(path).state
        assert all(read[name].equal(value) for name, value in state.items())
        ways = (
            lambda: torch.load(path, map_location="cpu", weights_only=True),
            lambda: read_torch(path),
            lambda: read_weights(path),
        )
        plain, checked, finite = cpu_seconds(ways, options.repeats)
        print(f"{path.stat().st_size / 1e6:.0f} MB: torch.load {plain:.2f} s, with checksums {checked:.2f} s, ", end="")
        print(f"and every weight finite {finite:.2f} s")


if __name__ == "__main__":
    main()
