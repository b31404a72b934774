"""Step 2 of ZS3Net against the published arithmetic, written out as a plain loop over images and classes."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.segmentation import SegmentationNet
from models.zeroshot.generators import ZeroShotNet
from models.zeroshot.graph import label_graph
from tests.networks import zero_shot_network
from train_zeroshot import Zs3Recipe
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.step import build_optimizer, set_learning_rate, train_step

CLASSES, UNSEEN, WORD, NOISE, WIDTH, SIDE, CELLS = 6, (2, 4), 5, 7, 8, 65, 17
BANDWIDTHS = (2, 5, 10, 20, 40, 80)


def config(**values) -> ZeroShotConfig:
    zs3 = {"noise_dim": NOISE, "hidden": 9, "samples": 16, "batch_size": 3, "epochs": 2, **values.pop("zs3", {})}
    return ZeroShotConfig.model_validate({"zs3": zs3, **values})


class Features(SegmentationNet):
    """A network whose pixel features are given beforehand."""

    given: list[torch.Tensor]

    def features(self, image):
        return self.given.pop(0).clone()


class Injected(Zs3Recipe):
    """Noise and choices from numbered seeds: the k-th class that is visited, the k-th that trains the generator."""

    visited = trained = 0

    def noise(self, cells, chosen=None):
        drawn = np.random.RandomState(10000 + self.visited).rand(cells, NOISE).astype(np.float32)
        self.visited += 1
        return torch.from_numpy(drawn if chosen is None else drawn[chosen])

    def choose(self, cells):
        drawn = np.random.RandomState(20000 + self.trained).randint(0, cells, self.settings.samples)
        self.trained += 1
        return torch.from_numpy(drawn)


def batches() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Two batches of three label maps [3, 65, 65] in blocks, and their real features [3, 8, 17, 17].

    The first image of each has seen classes only, the third of the first batch one class only.
    """
    labels, features = [], []
    for t in range(2):
        r = np.random.RandomState(t)
        blocks = r.choice([0, 1, 2, 3, 4, 5, 255], (3, 5, 5))
        blocks[0] = r.choice([0, 1, 3, 255], (5, 5))
        if t == 0:
            blocks[2] = 3
        labels.append(torch.from_numpy(blocks.repeat(13, 1).repeat(13, 2).astype(np.uint8)))
        features.append(torch.from_numpy(np.maximum(r.randn(3, WIDTH, CELLS, CELLS), 0).astype(np.float32)))
    return labels, features


def build(cfg: ZeroShotConfig, features=(), graph=False, kind=Injected) -> Zs3Recipe:
    torch.manual_seed(0)
    network = zero_shot_network(CLASSES, head_channels=WIDTH, dropout=0.0)
    network.__class__ = Features
    network.given = list(features)
    model = ZeroShotNet(network, torch.randn(CLASSES, WORD), cfg.zs3, graph)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    return kind(model, cfg, UNSEEN)


def ours(recipe: Zs3Recipe, labels) -> list[dict[str, float]]:
    optimizer, reported = build_optimizer(recipe.parameter_groups(), recipe.settings), []
    for step, label in enumerate(labels):
        set_learning_rate(optimizer, recipe.settings, 0, step, 20)
        batch = {"all": {"image": torch.randn(len(label), 3, SIDE, SIDE), "label": label}}
        reported.append({name: float(value) for name, value in train_step(recipe, batch, optimizer).items()})
    return reported


def plain_mmd(fake, real):
    def mean_kernel(a, b):
        distance = (a[:, None] - b[None]).square().sum(-1)
        return sum(torch.exp(-distance / (2 * v)) for v in BANDWIDTHS).mean()

    return (mean_kernel(fake, fake) + mean_kernel(real, real) - 2 * mean_kernel(fake, real)).sqrt()


def plain(model: ZeroShotNet, labels, features, samples: int, graph: bool) -> tuple[list, list, list]:
    """The published loop: (losses of the generators in order, dense losses, node losses)."""
    words = model.vectors
    conv, optimizers = model.network.classifier, [torch.optim.Adam(model.generator.parameters(), lr=2e-4)]
    if graph:
        optimizers.append(torch.optim.Adam(model.graph_generator.parameters(), lr=2e-4))
    sgd = torch.optim.SGD(conv.parameters(), lr=0.07, momentum=0.9, weight_decay=5e-4)
    weights = torch.tensor([100.0 if c in UNSEEN else 1.0 for c in range(CLASSES)])
    visited = trained = 0
    generator_losses, dense, of_nodes = [], [], []

    def noise(count):
        nonlocal visited
        visited += 1
        return torch.from_numpy(np.random.RandomState(9999 + visited).rand(count, NOISE).astype(np.float32))

    def advance(which, loss):
        optimizers[which].zero_grad()
        loss.backward()
        optimizers[which].step()
        generator_losses.append(loss.item())

    for t, (label, real) in enumerate(zip(labels, features, strict=True)):
        for group in sgd.param_groups:
            group["lr"] = 0.07 * (1 - t / 20) ** 0.9
        inputs, nodes, node_labels = [], [], []
        at = [int(np.floor(i * SIDE / CELLS)) for i in range(CELLS)]
        for b in range(len(label)):
            small = label[b][at][:, at]
            unique = small.unique().tolist()
            has_unseen = any(c in UNSEEN for c in unique)
            fake_map = torch.zeros(WIDTH, CELLS, CELLS)
            for c in unique:
                if c == 255:
                    continue
                mask = small == c
                z = noise(int(mask.sum()))
                layers = model.generator.model
                f = layers(torch.cat([words[c].expand(len(z), -1), z], 1))
                if c not in UNSEEN and not has_unseen:
                    index = np.random.RandomState(20000 + trained).randint(0, len(z), samples)
                    trained += 1
                    advance(0, plain_mmd(f[index], real[b][:, mask].T[index]))
                fake_map[:, mask] = f.detach().T
            inputs.append(fake_map if has_unseen else real[b])
            parts = label_graph(small.numpy())
            if graph and len(parts) > 1:
                row = torch.tensor([0 if c == 255 else int(c) for c in parts.label])
                adjacency = parts.adjacency().to_dense()
                gcn, x = model.graph_generator, torch.cat([words[row], noise(len(parts))], 1)
                x = F.leaky_relu(adjacency @ (x @ gcn.gcn1.weight) + gcn.gcn1.bias, 0.2)
                f = adjacency @ (x @ gcn.gcn2.weight) + gcn.gcn2.bias
                first = real[b].flatten(1).T[parts.first]
                if not has_unseen:
                    advance(1, plain_mmd(f, first))
                nodes.append(f.detach() if has_unseen else first)
                node_labels.append(torch.from_numpy(parts.label).long())
        logits = F.interpolate(conv(torch.stack(inputs)), (SIDE, SIDE), mode="bilinear", align_corners=True)
        loss = F.cross_entropy(logits, label.long(), weights, ignore_index=255) / len(label)
        sgd.zero_grad()
        loss.backward()
        dense.append(loss.item())
        if graph:
            node_logits = conv(torch.cat(nodes)[..., None, None])[..., 0, 0]
            node_loss = F.cross_entropy(node_logits, torch.cat(node_labels), weights, ignore_index=255)
            (0.1 * node_loss).backward()
            of_nodes.append(node_loss.item())
        sgd.step()
    return generator_losses, dense, of_nodes


@pytest.mark.parametrize("graph", [False, True])
def test_two_steps_are_those_of_the_published_loop(graph):
    labels, features = batches()
    recipe = build(config(), features, graph)
    reference, before = copy.deepcopy(recipe.model), copy.deepcopy(recipe.model.state_dict())
    seen = []
    recipe.advance = lambda name, losses, original=recipe.advance: (seen.extend(losses), original(name, losses))
    reported = ours(recipe, labels)
    generator_losses, dense, of_nodes = plain(reference, labels, features, 16, graph)
    assert len(generator_losses) > 5
    assert [loss.item() for loss in seen] == pytest.approx(generator_losses, abs=1e-5)
    assert [step["classifier"] for step in reported] == pytest.approx(dense, abs=1e-5)
    if graph:
        assert [step["nodes"] / 0.1 for step in reported] == pytest.approx(of_nodes, abs=1e-5)
    changed = ("network.classifier", "generator", "graph_generator")
    for name, value in recipe.model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], atol=1e-5, rtol=1e-4, msg=name)
        assert value.equal(before[name]) != name.startswith(changed), name


def test_images_with_an_unseen_class_train_the_classifier_on_generated_features_alone():
    """Zeros where the label is 255, and their real features are looked at nowhere."""
    labels, features = batches()
    recipe = build(config())
    real = features[0].permute(0, 2, 3, 1).clone()
    small = labels[0][:, [int(i * SIDE / CELLS) for i in range(CELLS)]][
        :, :, [int(i * SIDE / CELLS) for i in range(CELLS)]
    ]
    made, nodes, losses = recipe.learn(real, small.numpy())
    assert made[0].equal(real[0]) and made[2].equal(real[2]) and not nodes
    assert not made[1][small[1] == 255].any() and made[1][small[1] != 255].any(-1).all()
    recipe.visited = recipe.trained = 0
    real[1] = float("nan")
    assert recipe.learn(real, small.numpy())[0].isfinite().all()
    assert len(losses["mmd"]) == len(set(small[0].unique().tolist()) - {255}) + 1


def test_running_statistics_move_unless_they_are_frozen():
    for how, moves in (("train", True), ("frozen", False)):
        cfg = config(zs3={"bn": how})
        torch.manual_seed(0)
        network = zero_shot_network(CLASSES, head_channels=WIDTH)
        recipe = Injected(ZeroShotNet(network, torch.randn(CLASSES, WORD), cfg.zs3), cfg, UNSEEN)
        recipe.model.train()
        before = network.decoder.low[1].running_mean.clone()
        ours(recipe, batches()[0][:1])
        assert (not network.decoder.low[1].running_mean.equal(before)) is moves
        assert network.decoder.dropout.training is moves and recipe.model.generator.training


@pytest.mark.parametrize("pace, steps", [("sequential", 4), ("image", 2), ("batch", 1)])
def test_a_step_of_the_generator_per_class_per_image_or_per_batch(pace, steps):
    labels, features = batches()
    recipe = build(config(zs3={"pace": pace}), features)
    ours(recipe, labels[:1])
    optimizer = recipe.optimizers["generator"]
    assert int(next(iter(optimizer.state.values()))["step"]) == steps  # classes 0, 1, 3 of one image and 3 of another


def test_the_losses_of_an_image_are_the_same_one_by_one_and_together():
    labels, features = batches()
    values = {}
    for pace in ("sequential", "batch"):
        recipe = build(config(zs3={"pace": pace, "generator_lr": 1e-12}), features)
        values[pace] = ours(recipe, labels[:1])[0]["mmd"]
    assert values["batch"] == pytest.approx(values["sequential"], abs=1e-6)


def test_strict_training_pastes_unseen_classes_into_seen_images():
    labels, _ = batches()
    cfg = config(strict_unseen=True, strict={"share": 1.0})
    recipe = build(cfg)
    label = labels[0][:1]
    small = label[:, ::4, ::4].numpy().copy()
    pasted = recipe.paste(small, label)
    new = set(pasted.unique().tolist()) - set(label.unique().tolist())
    assert len(new) == 1 and new <= set(UNSEEN)
    where = pasted[0] != label[0]
    assert len(label[0][where].unique()) == 1 and label[0][where].unique().item() in (1, 3)
    assert (label[0] == label[0][where][0]).equal(where)
    assert small.tolist() == pasted[:, ::4, ::4].tolist()
    build(config(strict_unseen=True, strict={"share": 0.0})).paste(small, label)
    assert small.tolist() == pasted[:, ::4, ::4].tolist()


def test_an_image_without_any_label_and_a_batch_without_any_give_no_loss():
    features = batches()[1]
    recipe = build(config(), features, graph=True)
    reported = ours(recipe, [torch.full((3, SIDE, SIDE), 255, dtype=torch.uint8)])
    assert reported[0]["classifier"] == reported[0]["mmd"] == reported[0]["nodes"] == 0


def test_several_processes_need_one_step_per_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="zs3.pace=sequential: .* use zs3.pace=batch"):
        build(config())
    build(config(zs3={"pace": "batch"}))
