"""The benchmarks check that both ways agree before they time them; here on sizes that take no time."""

import pytest
import torch

from benchmarks import (
    checkpoints,
    clustering,
    contrast_loss,
    devices,
    evaluation,
    incremental_step,
    prototypes,
    weakshot,
    weakshot_pairs,
    zeroshot,
)
from models.deeplab import DeepLabV3
from models.trunks import build_backbone
from utils import checkpoint

SMALL = ["--images", "3", "--repeats", "1"]


@pytest.mark.parametrize("clusters", ["4", "7"])  # one-to-one and many-to-one matching
def test_evaluation(capsys, clusters):
    evaluation.main([*SMALL, "--batch", "2", "--size", "100", "--base", "3", "--novel", "4", "--clusters", clusters])
    assert f"match {clusters} clusters to 4 classes" in capsys.readouterr().out


def test_prototypes(capsys):
    prototypes.main([*SMALL, "--channels", "6", "--cells", "5", "--pixels", "32"])
    assert "adjoint on the mask" in capsys.readouterr().out


def test_checkpoints(capsys):
    checkpoints.main(["--mb", "4", "--repeats", "1"])
    assert "\n4 MB: torch.load " in capsys.readouterr().out


def test_devices():
    torch.manual_seed(0)
    model = DeepLabV3(build_backbone("resnet18", 8, "random"), 5, (1, 2), 8)
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    label = torch.randint(0, 5, (2, 48, 48))
    reference = devices.measure(model, images, label, "cpu", torch.float32)
    same = devices.compare(reference, devices.measure(model, images, label, "cpu", torch.float32))
    assert all(value < 1e-5 for value in same.values())
    low = devices.compare(reference, devices.measure(model, images, label, "cpu", torch.bfloat16))
    assert low["gradient"] > 0 and low["logit"] > 0 and low["loss"] < 0.02


def test_devices_from_a_file(voc, tmp_path, capsys):
    settings = {"backbone": "resnet18", "atrous_rates": [1, 2], "head_channels": 8}
    state = DeepLabV3(build_backbone("resnet18", 8, "random"), 3, (1, 2), 8).state_dict()
    about = {"classes": [[0, "background"], [1, "disc"], [2, "square"]], "metrics": {}}
    config = {"system": "ncdss", "model": settings, "data": {"image_size": 32}}
    checkpoint.save(tmp_path / "model.pth", {"model": state, "config": config, **about})
    devices.main([str(tmp_path / "model.pth"), str(voc / "images"), "--device", "cpu", "--count", "2"])
    assert "2 images of 32 pixels" in capsys.readouterr().out


def test_clustering(capsys):
    clustering.main(["--images", "400", "--features", "64", "--clusters", "8", "--classes", "4"])
    assert "400 prototypes of 64 features, 8 clusters" in capsys.readouterr().out


def test_incremental_step(capsys):
    incremental_step.main(["--backbone", "resnet18", "--size", "65", "--repeat", "1"])
    assert "ratio" in capsys.readouterr().out


def test_contrast_loss(capsys):
    contrast_loss.main(["--images", "3", "--size", "20", "--bank", "4", "--repeat", "1"])
    assert "ratio" in capsys.readouterr().out


def test_zeroshot(capsys):
    zeroshot.main(["--size", "64", "--repeats", "1"])
    assert all(name in capsys.readouterr().out for name in ("training sample",))


def test_weakshot_pairs(capsys):
    weakshot_pairs.main(["--images", "60", "--classes", "12", "--novel", "4", "--repeats", "1"])
    assert "pair statistics" in capsys.readouterr().out


def test_weakshot(capsys):
    weakshot.main(["--size", "64", "--classes", "9", "--points", "5", "--repeats", "1"])
    said = capsys.readouterr().out
    assert all(
        name in said for name in ("assignment", "losses and gradients", "classes of pixels", "memory", "threads")
    )
