"""Assignment and losses of MaskFormer against the official ones and against plain loops."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses import maskformer
from losses.maskformer import (
    Targets,
    class_loss,
    class_loss_plain,
    find_targets,
    mask_costs,
    mask_costs_plain,
    mask_loss,
    mask_loss_plain,
    mask_losses,
    mask_losses_plain,
    match,
    match_plain,
    matching_costs,
)
from losses.simformer import complementary_loss
from tests.losses.agreement import assert_agree

FIXTURES = Path(__file__).parents[1] / "fixtures/weakshot"
# of COCO-Stuff, split 1, as far as the label maps here reach
NOVEL = [3, 6, 10, 11, 18, 19]
BASE = [number for number in range(171) if number not in NOVEL]


def present(label: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.stack([(label == number).flatten(1).any(1) for number in range(classes)], 1).to(torch.uint8)


def read(name: str) -> tuple[dict, torch.Tensor, torch.Tensor, Targets]:
    """(stored values, class logits [L, B, Q, K + 1], mask logits [L, B, Q, h, w], targets)."""
    stored = dict(np.load(FIXTURES / f"{name}.npz"))
    logits, masks = (torch.from_numpy(stored[key]).float() for key in ("pred_logits", "pred_masks"))
    if name == "matcher":
        logits, masks, label, padding = logits[None], masks[None], torch.from_numpy(stored["label_map"])[None], None
    else:
        label, padding = torch.from_numpy(stored["label_maps"]), torch.from_numpy(stored["pad"])
    return stored, logits, masks, find_targets(label, present(label, 171), BASE, padding)


def sorted_pairs(assigned: torch.Tensor) -> list[list[int]]:
    """[proposals, targets], by proposal."""
    proposals, order = assigned.sort()
    return [proposals.tolist(), order.tolist()]


def test_criterion_is_the_official_one():
    stored, logits, masks, targets = read("criterion")
    assert targets.classes.tolist() == [*stored["target_labels_b0"], *stored["target_labels_b1"]]
    assert targets.counts == [5, 2] and targets.mask_counts == [3, 2]
    assigned = match(logits, masks, targets)
    for layer in range(6):
        for image, part in enumerate(assigned[layer].split(targets.counts)):
            assert sorted_pairs(part) == stored[f"match_l{layer}_b{image}"].tolist()
    focal, dice = mask_loss(masks, targets, assigned)
    found = {
        "loss_cls_a": class_loss(logits, targets, assigned),
        "loss_mask_m": focal,
        "loss_mask_d": dice,
        "loss_comp": complementary_loss(masks, targets, assigned),
    }
    for name, values in found.items():
        wanted = [stored[f"loss/{name}{suffix}"] for suffix in ("_0", "_1", "_2", "_3", "_4", "")]
        np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-4, err_msg=name)
    weights = {"loss_cls_a": 1, "loss_mask_m": 20, "loss_mask_d": 1, "loss_comp": 0.15}
    total = sum(weight * float(found[name].sum()) for name, weight in weights.items())
    assert total == pytest.approx(stored["weighted_total"], rel=1e-4)


def test_masks_that_vanish_do_not_swap_the_answer():
    stored, logits, masks, targets = read("matcher")
    costs, visible = matching_costs(logits, masks, targets)
    assert visible.tolist() == stored["visible_after_downsample"].tolist()
    np.testing.assert_allclose(costs[:, 0].T.numpy(), stored["corrected_cost"], atol=1e-5)
    assert sorted_pairs(match(logits, masks, targets)[0]) == stored["corrected_match"].tolist()
    official = match(logits, masks, targets, official=True)
    assert sorted_pairs(official[0]) == stored["official_match"].tolist()
    focal, dice = mask_loss(masks, targets, official)
    assert float(focal) == pytest.approx(stored["official_loss/loss_mask_m"], rel=1e-4)
    assert float(dice) == pytest.approx(stored["official_loss/loss_mask_d"], rel=1e-4)
    assert float(class_loss(logits, targets, official)) == pytest.approx(stored["official_loss/loss_cls_a"], rel=1e-4)


def small(queries: int = 4, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Two layers, two images of 8 x 8 pixels, masks of 4 x 4; classes 0 and 1 with masks, 2 and 3 without."""
    torch.manual_seed(0)
    label = torch.full((2, 8, 8), 255, dtype=torch.uint8)
    label[0, :4, :4], label[0, 4:], label[1, :, :3], label[1, :, 5:] = 0, 2, 1, 3
    targets = find_targets(label, present(label, 4), [0, 1])
    return scale * torch.randn(2, 2, queries, 5), scale * torch.randn(2, 2, queries, 4, 4), targets


def test_assignment_is_the_cheapest_of_all():
    logits, masks, targets = small()
    prob, found = logits.softmax(-1), match(logits, masks, targets)
    for layer in range(2):
        for image, classes in enumerate([[0, 2], [1, 3]]):

            def cost(proposals: tuple[int, ...], layer=layer, image=image, classes=classes) -> float:
                x = masks[layer, image, proposals[0]]
                truth = (targets.label[image, ::2, ::2] == classes[0]).float()
                focal, dice = mask_losses_plain(x[None], truth[None])
                chance = sum(prob[layer, image, q, c] for q, c in zip(proposals, classes, strict=True))
                return float(20 * focal + dice - chance)

            best = min(permutations(range(4), 2), key=cost)
            assert found[layer, 2 * image : 2 * image + 2].tolist() == list(best)


def by_loop(x: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal, dice) of one mask, pixel by pixel, in double precision."""
    x, truth = x.double().flatten(), truth.double().flatten()
    focal, both, scores = 0.0, 0.0, 0.0
    for logit, inside in zip(x, truth, strict=True):
        s = logit.sigmoid()
        p, alpha = (s, 0.25) if inside else (1 - s, 0.75)
        focal = focal - alpha * (1 - p) ** 2 * p.log()
        both, scores = both + s * inside, scores + s
    return focal / len(x), 1 - (2 * both + 1) / (scores + truth.sum() + 1)


def test_the_plain_losses_by_a_loop_over_pixels():
    torch.manual_seed(1)
    logits, masks = 2 * torch.randn(3, 4, 5).double(), torch.rand(3, 4, 5) < 0.4
    by_pixel = zip(*map(by_loop, logits, masks), strict=True)
    for found, wanted in zip(mask_losses_plain(logits, masks), by_pixel, strict=True):
        torch.testing.assert_close(found, torch.stack(wanted))


@pytest.mark.parametrize("size", [(4, 5), (12, 15), (7, 6)])  # as large, a multiple, and neither
@pytest.mark.parametrize("pixels", [1, 2**21])
def test_fast_mask_losses_are_the_plain_ones(monkeypatch, size, pixels):
    """An empty mask and a full one among them."""
    monkeypatch.setattr(maskformer, "CPU_PIXELS", pixels)
    torch.manual_seed(1)
    logits, masks = 3 * torch.randn(4, 4, 5), torch.rand(4, *size) < torch.tensor([0.4, 0.0, 1.0, 0.7])[:, None, None]
    assert_agree(
        lambda z: torch.stack(mask_losses(z, masks)), lambda z: torch.stack(mask_losses_plain(z, masks)), logits
    )


def test_fast_matching_costs_are_the_plain_ones():
    torch.manual_seed(2)
    logits, masks = 3 * torch.randn(2, 5, 12), (torch.rand(3, 12) < 0.5).float()
    plain = mask_costs_plain(logits, masks, 20, 1)
    torch.testing.assert_close(mask_costs(logits, masks, 20, 1), plain, atol=1e-5, rtol=1e-5)
    focal, dice = mask_losses_plain(logits[:, :, None].flatten(0, 1), masks[1].expand(10, 1, 12))
    torch.testing.assert_close(plain[1], (20 * focal + dice).view(2, 5))


@pytest.mark.parametrize("queries", [1, 4])  # fewer proposals than targets, and more
def test_fast_losses_of_layers_are_the_plain_ones(queries):
    logits, masks, targets = small(queries)
    assigned = match_plain(logits, masks, targets)
    assert torch.equal(match(logits, masks, targets), assigned)
    assert_agree(lambda z: class_loss(z, targets, assigned), lambda z: class_loss_plain(z, targets, assigned), logits)
    assert_agree(
        lambda z: torch.stack(mask_loss(z, targets, assigned)),
        lambda z: torch.stack(mask_loss_plain(z, targets, assigned)),
        masks,
    )


def test_losses_of_a_layer_by_hand():
    logits, masks, targets = small()
    assigned = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]])
    large = F.interpolate(masks.flatten(0, 1), size=(8, 8), mode="bilinear", align_corners=False).view(2, 2, 4, 8, 8)
    label = targets.label
    focal, dice = mask_loss(masks, targets, assigned)
    for layer in range(2):
        pairs = [(large[layer, 0, assigned[layer, 0]], label[0] == 0), (large[layer, 1, 2], label[1] == 1)]
        losses = [by_loop(*pair) for pair in pairs]
        assert float(focal[layer]) == pytest.approx(float(sum(f for f, _ in losses)) / 2, rel=1e-5)
        assert float(dice[layer]) == pytest.approx(float(sum(d for _, d in losses)) / 2, rel=1e-5)
    wanted = torch.tensor([[0, 2, 4, 4], [4, 4, 1, 3]])  # the first layer's
    weight = torch.where(wanted == 4, 0.1, 1.0)
    per_proposal = -logits[0].log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
    mean = (weight * per_proposal).sum() / weight.sum()
    assert float(class_loss(logits, targets, assigned)[0]) == pytest.approx(float(mean), rel=1e-5)
    halved = class_loss(logits, targets, assigned, total=2 * weight.sum())
    assert float(halved[0]) == pytest.approx(float(mean) / 2, rel=1e-5)
    twice = mask_loss(masks, targets, assigned, num_masks=1)
    torch.testing.assert_close(twice[0], 2 * focal)


def test_only_assigned_proposals_learn_a_mask():
    _, masks, targets = small()
    masks.requires_grad_()
    sum(loss.sum() for loss in mask_loss(masks, targets, torch.tensor([[0, 1, 2, 3]] * 2))).backward()
    learns = masks.grad.flatten(3).any(-1)
    assert learns.tolist() == [[[True, False, False, False], [False, False, True, False]]] * 2


def test_infinite_logits_and_too_few_proposals():
    logits, masks, targets = small(queries=1)
    masks[0], masks[1] = -1e4, float("inf")
    assigned = match(logits, masks, targets)
    assert ((assigned >= 0).view(2, 2, 2).sum(-1) == 1).all()  # one proposal, two targets
    focal, dice = mask_loss(masks[:1], targets, assigned[:1])
    assert focal.isfinite().all() and dice.isfinite().all()
    # the class that got the proposal is all there is to learn in its image
    alone = [targets.classes[assigned[0] >= 0][image] for image in (0, 1)]
    wanted = -torch.stack([logits[0, b, 0].log_softmax(-1)[c] for b, c in enumerate(alone)]).mean()
    assert float(class_loss(logits[:1], targets, assigned[:1])) == pytest.approx(float(wanted))


def test_a_batch_without_masks_and_one_without_classes():
    logits, masks, _ = small()
    label = torch.full((2, 8, 8), 255, dtype=torch.uint8)
    for there in (torch.tensor([[0, 0, 1, 0], [0, 0, 0, 1]]), torch.zeros(2, 4)):
        targets = find_targets(label, there, [0, 1])
        assigned = match(logits, masks, targets)
        assert assigned.shape == (2, int(there.sum()))
        assert torch.equal(assigned, match_plain(logits, masks, targets))
        for form in (mask_loss, mask_loss_plain):
            assert [loss.tolist() for loss in form(masks, targets, assigned)] == [[0, 0], [0, 0]]
        assert class_loss(logits, targets, assigned).isfinite().all()
    # a class that is said to be there, but not in this crop, is found by its score alone
    targets = find_targets(label, torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]]), [0, 1])
    assert match(logits, masks, targets)[:, 0].tolist() == logits.softmax(-1)[:, 0, :, 0].argmax(-1).tolist()
    assert mask_loss(masks, targets, match(logits, masks, targets))[0].tolist() == [0, 0]
