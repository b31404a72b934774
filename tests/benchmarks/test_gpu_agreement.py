"""The comparison of two devices: of the CPU with itself, exactly and in bfloat16."""

import torch

from benchmarks import gpu, gpu_agreement
from tests.networks import discovery_network
from utils import checkpoint


def test_differences_of_the_cpu_from_itself():
    torch.manual_seed(0)
    model = discovery_network(5)
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    label = torch.randint(0, 5, (2, 48, 48))
    reference = gpu_agreement.measure(model, images, label, "cpu", torch.float32)
    same = gpu_agreement.compare(reference, gpu_agreement.measure(model, images, label, "cpu", torch.float32))
    assert all(value < 1e-5 for value in same.values())
    low = gpu_agreement.compare(reference, gpu_agreement.measure(model, images, label, "cpu", torch.bfloat16))
    assert low["gradient"] > 0 and low["logit"] > 0 and low["loss"] < 0.02


def test_a_trained_network_by_the_command(voc, tmp_path, capsys):
    settings = {"backbone": "resnet18", "atrous_rates": [1, 2], "head_channels": 8}
    state = discovery_network(3).state_dict()
    about = {"classes": [[0, "background"], [1, "disc"], [2, "square"]], "metrics": {}}
    config = {"system": "ncdss", "model": settings, "data": {"image_size": 32}}
    checkpoint.save(tmp_path / "model.pth", {"model": state, "config": config, **about})
    gpu.main(["--device", "cpu", "--agree", str(tmp_path / "model.pth"), str(voc / "images")])
    assert "images of 32 pixels" in capsys.readouterr().out
