"""Generators of ZS3Net against the official ones; the network with generators; classes that were in no list."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.segmentation import build_network
from models.segmenter import load_segmenter
from models.weights import WeightsFile
from models.zeroshot.generators import (
    DeviseNet,
    Generator,
    GraphGenerator,
    ZeroShotNet,
    read_generator,
    read_graph_generator,
)
from models.zeroshot.new_classes import add_classes
from tests.recipe_weights import recipe_weights
from utils.config.zeroshot import GeneratorTraining, ZeroShotConfig
from utils.config.zeroshot import Model as Section
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures/zeroshot"
KEYS = json.loads(gzip.decompress((FIXTURES / "keys.json.gz").read_bytes()))
WORDS = torch.from_numpy(np.random.RandomState(11).randn(7, 300).astype(np.float32))
NOISE = torch.from_numpy(np.random.RandomState(12).rand(7, 300).astype(np.float32))
TINY = {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": (1, 2)}


@torch.no_grad()
def test_generator_is_that_of_the_official_program():
    model = Generator(300, 300, 256).eval()
    assert [[key, list(value.shape)] for key, value in model.state_dict().items()] == KEYS["gmmn_generator"]
    assert model.model[0].bias.unique().tolist() == [pytest.approx(0.01)]
    model.load_state_dict(recipe_weights(model.state_dict()))
    stored = np.load(FIXTURES / "generators.npz")["mlp_out"]
    np.testing.assert_allclose(model(WORDS, NOISE).numpy(), stored, atol=1e-4)
    each = torch.cat([model(WORDS[i : i + 1], NOISE[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(each, model(WORDS, NOISE), atol=1e-5, rtol=0)
    which = torch.tensor([2, 2, 0, 1, 6, 5, 4])
    torch.testing.assert_close(model(WORDS, NOISE, which), model(WORDS[which], NOISE), atol=1e-5, rtol=0)


@torch.no_grad()
def test_graph_generator_is_that_of_the_official_program():
    model, stored = GraphGenerator(300, 300, 256).eval(), np.load(FIXTURES / "generators.npz")
    assert [[key, list(value.shape)] for key, value in model.state_dict().items()] == KEYS["gmmn_gcn_generator"]
    state = recipe_weights(model.state_dict())  # stored as [in, out], so that the fan-in is the first size
    for key in ("gcn1.weight", "gcn2.weight"):
        state[key] = state[key] * np.sqrt(state[key].shape[1] / state[key].shape[0])
    model.load_state_dict(state)
    found = model(WORDS, NOISE, torch.from_numpy(stored["adj"]).to_sparse_coo())
    np.testing.assert_allclose(found.numpy(), stored["gcn_out"], atol=1e-4)


def test_without_a_hidden_layer_the_generator_is_linear():
    model = Generator(3, 2, 4, hidden=0)
    assert model.model[0].weight.shape == (4, 5)
    word, noise = torch.randn(5, 3), torch.randn(5, 2)
    torch.testing.assert_close(model(word, noise), F.linear(torch.cat([word, noise], 1), *model.model[0].parameters()))


def net(graph: bool = False, classes: int = 4, words: int = 3, **options) -> ZeroShotNet:
    torch.manual_seed(0)
    settings = GeneratorTraining(noise_dim=2, hidden=6, **options)
    return ZeroShotNet(build_network(Section(**TINY), classes), torch.randn(classes, words), settings, graph)


def test_only_classifier_and_generators_train():
    model = net(graph=True)
    trained = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith("network")} == {"network.classifier"}
    assert any(name.startswith("graph_generator") for name in trained)
    before = model.network.classifier.weight.clone()
    model.start_classifier("keep")
    assert model.network.classifier.weight.equal(before)
    model.start_classifier("uniform")
    values = torch.cat([p.flatten() for p in model.network.classifier.parameters()])
    assert values.min() >= 0 and values.max() < 1 and values.std() > 0.2


def test_generators_come_back_from_our_files_and_from_official_ones(tmp_path):
    model = net(graph=True)
    torch.save({"format": 1, "model": model.state_dict()}, tmp_path / "ours.pth")
    official = {"state_dict": model.generator.state_dict(), "state_dict_GCN": model.graph_generator.state_dict()}
    torch.save({"epoch": 1, **official, "optimizer": {}, "best_pred": np.float64(0)}, tmp_path / "official.pth")
    for file in ("ours.pth", "official.pth"):
        for read, part in ((read_generator, model.generator), (read_graph_generator, model.graph_generator)):
            state = read(tmp_path / file).state_dict()
            assert all(state[key].equal(value) for key, value in part.state_dict().items())
    torch.save({"state_dict": model.network.state_dict()}, tmp_path / "step1.pth")
    with pytest.raises(UserError, match=r"step1.pth: holds no generator \(its keys begin with backbone, "):
        read_generator(tmp_path / "step1.pth")
    with pytest.raises(UserError, match="zs3.hidden=0: the graph generator has two layers"):
        ZeroShotNet(model.network, model.vectors, GeneratorTraining(hidden=0), graph=True)


def test_devise_logits_are_cosines():
    network = build_network(Section(**TINY), 3)
    model = DeviseNet(network, torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [1.0, 1, 0], [0, 0, 5]])).eval()
    image = torch.randn(1, 3, 32, 32)
    vector, logits = network(image).logits, model(image).logits
    assert logits.shape == (1, 4, 32, 32)
    expected = F.cosine_similarity(vector[0, :, 5, 7], torch.tensor([1.0, 1, 0]), dim=0)
    assert logits[0, 2, 5, 7].item() == pytest.approx(expected.item(), abs=1e-5)


# ---- classes that were in no list


def trained() -> tuple[ZeroShotNet, torch.Tensor]:
    """A network whose features are the word vectors themselves, and a classifier of four classes that fits them."""
    model = net(words=8)
    inner = model.generator.model
    with torch.no_grad():
        model.vectors.copy_(torch.eye(8)[:4])
        for layer in (inner[0], inner[3]):
            layer.weight.zero_(), layer.bias.zero_()
        inner[0].weight[:, :6].copy_(torch.eye(6))  # the first six numbers of a word vector pass
        inner[3].weight[:6].copy_(4 * torch.eye(6))
        model.network.classifier.weight.zero_()
        model.network.classifier.weight[:, :4, 0, 0] = 4 * torch.eye(4)
        model.network.classifier.bias.zero_()
    return model.eval(), torch.eye(8)[4:6]


def test_new_rows_tell_new_classes_and_the_old_ones_stay():
    model, new = trained()
    old = model.network.classifier.weight.clone()
    add_classes(model.network, model.generator, model.vectors, new)
    grown = model.network.classifier
    assert grown.out_channels == 6 and grown.weight[:4].equal(old)
    features = 4 * torch.eye(8)[:6]
    found = grown(features[..., None, None])[..., 0, 0].argmax(1)
    assert found.tolist() == [0, 1, 2, 3, 4, 5]
    again, _ = trained()
    add_classes(again.network, again.generator, again.vectors, new)
    assert again.network.classifier.weight.equal(grown.weight)


def test_a_segmenter_takes_classes_of_any_name(tmp_path):
    model, new = trained()
    config = ZeroShotConfig.model_validate({"model": TINY, "zs3": {"noise_dim": 2, "hidden": 6}})
    classes = [(0, "background"), (1, "one"), (2, "two"), (3, "three")]
    file = WeightsFile(tmp_path / "last.pth", model.state_dict(), {"classes": classes})
    segmenter = load_segmenter(file, config)
    assert segmenter.classes == classes and segmenter.num_outputs == 4
    grown = segmenter.extend(["zebra", "canoe"], new, model.vectors)
    assert grown.classes[4:] == [(4, "zebra"), (5, "canoe")] and grown.num_outputs == 6
    grown.model.eval()
    assert grown.labels(torch.zeros(1, 3, 32, 32)).shape == (1, 32, 32)
    with pytest.raises(UserError, match="word vectors of 3 numbers: the generator takes 10 with the noise"):
        load_segmenter(file, config).extend(["zebra"], torch.randn(1, 3), model.vectors)
    step1 = WeightsFile(tmp_path / "step1.pth", model.network.state_dict(), {"classes": classes})
    with pytest.raises(UserError, match="holds no generator"):
        load_segmenter(step1, config).extend(["zebra"], new, model.vectors)
    devise = DeviseNet(build_network(Section(**TINY), 8), torch.randn(4, 8))
    loaded = load_segmenter(WeightsFile(tmp_path / "d.pth", devise.state_dict(), {"classes": classes}), config)
    assert loaded.flavour == "word vectors" and loaded.num_outputs == 4 and loaded.extend is None
