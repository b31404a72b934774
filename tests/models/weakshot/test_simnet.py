"""SimNet against the plain network on concatenated embeddings."""

import gzip
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from models.weakshot.maskformer_files import OFFICIAL_SIMNET, rename_official
from models.weakshot.simnet import SimNet
from tests.recipe_weights import recipe_weights

KEYS = json.loads(gzip.decompress((Path(__file__).parents[2] / "fixtures/weakshot/keys.json.gz").read_bytes()))


def official_state() -> dict[str, torch.Tensor]:
    shapes = {key: torch.empty(shape) for key, shape in KEYS["coco_crosim"] if key.startswith(OFFICIAL_SIMNET)}
    return recipe_weights(shapes)


def plain(state: dict[str, torch.Tensor], x: torch.Tensor, train: bool) -> torch.Tensor:
    """The published network, map [1, 512, h, w] -> similarity [1, h, w], by its own names."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var = (state[f"{name}.running_{part}"].clone() for part in ("mean", "var"))
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], train)

    for i in range(3):
        block = f"{OFFICIAL_SIMNET}fc_branch.layers.block{i}"
        around = conv(f"{block}.sqz", x).relu() if i == 0 else x
        for layer in (1, 2):
            x = norm(f"{block}.bn{layer}", conv(f"{block}.layer{layer}", x)).relu()
        x = x + around
    return conv(f"{OFFICIAL_SIMNET}out_head", x).softmax(1)[:, 1]


def test_similarity_is_that_of_the_concatenated_embeddings():
    state = official_state()
    model = SimNet()
    model.load_state_dict(rename_official(state)[2])
    torch.manual_seed(0)
    points = torch.randn(1, 2, 3, 256)
    first, second = points[0]
    pairs = torch.cat([first[:, None].expand(3, 3, -1), second[None].expand(3, 3, -1)], -1)  # [3, 3, 512]
    for train in (False, True):
        model.train(train)
        wanted = plain(state, pairs.movedim(-1, 0)[None], train)[0]
        torch.testing.assert_close(model(first[:, None], second[None]).sigmoid(), wanted, atol=1e-5, rtol=1e-4)
    model.eval()
    both = model.pairs(points)
    torch.testing.assert_close(both[0, 0], model(first[:, None], second[None]))
    torch.testing.assert_close(both[0, 1], model(second[:, None], first[None]))  # the order of the two matters
    assert not torch.allclose(both[0, 0], both[0, 1].T, atol=1e-3)
    matched = model(first, second)
    torch.testing.assert_close(matched, both[0, 0].diagonal())


def test_every_weight_learns_and_statistics_move():
    model = SimNet(8, 8).train()
    before = model.blocks[0].bn1.running_mean.clone()
    model.pairs(torch.randn(2, 2, 4, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)
    assert not torch.equal(before, model.blocks[0].bn1.running_mean)


def test_without_batchnorm_a_pair_does_not_depend_on_the_others():
    net, points = SimNet(4, 8, 2, norm=False).train(), torch.rand(1, 2, 3, 4)
    found = net.pairs(points)
    assert not any("bn" in name for name in net.state_dict())
    assert torch.allclose(found[..., :2, :2], net.pairs(points[:, :, :2]), atol=1e-6)
