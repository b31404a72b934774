"""Complementary, similarity and distillation losses against plain loops over pixels and pairs."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from losses.maskformer import find_targets
from losses.simformer import (
    at_points,
    common_class,
    complementary_loss,
    complementary_loss_plain,
    count_pairs,
    distillation_loss,
    draw_labelled,
    draw_points,
    either,
    new_queue,
    not_base,
    point_scores,
    push_counts,
    same_label,
    score_similarity,
    shares_class,
    similarity_loss,
)
from tests.losses.agreement import assert_agree
from tests.losses.test_maskformer import by_loop, present

BASE = (0, 1)


def label_maps() -> torch.Tensor:
    """Three images of 8 x 8: base 0, novel 2 and 3, some unlabelled; base classes only; novel 3 only."""
    label = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    label[0, :4, :4], label[0, 4:, :4], label[0, 4:, 4:] = 0, 2, 3
    label[1, :, :4], label[1, :, 4:] = 0, 1
    label[2, 2:] = 3
    return label


def test_complement_by_the_formula():
    torch.manual_seed(0)
    masks, label, padding = torch.randn(2, 3, 4, 4, 4), label_maps(), torch.zeros(3, 8, 8, dtype=torch.bool)
    padding[2, :, 6:] = True
    targets = find_targets(label, present(label, 4), BASE, padding)
    assert targets.unmasked.tolist() == [1, 2, 5]
    assigned = torch.tensor([[0, 1, 2, 0, 1, 3], [3, 2, 0, 0, 1, 1]])
    for floor in (-2.9444, None):
        forms = (partial(form, floor=floor) for form in (complementary_loss, complementary_loss_plain))
        assert_agree(*(lambda z, form=form: form(z, targets, assigned) for form in forms), masks)
        found = complementary_loss(masks, targets, assigned, floor=floor)
        for layer in range(2):
            wanted = 0.0
            for image, proposals in ((0, assigned[layer, 1:3]), (2, assigned[layer, 5:])):
                large = F.interpolate(masks[layer, image, proposals][None], scale_factor=2, mode="bilinear")[0]
                union = torch.stack([*large, *([] if floor is None else [torch.full((8, 8), floor)])]).amax(0)
                focal, dice = by_loop(union, (label[image] != 0) & ~padding[image])
                wanted = wanted + 20 * focal + dice
            assert float(found[layer]) == pytest.approx(float(wanted) / (2 + 1e-5), rel=1e-5)
    assert not_base(targets)[0].sum() == 48 and not_base(targets, unlabelled=False)[0].sum() == 32
    assert torch.equal(
        complementary_loss(masks, targets, assigned, images=1), 2.00001 * complementary_loss(masks, targets, assigned)
    )


def test_complement_without_novel_classes_or_proposals():
    label = label_maps()[1:2]
    masks = torch.zeros(2, 1, 1, 4, 4)
    targets = find_targets(label, present(label, 4), BASE)
    for form in (complementary_loss, complementary_loss_plain):
        assert form(masks, targets, torch.zeros(2, 2, dtype=torch.long)).tolist() == [0, 0]
    label = label_maps()[2:]
    targets = find_targets(label, present(label, 4), BASE)
    assert complementary_loss(masks, targets, torch.full((2, 1), -1), floor=None).isfinite().all()


def test_points():
    region = torch.zeros(2, 3, 4, dtype=torch.bool)
    region[0, 1], region[1, 2, :2] = True, True
    cells = draw_points(region, 3, torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)))
    assert set(cells[0].tolist()) < {4, 5, 6, 7} and len(set(cells[0].tolist())) == 3
    assert {8, 9} < set(cells[1].tolist()) and len(set(cells[1].tolist())) == 3  # one from outside
    values = torch.arange(24.0).view(1, 2, 1, 3, 4)
    assert at_points(values, torch.tensor([[[0, 5], [11, 2]]]))[..., 0].tolist() == [[[0, 5], [23, 14]]]


def test_every_point_of_a_region_is_as_likely():
    region = torch.ones(1, 2, 2, dtype=torch.bool).expand(4000, 2, 2)
    cells = draw_points(region, 1, torch.rand(4000, 2, 2, generator=torch.Generator().manual_seed(0)))
    shares = cells.flatten().bincount() / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.03, rtol=0)  # 4 standard deviations


def test_common_class():
    there = torch.tensor([[[1, 1, 0, 1], [1, 0, 1, 1]], [[1, 0, 0, 0], [0, 1, 0, 0]]]).bool()
    noise = torch.rand(200, 2, 4, generator=torch.Generator().manual_seed(0))
    chosen = torch.stack([common_class(there, one) for one in noise])
    assert set(chosen[:, 0].tolist()) == {0, 3} and set(chosen[:, 1].tolist()) == {-1}
    assert 70 < int((chosen[:, 0] == 0).sum()) < 130
    assert shares_class(there).tolist() == [True, False]
    assert common_class(there, torch.zeros(2, 4)).tolist() == [0, -1]


def test_points_of_base_pixels():
    label = torch.full((2, 2, 8, 8), 255, dtype=torch.uint8)
    label[:, :, :6] = 2
    label[0, :, :4], label[0, :, 4], label[1, :, 0] = 0, 1, 1
    padding = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    padding[:, :, 7] = True
    is_base = torch.zeros(256, dtype=torch.bool)
    is_base[[0, 1]] = True
    noise = torch.rand(2, 2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    cells = draw_labelled(label, padding, is_base, torch.tensor([0, -1]), 10, noise)
    drawn, outside = label.flatten(2).gather(2, cells), padding.flatten(2).gather(2, cells)
    assert (drawn[0, :, :8] == 0).all() and (drawn[0, :, 8:] != 0).all()  # the common class, and the rest
    assert (drawn[1, :, :8] == 1).all() and (drawn[1, :, 8:] != 1).all()  # base pixels, and the rest
    assert not outside.any()


def test_similarity_by_a_loop_over_pairs():
    torch.manual_seed(0)
    points, other = 7, torch.tensor([[40.0, 60.0], [3.0, 5.0]])
    label = torch.randint(0, 3, (2, 2, points))
    base, logits = label < 2, torch.randn(2, 2, points, points)
    same = same_label(label)
    found = similarity_loss(logits, same, either(base), other)
    total, count = 0.0, 0
    for pair in range(2):
        for image in range(2):
            for i in range(points):
                for j in range(points):
                    a, b = label[pair, image, i], label[pair, 1 - image, j]
                    if a > 1 and b > 1:
                        continue
                    prob = float(logits[pair, image, i, j].sigmoid())
                    total -= 65 / 108 * math.log(prob) if a == b else 43 / 108 * math.log(1 - prob)
                    count += 1
    assert float(found) == pytest.approx(total / count, rel=1e-5)
    assert float(similarity_loss(logits, same, either(base), other, total=1)) == pytest.approx(total, rel=1e-5)
    assert float(similarity_loss(logits, same, torch.zeros_like(same), other)) == 0


def test_balance_queue():
    same = torch.zeros(1, 2, 10, 10, dtype=torch.bool)
    same[:, :, 5, 5] = same[:, :, 1] = True  # the second is not looked at
    assert count_pairs(same).tolist() == [2, 6]
    queue = new_queue()
    for _ in range(24):
        queue = push_counts(queue, count_pairs(same))
    assert queue.sum(0).tolist() == [24 * 2 + 1, 24 * 6 + 1]
    queue = push_counts(push_counts(queue, torch.tensor([5.0, 7.0])), torch.tensor([0.0, 1.0]))
    assert len(queue) == 25 and queue.sum(0).tolist() == [23 * 2 + 5, 23 * 6 + 8]


@pytest.mark.parametrize("kind", ["score", "logit", "positive_logit"])
@pytest.mark.parametrize("pairing", ["released", "paper"])
def test_student_by_a_loop_over_pairs(kind, pairing):
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 2, 3, 5), torch.randn(1, 2, 4, 3)
    classes = torch.tensor([1, 3]) if kind == "score" else None
    scores = point_scores(logits, masks, classes, kind)
    plain = torch.zeros(2, 4, 2 if kind == "score" else 4)
    for image in range(2):
        for point in range(4):
            for q in range(3):
                value = {"score": logits.softmax(-1), "logit": logits, "positive_logit": logits.relu()}[kind][
                    0, image, q
                ]
                value = value[:4] if classes is None else value[classes]
                plain[image, point] += value * masks[0, image, point, q].sigmoid()
    torch.testing.assert_close(scores[0], plain)
    found = score_similarity(scores, pairing)
    for image in range(2):
        other = image if pairing == "released" else 1 - image
        for i in range(4):
            for j in range(4):
                wanted = F.cosine_similarity(plain[image, i], plain[other, j], dim=0).relu()
                assert float(found[0, image, i, j]) == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize("function", ["ce", "cce", "b0.3"])
def test_distillation_by_a_loop_over_pairs(function):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 2, 3, 3), torch.rand(2, 2, 3, 3)
    student[0, 0, 0, 0], teacher[0, 0, 0, 1] = 1.0, 0.0  # logarithms of 0
    valid = torch.rand(2, 2, 3, 3) < 0.5

    def plain(s: float, t: float) -> float:
        if function == "ce":
            s, t = (min(max(value, 0.01), 0.99) for value in (s, t))
            return -t * math.log(s) - (1 - t) * math.log(1 - s)
        if function == "cce":
            return -max(t - 0.5, 0) * math.log(s + 1) - max(0.5 - t, 0) * math.log(2 - s)
        return -(t - 0.3) * s

    each = [plain(float(s), float(t)) for s, t in zip(student[1].flatten(), teacher[1].flatten(), strict=True)]
    shares = torch.tensor([False, True])
    found = distillation_loss(student, teacher, shares, function)
    assert float(found) == pytest.approx(sum(each) / 18 / 2, rel=1e-5)
    chosen = [value for value, use in zip(each, valid[1].flatten().tolist(), strict=True) if use]
    found = distillation_loss(student, teacher, shares, function, valid)
    assert float(found) == pytest.approx(sum(chosen) / len(chosen) / 2, rel=1e-5)
    assert float(distillation_loss(student, teacher, shares & False, function)) == 0
