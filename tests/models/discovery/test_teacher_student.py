import copy
import math

import pytest
import torch
from torch import nn

from models.discovery.teacher_student import TeacherStudent, reinitialize
from tests.networks import discovery_network

NORMS = nn.modules.batchnorm._BatchNorm


def build(momentum: float = 0.99, **options) -> TeacherStudent:
    torch.manual_seed(0)
    return TeacherStudent(discovery_network(5, **options), momentum)


def disturb(network: nn.Module) -> None:
    """Move what trains, and the statistics, as optimiser steps and forward passes would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator)
    for module in network.modules():
        if isinstance(module, NORMS):
            module.running_mean += 1


def test_teacher_starts_as_a_copy_with_another_decoder():
    model = build()
    teacher = model.teacher.state_dict()
    for key, value in model.student.state_dict().items():
        drawn = key.startswith(("decoder", "classifier")) and value.dim() == 4
        assert torch.equal(value, teacher[key]) != drawn, key  # the last bias, too, is the student's


def test_both_decoders_are_drawn_anew():
    """Not only the teacher's; both keep the last bias and the backbone."""
    network = discovery_network(5)
    before = copy.deepcopy(network.state_dict())
    model = TeacherStudent(network)
    for key, value in before.items():
        drawn = key.startswith(("decoder", "classifier")) and value.dim() == 4
        for copied in (model.student, model.teacher):
            assert torch.equal(copied.state_dict()[key], value) != drawn, key


def test_decoder_initialisation():
    """Kaiming-normal, fan-in, ReLU: standard deviation sqrt(2 / fan_in); BatchNorm neutral; the last bias untouched."""
    torch.manual_seed(0)
    network = discovery_network(30, head_channels=64)
    decoder, bias = nn.Sequential(network.decoder, network.classifier), network.classifier.bias.clone()
    for module in decoder.modules():
        if isinstance(module, NORMS):
            nn.init.constant_(module.weight, 3)
            nn.init.constant_(module.bias, 3)
    reinitialize(decoder)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / module.weight[0].numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=0.08)
            assert abs(module.weight.mean().item()) < 0.1 * expected
            assert abs(module.weight).max() > 2.5 * expected  # normal, not uniform
        elif isinstance(module, NORMS):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert torch.equal(network.classifier.bias, bias) and bias.abs().max() > 0


def test_update_by_hand():
    model = build(momentum=0.75)
    model.teacher.classifier.bias.data = torch.tensor([0.0, 4, 8, -4, 1])
    model.student.classifier.bias.data = torch.tensor([4.0, 4, 0, 4, 1])
    model.update_teacher()
    assert model.teacher.classifier.bias.tolist() == [1, 4, 6, -2, 1]
    assert model.student.classifier.bias.tolist() == [4, 4, 0, 4, 1]


def test_update_covers_parameters_and_no_statistics():
    model = build(momentum=0.9)
    disturb(model.student)
    student, before = model.student.state_dict(), copy.deepcopy(model.teacher.state_dict())
    model.update_teacher()
    parameters = dict(model.student.named_parameters())
    for key, value in model.teacher.state_dict().items():
        if key not in parameters:
            assert torch.equal(value, before[key]), key
        elif not parameters[key].requires_grad:
            assert torch.equal(value, student[key]), key
        else:
            torch.testing.assert_close(value, 0.9 * before[key] + 0.1 * student[key])


def test_repeated_updates_approach_the_student():
    model = build(momentum=0.5)
    disturb(model.student)
    target, start = model.student.decoder.refine[0].weight, model.teacher.decoder.refine[0].weight.clone()
    for _ in range(10):
        model.update_teacher()
    left = model.teacher.decoder.refine[0].weight - target
    torch.testing.assert_close(left, (start - target) / 2**10, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("freeze", ["none", "first_layers", "backbone", "all"])
def test_teacher_has_the_modes_of_the_student(freeze):
    model = build(freeze_batchnorm=freeze)
    for mode in (True, False, True):
        model.train(mode)
        pairs = zip(model.student.modules(), model.teacher.modules(), strict=True)
        assert all(student.training == teacher.training for student, teacher in pairs)
    assert model.teacher.decoder.dropout.training  # dropout is active in the teacher


def test_only_the_student_trains():
    model = build()
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert [p.requires_grad for p in model.student.parameters()].count(True) == len(
        model.student.decoder_parameters() + model.student.backbone_parameters()
    )
    image = torch.randn(2, 3, 32, 32)
    assert not model.teacher(image).logits.requires_grad and model.student(image).logits.requires_grad


def test_update_between_forward_and_backward_leaves_gradients_alone():
    """The order of a training step: student forward, update, teacher forward, backward."""
    plain, updated = build(dropout=0.0), build(dropout=0.0)
    image = torch.randn(2, 3, 32, 32)
    for model in (plain, updated):
        loss = model.student(image).logits.square().mean()
        if model is updated:
            model.update_teacher()
        loss.backward()
    for a, b in zip(plain.student.parameters(), updated.student.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_state_round_trip():
    model, other = build(), build()
    disturb(model.student)
    model.update_teacher()
    other.load_state_dict(model.state_dict())
    for network in (model, other):
        network.update_teacher()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_parts_that_trained_before_are_still_averaged_after_a_resume_that_freezes_them():
    """Resumed with another `trained`: theta_k still approaches theta_q (official: averages all parameters)."""
    before = build(momentum=0.5, trained=("layer3", "layer4"))
    disturb(before.student)
    before.update_teacher()
    resumed = build(momentum=0.5, trained=("layer4",))
    resumed.load_state_dict(before.state_dict())
    frozen = resumed.student.backbone.layer3[0].conv1.weight
    start = resumed.teacher.backbone.layer3[0].conv1.weight.clone()
    assert not frozen.requires_grad and not torch.equal(start, frozen)
    resumed.update_teacher()
    expected = 0.5 * start + 0.5 * frozen
    torch.testing.assert_close(resumed.teacher.backbone.layer3[0].conv1.weight, expected)


def test_parts_that_train_after_a_resume_only_are_averaged():
    before, resumed = build(trained=("layer4",)), build(momentum=0.5, trained=("layer3", "layer4"))
    resumed.load_state_dict(before.state_dict())
    disturb(resumed.student)
    start = resumed.teacher.backbone.layer3[0].conv1.weight.clone()
    resumed.update_teacher()
    expected = 0.5 * start + 0.5 * resumed.student.backbone.layer3[0].conv1.weight
    torch.testing.assert_close(resumed.teacher.backbone.layer3[0].conv1.weight, expected)


def test_frozen_parts_that_are_equal_stay_out_of_the_average():
    model = build()
    averaged = sum(model._averaged)
    model.load_state_dict(model.state_dict())
    assert sum(model._averaged) < len(model._averaged)
    assert sum(model._averaged) == averaged == sum(p.requires_grad for p in model.student.parameters())
