"""MaskContrast's losses against the official code, a plain loop and values by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from losses import maskcontrast as contrast
from losses.maskcontrast import (
    balanced_bce,
    balanced_weights,
    mean_directions,
    pixel_to_prototype,
    pixel_to_prototype_plain,
)
from tests.losses.agreement import assert_agree

FIXTURES = Path(__file__).parents[1] / "fixtures" / "contrast"
CASES = json.loads((FIXTURES / "g2_loss.json").read_text())
BCE = json.loads((FIXTURES / "g2_bce.json").read_text())


def inputs(case: dict, file: str) -> tuple[torch.Tensor, ...]:
    """(q, saliency logit, k, bank, mask of q, mask of k), see tests/fixtures/contrast/README.md."""
    r, shape = np.random.RandomState(case["seed"]), (case["b"], case["dim"], case["h"], case["w"])
    q = r.randn(*shape)
    saliency = 2 * r.randn(case["b"], case["h"], case["w"])
    k, queue = r.randn(*shape), r.randn(case["dim"], case["K"]).astype(np.float32)
    arrays = np.load(FIXTURES / file)
    drawn = (q, saliency, k, queue / np.linalg.norm(queue, axis=0), arrays["mask_q"], arrays["mask_k"])
    return tuple(torch.tensor(np.asarray(values, np.float32)) for values in drawn)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_losses_and_gradients_are_those_of_the_official_code(name, layout):
    case, file = CASES[name], f"g2_loss_{name[0]}.npz"
    q, saliency, k, bank, mask_q, mask_k = inputs(case, file)
    expected = np.load(FIXTURES / file)
    q = q.contiguous(memory_format=layout).requires_grad_()
    saliency.requires_grad_()
    found = pixel_to_prototype(q, mask_q, mean_directions(k, mask_k), bank, case["T"])
    bce = balanced_bce(saliency, mask_q)
    assert found.loss.item() == pytest.approx(case["contrastive_loss"], rel=1e-5)
    assert bce.item() == pytest.approx(case["saliency_loss"], rel=1e-5)
    assert 100 * found.top1.item() == pytest.approx(case["acc1"], abs=1e-3)
    assert 100 * found.top5.item() == pytest.approx(case["acc5"], abs=1e-3)
    (found.loss + bce).backward()
    np.testing.assert_allclose(q.grad.numpy(), expected["grad_q"], atol=1e-6)
    np.testing.assert_allclose(saliency.grad.numpy(), expected["grad_sal"], atol=1e-7)
    assert not found.top1.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_logits_and_weights_are_those_of_the_official_code(name):
    case, file = CASES[name], f"g2_loss_{name[0]}.npz"
    q, _, k, bank, mask_q, mask_k = inputs(case, file)
    references = torch.cat([mean_directions(k, mask_k), bank.T])
    logits = F.normalize(q, dim=1).permute(0, 2, 3, 1)[mask_q > 0] @ references.T / case["T"]
    np.testing.assert_allclose(logits[:50], np.load(FIXTURES / file)["logits_first50"], atol=1e-4, rtol=1e-5)
    weights = balanced_weights(mask_q.flatten(1).sum(1))
    np.testing.assert_allclose(weights, case["class_weights_first_b"], rtol=1e-5)


@pytest.mark.parametrize("name", BCE)
def test_balanced_bce_is_that_of_the_official_code(name):
    case, arrays = BCE[name], np.load(FIXTURES / "g2_bce_inputs.npz")
    logit = torch.tensor(arrays[f"logit_{name}"], requires_grad=True)
    loss = balanced_bce(logit, torch.tensor(arrays[f"label_{name}"]))
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    assert logit.grad.abs().sum().item() == pytest.approx(case["grad_abs_sum"], rel=1e-5)


def test_two_pixels_by_hand():
    """A pixel along its own prototype, one along the other; T = 1, no bank: nll = ln(1 + e^-1) and ln(1 + e)."""
    q = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]], [[[5.0, 0.0]], [[0.0, 2.0]]]])  # x, y; x, y
    mask = torch.tensor([[[1, 0]], [[1, 0]]])
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = pixel_to_prototype(q, mask, prototypes, torch.zeros(2, 0), 1.0)
    assert found.loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2)
    assert found.top1.item() == 0.5 and found.top5.item() == 1.0


def test_prototypes_by_hand():
    embedding = torch.tensor([[[[2.0, 0.0, 7.0]], [[0.0, 9.0, 7.0]]]])
    found = mean_directions(embedding, torch.tensor([[[1, 1, 0]]]))
    torch.testing.assert_close(found, torch.full((1, 2), 0.5**0.5))  # lengths of pixels do not count
    assert not mean_directions(embedding, torch.zeros(1, 1, 3)).any()


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(0, 5), st.sampled_from([0.07, 0.5, 1.0]))
def test_the_fast_form_is_the_plain_one(seed, images, size, temperature):
    """Also for images without an object, and a batch without any."""
    torch.manual_seed(seed)
    q, share = torch.randn(images, 3, 4, 5), torch.tensor([0.0, 0.4, 1.0])[torch.randint(3, (images, 1, 1))]
    mask, references = torch.rand(images, 4, 5) < share, (F.normalize(torch.randn(images, 3)), torch.randn(3, size))

    def loss_by(form):
        return lambda z: form(z, mask, *(values.to(z.dtype) for values in references), temperature).loss

    assert_agree(loss_by(pixel_to_prototype), loss_by(pixel_to_prototype_plain), q)
    found, plain = (form(q, mask, *references, temperature) for form in (pixel_to_prototype, pixel_to_prototype_plain))
    torch.testing.assert_close(found[1:], plain[1:])
    assert mask.any() or found.loss == plain.loss == 0


def test_the_plain_form_is_a_weighted_cross_entropy():
    torch.manual_seed(3)
    q, mask = torch.randn(3, 4, 5, 6), torch.rand(3, 5, 6) < 0.5
    prototypes, bank = F.normalize(torch.randn(3, 4), dim=1), torch.randn(4, 7)
    own = torch.arange(3)[:, None, None].expand_as(mask)[mask]
    logits = F.normalize(q, dim=1).permute(0, 2, 3, 1)[mask] @ torch.cat([prototypes, bank.T]).T / 0.5
    weights = torch.cat([balanced_weights(mask.flatten(1).sum(1)), torch.ones(7)])
    expected = F.cross_entropy(logits, own, weights)
    torch.testing.assert_close(pixel_to_prototype_plain(q, mask, prototypes, bank, 0.5).loss, expected)


def test_small_masks_weigh_more():
    weights = balanced_weights(torch.tensor([1.0, 9.0, 0.0]))
    torch.testing.assert_close(weights, torch.tensor([1 / math.log(1.12), 1 / math.log(1.92), 1 / math.log(1.02)]))


def test_one_sided_batches_have_no_saliency_loss():
    logit = torch.tensor([[[200.0, -200.0]]], requires_grad=True)
    for value in (0, 1):
        loss = balanced_bce(logit, torch.full((1, 1, 2), value))
        loss.backward()
        assert loss.item() == 0 and not logit.grad.any()


def test_half_precision_embeddings_under_autocast():
    torch.manual_seed(0)
    q, mask = torch.randn(2, 4, 6, 6), torch.rand(2, 6, 6) < 0.5
    prototypes, bank = F.normalize(torch.randn(2, 4)), F.normalize(torch.randn(4, 3), dim=0)
    half = q.bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pixel_to_prototype(half, mask, prototypes, bank, 0.5).loss
        assert mean_directions(half, mask).dtype == torch.float32
    expected = pixel_to_prototype(full, mask, prototypes, bank, 0.5).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), full.grad, atol=1e-4, rtol=1e-2)


def test_all_pixels_give_what_the_object_pixels_give(monkeypatch):
    """On a GPU the background is computed too, and weighs nothing."""
    torch.manual_seed(1)
    q, mask, bank = torch.randn(3, 4, 5, 6), torch.rand(3, 5, 6) < 0.3, torch.randn(4, 7)
    prototypes, found = F.normalize(torch.randn(3, 4)), []
    for pick in (contrast.pick, lambda inside: slice(None)):
        monkeypatch.setattr(contrast, "pick", pick)
        leaf = q.clone().requires_grad_()
        result = pixel_to_prototype(leaf, mask, prototypes, bank, 0.5)
        result.loss.backward()
        found.append((*(value.detach() for value in result), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
