import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import losses.upsampled
from data.classes import load_task
from losses.ssul import (
    add_unknown,
    binary_cross_entropy,
    binary_cross_entropy_plain,
    focal_loss,
    pseudo_label,
    training_target,
)
from tests.losses.agreement import assert_agree

FIXTURES = Path(__file__).parents[1] / "fixtures" / "incremental"


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- labels


def test_labels_with_unknown_are_those_of_the_official_code():
    arrays = np.load(FIXTURES / "labels.npz")
    compared = 0
    for entry in json.loads((FIXTURES / "labels_index.json").read_text()):
        if not entry["unknown"]:
            continue
        voc = entry["dataset"] == "voc"
        task, step = load_task(entry["task"], "pascal" if voc else "ade"), entry["step"]
        maps = {"memory": task.label_map(range(step + 1)), "test": task.everything()}
        label = maps.get(entry["image_set"], task.label_map([step]))(arrays[f"{entry['dataset']}_mask"])
        label = torch.from_numpy(label)[None]
        if entry["image_set"] == "train":
            label = add_unknown(label, torch.from_numpy(arrays["voc_saliency"])[None] if voc else None)
        assert np.array_equal(label[0].numpy(), arrays[entry["key"]]), entry
        compared += 1
    assert compared > 10


def test_unknown_by_hand():
    label, salient = torch.tensor([[[0, 0, 1, 3, 255, 255]]]), torch.tensor([[[0, 7, 7, 0, 0, 1]]])
    assert add_unknown(label, salient).tolist() == [[[1, 0, 2, 4, 255, 255]]]
    assert add_unknown(label.to(torch.uint8), None).tolist() == [[[0, 0, 2, 4, 255, 255]]]


def test_pseudo_labels_by_hand():
    """Channels unknown, background, old, new; threshold 0.7. Only background pixels with a sure old class change."""
    label = torch.tensor([[[0, 1, 1, 0, 3, 255]]])
    best = torch.tensor([[[2, 2, 2, 1, 2, 2]]])
    sure = torch.tensor([[[0.7, 0.9, 0.69, 0.9, 0.9, 0.9]]])
    scores = torch.zeros(1, 3, 1, 6).scatter(1, best[:, None], sure[:, None])
    assert pseudo_label(label, *scores.max(1), 0.7, last_background=1).tolist() == [[[2, 2, 1, 0, 3, 255]]]
    scores = torch.tensor([[[[0.9, 0.1]], [[0.1, 0.8]]]])
    plain = pseudo_label(torch.tensor([[[0, 0]]]), *scores.max(1), 0.7, last_background=0)
    assert plain.tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    ("unknown", "expected"), [("saliency", [1, 0, 2]), ("background", [0, 0, 2]), ("off", [0, 0, 1])]
)
def test_what_is_unknown(unknown, expected):
    label, saliency = torch.tensor([[[0, 0, 1]]], dtype=torch.uint8), torch.tensor([[[0, 1, 1]]])
    assert training_target(label, saliency, unknown).tolist() == [[expected]]


# ---- loss


def test_bce_is_that_of_the_official_code():
    golden = np.load(FIXTURES / "bce.npz")
    logits = torch.tensor(golden["logits"], requires_grad=True)
    label = torch.tensor(golden["labels"])
    loss = binary_cross_entropy(logits, label)
    assert loss.item() == pytest.approx(float(golden["loss_mean"]), rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad, golden["grad_mean"], rtol=1e-5, atol=1e-9)
    valid = (label != 255).sum()
    assert loss.item() * valid.item() == pytest.approx(float(golden["loss_sum"]), rel=1e-6)


def test_the_plain_form_against_one_hot_planes():
    logits, label = draw(0, 2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    label[0, 0] = 255
    target = F.one_hot(torch.where(label == 255, 0, label), 5).permute(0, 3, 1, 2).double()
    per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    expected = per_pixel[label != 255].mean()
    assert binary_cross_entropy_plain(logits, label).item() == pytest.approx(expected.item(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.4, 1.0])
)
def test_the_fast_form_is_the_plain_one(seed, classes, height, width, ignored):
    """Any ratio of the two sizes; all channels, and some of them."""
    g, logits = torch.Generator().manual_seed(seed), 4 * draw(seed, 2, classes, 3, 4)
    label = torch.randint(0, classes + 1, (2, height, width), generator=g).clamp(max=classes - 1)
    label[torch.rand(label.shape, generator=g) < ignored] = 255
    for channels in (None, list(range(classes))[::-1]):
        assert_agree(
            lambda z, c=channels: binary_cross_entropy(z, label, c),
            lambda z, c=channels: binary_cross_entropy_plain(z, label, c),
            logits,
        )


def test_bce_of_some_channels_has_the_gradients_of_all():
    """Only channels 0, 1 and 4 train: the same gradients, and a value that lacks what the others add."""
    logits, label = draw(2, 2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    label[1, 2] = 255
    whole = logits.clone().requires_grad_()
    binary_cross_entropy(whole, label).backward()
    part = logits[:, [0, 1, 4]].clone().requires_grad_()
    binary_cross_entropy(part, label, channels=[0, 1, 4]).backward()
    torch.testing.assert_close(part.grad, whole.grad[:, [0, 1, 4]], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("channels", [None, [0, 1, 150]])
def test_bce_of_cells_is_that_of_the_up_sampled_logits(channels, monkeypatch):
    """152 channels (a product of all factors at once would underflow), strips of four rows, several images."""
    monkeypatch.setitem(losses.upsampled.STRIP, "cpu", 1)
    count = 152 if channels is None else len(channels)
    low = (6 * draw(6, 2, count, 3, 4)).float()
    label = torch.randint(0, 152, (2, 19, 30), generator=torch.Generator().manual_seed(7))
    label[:, :5, 3:9] = 255
    assert_agree(
        lambda z: binary_cross_entropy(z, label, channels),
        lambda z: binary_cross_entropy_plain(z, label, channels),
        low,
        rtol=1e-5,
        atol=1e-8,
    )


def test_bce_of_logits_beyond_all_doubt():
    """sigmoid is 0 or 1 in float32; the value is relu's, the gradient the difference from the target."""
    logits = torch.tensor([500.0, -500.0]).view(1, 2, 1, 1).requires_grad_()
    loss = binary_cross_entropy(logits, torch.ones(1, 1, 1))
    loss.backward()
    assert loss.item() == 1000 and logits.grad.flatten().tolist() == [1, -1]


def test_bce_without_labelled_pixels_is_zero():
    logits = draw(0, 1, 3, 2, 2).requires_grad_()
    loss = binary_cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_bce_by_hand():
    """Two classes, logits 0 and ln 3, class 1: ln 2 + ln 4 - ln 3."""
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    expected = math.log(2) + math.log(4) - math.log(3)
    assert binary_cross_entropy(logits, torch.tensor([[[1]]])).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_the_official_code_is_cross_entropy_over_all_pixels():
    """alpha 1 and gamma 0: ignored pixels add nothing to the sum, and one to the count."""
    logits, label = draw(4, 2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(5))
    label[0, 0] = 255
    expected = F.cross_entropy(logits, label, ignore_index=255, reduction="sum") / label.numel()
    assert focal_loss(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)


def test_focal_loss_by_hand():
    """Two pixels, one of them ignored; p = 3/4 of class 1: (1/4)^2 ln(4/3) / 2."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 5.0]]).view(1, 2, 1, 2)
    label = torch.tensor([[[1, 255]]])
    assert focal_loss(logits, label, 2.0).item() == pytest.approx(math.log(4 / 3) / 16 / 2, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_finite_gradient(gamma):
    """Also where a pixel is ignored, or right beyond doubt."""
    logits = torch.tensor([[0.0, 1.0, -200.0], [1.0, 0.0, 200.0]]).view(1, 2, 1, 3).requires_grad_()
    focal_loss(logits, torch.tensor([[[1, 255, 1]]]), gamma).backward()
    assert logits.grad.isfinite().all() and logits.grad[..., 0].abs().sum() > 0 and not logits.grad[..., 1].any()
