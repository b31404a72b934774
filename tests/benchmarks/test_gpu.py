"""The measurement of a GPU: its arithmetic by hand, and the whole of it on the CPU at a size that takes no time."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_work import WORKS
from utils.checkpoint import read_json

ROOT = Path(__file__).parents[2]
SMALL = ("--device", "cpu", "--size", "64", "--batch", "2", "--steps", "1", "--workers", "0")
GPU = any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


@pytest.mark.skipif(GPU, reason="a GPU is here")
def test_without_a_gpu_it_stops_before_torch_is_imported():
    code = (
        "import runpy, sys\ntry:\n    runpy.run_module('benchmarks.gpu', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("error: --device cuda: no GPU found (") and done.stderr.count("\n") == 1


def event(name: str, start: float, end: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end))


def test_waits_are_those_inside_of_steps():
    events = [
        *(event(gpu.STEP, start, start + 10) for start in (0, 20)),
        event("cudaEventSynchronize", 5, 6),
        event("cudaStreamSynchronize", 29, 30),
        event("hipDeviceSynchronize", 25, 26),
        event("cudaDeviceSynchronize", 31, 40),  # the profiler's own
        event("cudaLaunchKernel", 4, 5),
    ]
    assert gpu.waits(events) == 3


def test_waiting_for_images_by_hand(monkeypatch):
    """Batches that take 1 s and steps of 3 s: a quarter, without the first batch, which took 100 s."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: clock.now)

    def batches():
        for took in (100, 1, 1, 1):
            clock.now += took
            yield {}

    def step(_batch):
        clock.now += 3

    assert gpu.waiting_share(step, batches(), skipped=1) == pytest.approx(0.25)


def test_every_work_opens_and_names_its_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    assert len({work.name for work in WORKS}) == len(WORKS)
    for work in WORKS:
        cfg = work.open(tmp_path / str(WORKS.index(work)), "data.image_size=64")
        assert work.training(cfg).lr > 0 and cfg.data.image_size == 64


@pytest.mark.parametrize("only", ["EUMS", "SSUL later", "MaskContrast", "ZS3", "MaskFormer"])
def test_a_dry_run_on_the_cpu(only, monkeypatch, tmp_path, capsys):
    """As the defaults train it, and in float32: both give figures, and reading works for the batches of each system."""
    monkeypatch.delenv("DATA_ROOT", raising=False)
    monkeypatch.setattr(gpu, "MODES", (gpu.MODES[0], gpu.AS_TRAINED))
    monkeypatch.setattr(gpu, "PROFILED", 1)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    small = [*SMALL, "--only", only, "--save", str(tmp_path / "gpu.json"), "--set", "model.backbone=resnet18"]
    try:
        assert gpu.main(small) == 0
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before
    first, second = read_json(tmp_path / "gpu.json")["rows"]
    assert first["times_float32"] == 1 and first["tflop"] == second["tflop"] > 0
    assert min(first["images_per_second"], second["images_per_second"]) > 0
    assert second["waits"] == 0 and 0 <= second["waiting"] <= 1 and len(second["largest"]) == gpu.LARGEST
    assert "% waiting for images" in capsys.readouterr().out
