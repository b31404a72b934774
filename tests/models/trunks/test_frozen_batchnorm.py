import copy

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d as Reference

from models.trunks.frozen_batchnorm import FrozenBatchNorm2d


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
