import copy

import torch
from torch import nn
from torchvision.models.segmentation import deeplabv3
from torchvision.ops import FrozenBatchNorm2d as Reference

from models.parts import ASPP, FrozenBatchNorm2d


def test_aspp_has_the_keys_the_start_and_the_values_of_torchvision():
    networks = []
    for build in (deeplabv3.ASPP, ASPP):
        torch.manual_seed(0)
        networks.append(build(6, [2, 3], 4).eval())
    theirs, ours = networks
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    features = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours(features), theirs(features))
    assert ASPP(6, [2], 4, dropout=0.25).project[-1].p == 0.25


def test_a_frozen_norm_is_its_batchnorm_in_evaluation():
    norm, generator = nn.BatchNorm2d(3, eps=1e-3).eval(), torch.Generator().manual_seed(0)
    for value in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        value.copy_(torch.rand(3, generator=generator) + 0.5)
    frozen, reference = FrozenBatchNorm2d(3, 1e-3), Reference(3, 1e-3)
    for made in (frozen, reference):
        made.load_state_dict(copy.deepcopy(norm.state_dict()))
    features = torch.randn(2, 3, 4, 5, generator=generator)
    assert torch.equal(frozen(features), reference(features))
    torch.testing.assert_close(frozen(features), norm(features))
    assert not list(frozen.parameters()) and list(frozen.state_dict()) == list(reference.state_dict())
