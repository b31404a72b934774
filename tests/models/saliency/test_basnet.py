"""BASNet against its published size and names, and details that shapes do not determine."""

import pytest
import torch

from models.saliency.basnet import BASNet, RefUnet, three_convs
from models.saliency.estimator import share_norm

STAGES = ("bg", "6d", "5d", "4d", "3d", "2d", "1d")


@pytest.fixture(scope="module")
def model() -> BASNet:
    torch.manual_seed(0)
    return BASNet().eval()


def test_published_size_and_names(model):
    assert sum(p.numel() for p in model.parameters()) == 87_060_360
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    expected = {
        "inconv.weight": (64, 3, 3, 3),
        "inbn.running_mean": (64,),
        "encoder1.2.conv2.weight": (64, 64, 3, 3),
        "encoder4.0.downsample.1.bias": (512,),
        "resb5_1.conv1.weight": (512, 512, 3, 3),
        "resb6_3.bn2.weight": (512,),
        "convbg_m.bias": (512,),
        "bnbg_2.running_var": (512,),
        "conv6d_1.weight": (512, 1024, 3, 3),
        "conv4d_m.weight": (512, 512, 3, 3),
        "conv4d_2.weight": (256, 512, 3, 3),
        "bn1d_1.weight": (64,),
        "outconvb.weight": (1, 512, 3, 3),
        "outconv3.weight": (1, 128, 3, 3),
        "refunet.conv0.weight": (64, 1, 3, 3),
        "refunet.bn5.num_batches_tracked": (),
        "refunet.conv_d4.weight": (64, 128, 3, 3),
        "refunet.bn_d1.weight": (64,),
        "refunet.conv_d0.weight": (1, 64, 3, 3),
    }
    assert expected.items() <= shapes.items()
    parts = {key.split(".")[0] for key in shapes}
    norms_and_convs = {f"{kind}{stage}_{part}" for kind in ("conv", "bn") for stage in STAGES for part in "1m2"}
    assert parts == {"inconv", "inbn", "outconvb", "refunet"} | norms_and_convs | {
        *(f"encoder{i}" for i in range(1, 5)),
        *(f"resb{stage}_{i}" for stage in (5, 6) for i in (1, 2, 3)),
        *(f"outconv{i}" for i in range(1, 7)),
    }


def test_bridge_and_stage_six_are_dilated(model):
    rates = {stage: [model[f"conv{stage}_{part}"].dilation[0] for part in "1m2"] for stage in STAGES}
    assert rates == dict.fromkeys(STAGES, [1, 1, 1]) | {"bg": [2, 2, 2], "6d": [1, 2, 2]}


@torch.no_grad()
def test_map_and_sides_have_the_size_of_the_image(model):
    logits, sides = model(torch.randn(1, 3, 64, 96))
    assert logits.shape == (1, 1, 64, 96) and [side.shape for side in sides] == [logits.shape] * 7
    torch.testing.assert_close(logits, model["refunet"](sides[0]))
    coarse = sides[-1][0, 0]  # of the bridge, at a 32nd of the image
    steps = (coarse[:, 1:] - coarse[:, :-1])[:, 16:47]
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=0)  # linear between its cells


@torch.no_grad()
def test_refinement_adds_a_residual():
    torch.manual_seed(0)
    module, coarse = RefUnet().eval(), torch.randn(1, 1, 32, 48)
    module["conv_d0"].weight.zero_()
    module["conv_d0"].bias.fill_(0.25)
    torch.testing.assert_close(module(coarse), coarse + 0.25)


def test_old_weights_end_stage_six_with_the_norm_of_stage_five():
    """The code that trained them did; the norm of stage 6 is as it was initialised."""
    torch.manual_seed(0)
    blocks = torch.nn.ModuleDict(three_convs("5d", 2, 2, 2, (1, 1, 1)) | three_convs("6d", 2, 2, 2, (1, 1, 1)))
    for value in (blocks["bn5d_2"].running_mean, blocks["bn5d_2"].running_var, blocks["bn5d_2"].weight.data):
        value.uniform_(0.5, 2)
    old = blocks.state_dict()
    shared = share_norm(old)
    assert shared.keys() == old.keys()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(shared[f"bn6d_2.{name}"], old[f"bn5d_2.{name}"])
        assert torch.equal(shared[f"bn6d_1.{name}"], old[f"bn6d_1.{name}"])
    new = old | {"bn6d_2.running_mean": torch.tensor([0.1, 0.0])}
    assert share_norm(new) is new
    assert share_norm({}) == {}
