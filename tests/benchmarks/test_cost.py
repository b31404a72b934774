"""Estimates of hours and memory: counted by hand on a convolution, and for a configuration of each system."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import cost
from benchmarks.cost_stages import eums_steps, steps_per_epoch
from utils.config.reader import load_config
from utils.recipe import Recipe

SMALL = ("data.image_size=65", "model.backbone=resnet18", "model.head_channels=8")


class Pointwise(nn.Module):
    """A 1x1 convolution of three channels to four."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)

    def normalize(self, image):
        return image.float()

    def forward(self, image):
        return self.conv(image)


class PointwiseRecipe(Recipe):
    score = None

    def parameter_groups(self):
        return [{"name": "all", "params": list(self.model.parameters()), "lr": 1.0}]

    def step(self, batch, epoch):
        return {"sum": self.model(self.model.normalize(batch["x"]["image"])).sum()}


def test_operations_by_hand():
    """2 x 12 operations a pixel forward, and as many for the gradient of the weights; none for that of the image."""
    counted = cost.count(
        PointwiseRecipe(Pointwise(), None), {"x": {"image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8)}}
    )
    assert counted.step == 2 * (5 * 64 * 2 * 12)
    assert counted.image == 64 * 2 * 12
    assert counted.memory > cost.CONTEXT + 5 * 3 * 64  # at least the images


def test_peak_of_what_is_alive_by_hand():
    """Maps of 1 MiB: two while the second is computed from the first, which nothing keeps."""
    mib = 2**20
    with FakeTensorMode():
        layer, x = nn.Linear(1024, 1024, bias=False), torch.zeros(256, 1024)
        with cost.PeakMemory([layer.weight, x]) as memory:
            y = layer(x).relu()
            assert (memory.live, memory.peak) == (mib, 2 * mib)
            y.sum().backward()
            assert memory.live > 4 * mib  # the gradient of the weights
            del y
            assert memory.live < 4 * mib + 100


def test_an_epoch_of_eums_ends_with_the_shortest_list():
    """2836 novel images of fold 0: 1900 clean and 936 unclean, from epoch 5 on 950 and 1886, eight at a time."""
    cfg = load_config(["configs/discovery/pascal.yaml"], "")
    assert eums_steps(cfg, 4, 7746, 2836) == 936 // 8 == 117
    assert eums_steps(cfg, 5, 7746, 2836) == 950 // 8 == 118
    assert steps_per_epoch(cfg.basic, 7746, 2836) == 354


def test_hours_by_hand(monkeypatch):
    """2000 steps of 5 TFLOP at 10 TFLOP/s take 1000 s; 16 000 images at 4 x 10 a second take 400 s."""
    monkeypatch.setattr(cost, "PEAK", 25e12)
    monkeypatch.setattr(cost, "SHARE", 0.4)
    stage = cost.Stage("s", lambda: None, {}, 8, 8, 2000, 0, ())
    found = cost.Cost(stage, cost.Counted(5e12, 1.0, 3 * 2**30), rate=10, workers=4)
    assert found.compute_hours == pytest.approx(1000 / 3600) and found.loader_hours == pytest.approx(400 / 3600)
    assert found.hours == found.compute_hours
    assert cost.header([found]).startswith("Estimated, not measured, for one A100 at 40 % of its peak in bf16 (")
    assert cost.header([found]).endswith(": s 3 GiB, 0.3 h.")
    slow = cost.Cost(stage, found.counted, rate=1, workers=4)
    assert ": s 3 GiB, 1.1 h; reading images (4 processes) bounds s." in cost.header([slow])


@pytest.mark.parametrize(
    ("config", "options", "names"),
    [
        ("discovery/pascal.yaml", (), ["base", "basic", "EUMS"]),
        ("discovery/coco.yaml", (), ["base", "basic", "EUMS"]),
        ("incremental/voc.yaml", (), ["step 0", "later steps"]),
        ("incremental/ade.yaml", ("method=joint",), ["step 0"]),
        ("incremental/voc_baselines.yaml", ("method=mib",), ["step 0", "later steps"]),
        ("incremental/voc_baselines.yaml", ("method=plop",), ["step 0", "later steps"]),
        ("contrast/voc_supervised.yaml", ("training.batch_size=4",), ["pre-training"]),
        ("contrast/probe_voc.yaml", (), ["linear probe"]),
        ("zeroshot/voc.yaml", (), ["step 1", "step 2", "step 3"]),
    ],
)
def test_every_kind_of_training(config, options, names, monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    found = list(cost.estimate(load_config([f"configs/{config}", *SMALL, *options], ""), images=1))
    assert [c.stage.name for c in found] == names
    for c in found:
        assert c.counted.step > 0 and c.counted.image > 0 and c.hours > 0
        assert cost.CONTEXT < c.counted.memory < cost.CONTEXT + 2**32
