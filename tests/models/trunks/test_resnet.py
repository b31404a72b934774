import pytest
import torch
from torch import nn
from torchvision.models import get_model, resnet

from models.trunks.resnet import RESNETS, ResNet
from utils.errors import UserError

OUT_CHANNELS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}
REPLACE_STRIDE = {8: [False, True, True], 16: [False, False, True], 32: [False, False, False]}


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm statistics and affine weights away from their neutral start, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.5)
        elif value.dim() == 4:
            fan_in = value[0].numel()
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return network.double().eval()


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_keys_and_feature_size(name, stride):
    with torch.device("meta"):
        backbone, full = ResNet(name, stride), get_model(name)
        features = backbone(torch.empty(1, 3, 64, 96))
    assert features.shape == (1, OUT_CHANNELS[name], 64 // stride, 96 // stride)
    assert backbone.out_channels == OUT_CHANNELS[name]
    assert list(backbone.state_dict()) == [key for key in full.state_dict() if not key.startswith("fc.")]


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_convolutions_are_those_of_torchvision(name, stride):
    with torch.device("meta"):
        ours = ResNet(name, stride)
        theirs = get_model(name, replace_stride_with_dilation=REPLACE_STRIDE[stride])
    modules = dict(ours.named_modules())
    for key, module in theirs.named_modules():
        if isinstance(module, nn.Conv2d):
            same = modules[key]
            assert (same.stride, same.dilation, same.padding) == (module.stride, module.dilation, module.padding), key


def test_features_equal_torchvision():
    theirs = randomize(resnet.resnet50(replace_stride_with_dilation=REPLACE_STRIDE[8]))
    ours = ResNet("resnet50", 8).double().eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    image = torch.randn(1, 3, 33, 41, generator=torch.Generator().manual_seed(1)).double()
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    torch.testing.assert_close(ours(image), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_trading_stride_for_dilation_keeps_the_features(name):
    """The trained filters see what they saw: sub-sampled features are those of the plain network."""
    image = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(1)).double()
    networks = {stride: randomize(ResNet(name, stride)) for stride in (8, 16, 32)}
    with torch.no_grad():
        plain = networks[32](image)
        torch.testing.assert_close(networks[16](image)[:, :, ::2, ::2], plain)
        torch.testing.assert_close(networks[8](image)[:, :, ::4, ::4], plain)


def test_other_strides_are_refused():
    with pytest.raises(UserError, match="output_stride=4.*8, 16 or 32"):
        ResNet("resnet18", 4)
