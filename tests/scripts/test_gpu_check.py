"""Without a GPU the check of one stops before it installs, draws or trains anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_ROCM = pytest.mark.skipif(Path("/dev/kfd").exists(), reason="a GPU is here")


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def check(tmp_path, **variables: str) -> subprocess.CompletedProcess:
    """Run the script with programs of tmp_path/bin in front of all others."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DEVICE", "SYSTEMS", "DATA_ROOT", "VENV")}
    environment |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "OUT": str(tmp_path / "out"), **variables}
    script = ROOT / "scripts" / "discovery" / "gpu_check.sh"
    return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)


def refused(found: subprocess.CompletedProcess, tmp_path) -> str:
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    return found.stderr


@NO_ROCM
def test_no_gpu(tmp_path):
    program(tmp_path / "bin", "nvidia-smi", "exit 9")
    line = refused(check(tmp_path, VENV=str(tmp_path / "venv")), tmp_path)
    assert line == "error: DEVICE=cuda: no GPU found (nvidia-smi lists none); run this on a machine with one\n"
    assert not (tmp_path / "venv").exists()


def test_a_gpu_that_torch_does_not_see(tmp_path):
    program(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: H'")
    program(tmp_path / "bin", "python", "exit 1")
    assert "no GPU found (torch sees none)" in refused(check(tmp_path, VENV="none"), tmp_path)


def test_unknown_system(tmp_path):
    line = refused(check(tmp_path, VENV="none", DEVICE="cpu", SYSTEMS="ncdss zs"), tmp_path)
    assert line == "error: SYSTEMS: no check of 'zs' here\n"


def test_every_system_is_checked(tmp_path):
    """A python that only says how it was called: each system's chain in turn, then costs, devices and steps."""
    program(tmp_path / "bin", "python", 'echo "$@"')
    found = check(tmp_path, VENV="none", DEVICE="cpu", SIZE="64", DATA_ROOT="/voc")
    assert found.returncode == 0, found.stderr
    calls = [call.split()[:2] for line in found.stdout.splitlines() for call in line.split(" -- ")[" -- " in line :]]
    for call in (
        ["finetune_novel.py", "configs/demo/discovery.yaml"],
        ["finetune_novel.py", "configs/discovery/pascal_subset.yaml"],
        ["train_incremental.py", "configs/demo/incremental.yaml"],
        ["train_incremental.py", "configs/demo/incremental_baselines.yaml"],
        ["train_incremental.py", "configs/incremental/voc_subset.yaml"],
        ["pretrain_contrast.py", "configs/demo/contrast.yaml"],
        ["probe_features.py", "configs/demo/probe.yaml"],
        ["pretrain_contrast.py", "configs/contrast/voc_subset.yaml"],
    ):
        assert call in calls, call
    assert calls[0] == ["prepare_data.py", "demo"]
    assert calls[-3:] == [["collect.py", "--cost"], ["-m", "benchmarks.gpu"], ["-m", "benchmarks.gpu"]]
    assert found.stdout.count("--agree") == 1 and "/ncdss/fold0/eums/best.pth datasets/demo/images" in found.stdout
    assert "train_base.py configs/discovery/pascal_subset.yaml" in found.stdout and "data.root=/voc" in found.stdout


@pytest.mark.parametrize(
    "config",
    ["demo/incremental", "demo/incremental_baselines", "incremental/voc_subset", "demo/contrast", "demo/probe"],
)
def test_keys_of_the_check_are_keys_of_the_systems(config):
    """What it sets for all of them."""
    from utils.config.reader import load_config

    keys = ["device=cpu", "amp=bf16", "data.max_side=null", "data.workers=4", "data.cache=false", "data.image_size=64"]
    cfg = load_config([str(ROOT / "configs" / f"{config}.yaml"), *keys, "model.atrous_rates=[6,12,18]"], "")
    assert cfg.model.atrous_rates == (6, 12, 18) and cfg.data.image_size == 64
