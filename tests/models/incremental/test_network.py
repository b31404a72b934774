import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from models.incremental.files import SSUL, StepWeights
from models.incremental.network import IncrementalNet
from models.incremental.scores import best_channel, predicted_ids
from models.segmentation_files import inverse, renamed
from tests.networks import incremental_network
from tests.recipe_weights import recipe_weights

FIXTURES = Path(__file__).parents[2] / "fixtures" / "incremental"
NETWORKS = {
    "deeplabv3_resnet101": "resnet101",
    "deeplabv3_resnet50": "resnet50",
    "deeplabv3_mobilenet": "mobilenet_v2",
    "deeplabv3plus_resnet50": "resnet50",
}
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
CASES = json.loads((FIXTURES / "logits_index.json").read_text())


def build(model: str, num_classes: list[int], stride: int = 16) -> IncrementalNet:
    decoder = "deeplabv3plus" if "plus" in model else "deeplabv3"
    keys = {"backbone": NETWORKS[model], "output_stride": stride, "atrous_rates": RATES[stride], "decoder": decoder}
    return incremental_network(num_classes, head_channels=256, **keys)


def tiny(num_classes=(1, 1, 3)) -> IncrementalNet:
    torch.manual_seed(0)
    return incremental_network(num_classes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['model']}-{case['output_stride']}")
@torch.no_grad()
def test_logits_are_those_of_the_official_code(case):
    expected = np.load(FIXTURES / "logits.npz")
    image = torch.tensor(np.random.RandomState(0).randn(1, 3, 97, 65), dtype=torch.float32)
    model = build(case["model"], case["num_classes"], case["output_stride"]).eval()
    official = recipe_weights(renamed(model.state_dict(), inverse(SSUL)))
    model.load_state_dict(renamed(official, SSUL))
    low = model.cell_logits(image)
    tolerance = 1e-4 * case["abs_max"]
    np.testing.assert_allclose(low, expected[f"low_{case['n']}"], atol=tolerance, rtol=0)
    np.testing.assert_allclose(
        model(image).logits[..., ::8, ::8], expected[f"full_{case['n']}"], atol=tolerance, rtol=0
    )
    assert list(model(image).logits.shape) == case["full_shape"]


@pytest.mark.parametrize("model", NETWORKS)
def test_keys_are_those_of_the_official_checkpoints(model):
    listed = json.loads((FIXTURES / "state_dict_keys.json").read_text())[model]
    with torch.device("meta"):
        own = build(model, listed["num_classes"]).state_dict()
    state = renamed(own, inverse(SSUL))
    assert {key: list(value.shape) for key, value in state.items()} == listed["state"]
    assert list(StepWeights(Path("x.pth"), state).heads) == listed["num_classes"]


def test_one_head_is_torchvision():
    """With torchvision's dropout and rates a single head gives its DeepLabV3."""
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=None, num_classes=5).eval()
    keys = {"backbone": "resnet50", "output_stride": 8, "atrous_rates": (12, 24, 36), "head_channels": 256}
    ours = incremental_network([5], **keys).eval()
    names = {"classifier.0.": "decoder.aspp.", "classifier.1.": "classifier.head.0.0."}
    names |= {"classifier.2.": "classifier.head.0.1.", "classifier.4.": "classifier.head.0.3."}
    state = {}
    for key, value in theirs.state_dict().items():
        prefix = next((p for p in names if key.startswith(p)), "")
        state[names.get(prefix, "") + key.removeprefix(prefix)] = value
    ours.load_state_dict(state)
    image = torch.randn(1, 3, 49, 65, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(image).logits, theirs(image)["out"])


def test_pieces_make_the_whole():
    model = tiny().eval()
    image = torch.randn(2, 3, 40, 40)
    features = model.features(image)
    parts = [model.classifier(features, [head]) for head in model.classifier.head]
    assert [part.shape[1] for part in parts] == model.classifier.num_classes == [1, 1, 3]
    torch.testing.assert_close(model.upsample(torch.cat(parts, 1), (40, 40)), model(image).logits)


def test_dropout_is_the_only_draw_in_training():
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    (features,) = model.decoder.parts(model.levels(torch.randn(2, 3, 40, 40)))
    assert model.decoder.dropout.p == 0.1
    (dropped,) = model.decoder.drop([features])
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], features[kept] / 0.9)
    assert 0 < (~kept & (features > 0)).float().mean() < 0.3


def test_new_channels_start_as_the_unknown_one():
    model = tiny().eval()
    model.classifier.add(2)
    model.classifier.transfer_unknown()
    assert model.classifier.num_classes == [1, 1, 3, 2]
    logits = model(torch.randn(2, 3, 40, 40)).logits
    for channel in (5, 6):  # a convolution may sum its channels in other orders
        torch.testing.assert_close(logits[:, channel], logits[:, 0])
    assert not logits[:, 1].equal(logits[:, 0])
    with torch.no_grad():  # copies, not the same tensors
        model.classifier.head[0][3].bias += 1
    assert not model(torch.randn(2, 3, 40, 40)).logits[:, 5].equal(logits[:, 5])


def test_initialisation_and_momentum():
    model = build("deeplabv3_resnet50", [1, 1, 5])
    weight = model.classifier.head[2][0].weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    plus = build("deeplabv3plus_resnet50", [1, 1, 5])
    assert plus.classifier.head[2][0].weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert plus.classifier.add(2)[0].weight.std().item() == pytest.approx(0.001, rel=0.02)
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.01} and model.classifier.head[0][1].momentum == 0.1


def test_unknown_counts_for_background():
    """Background 0.4 and unknown 0.3 together beat a class of 0.6; apart neither does."""
    scores = torch.tensor([0.3, 0.4, 0.6])
    logits = torch.logit(scores).view(1, 3, 1, 1)
    assert predicted_ids(logits, unknown=True, loss="bce").item() == 0
    assert predicted_ids(logits, unknown=False, loss="bce").item() == 2
    assert predicted_ids(torch.tensor([0.0, 1, 2]).view(1, 3, 1, 1), unknown=True, loss="ce").item() == 1


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_the_predicted_id_is_that_of_the_largest_score(loss, spread):
    """Also where sigmoids round to 1, of which the first wins."""
    logits = spread * torch.randn(2, 12, 40, 40, generator=torch.Generator().manual_seed(2))
    for memory in (torch.contiguous_format, torch.channels_last):
        z = logits.contiguous(memory_format=memory)
        scores = z.sigmoid() if loss == "bce" else z.softmax(1)
        folded = torch.cat([scores[:, :1] + scores[:, 1:2], scores[:, 2:]], dim=1)
        assert predicted_ids(z, unknown=True, loss=loss).equal(folded.argmax(1))
        assert predicted_ids(z, unknown=False, loss=loss).equal(scores.argmax(1))
        score, channel = best_channel(z, loss)
        assert score.equal(scores.max(1).values) and channel.equal(scores.max(1).indices)
    assert loss == "ce" or spread == 1 or (scores == 1).sum() > 100
