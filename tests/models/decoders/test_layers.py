import torch
from torchvision.models.segmentation import deeplabv3

from models.decoders.layers import ASPP


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
