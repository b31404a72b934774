"""MaskContrast's pre-training on a few drawn images, by one process and two, against the algorithm told plainly."""

import copy
import json
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

import pretrain_contrast
from data.contrast.builder import ContrastData
from losses.maskcontrast import balanced_bce, balanced_weights
from models.contrast.encoder import ContrastModel, build_encoder, load_encoder
from pretrain_contrast import ContrastRecipe, build_recipe
from tests.processes import on_two_ranks
from utils import checkpoint
from utils.config.contrast import ContrastConfig
from utils.config.reader import load_config
from utils.loop import fit
from utils.run import guarded, start_run

SMALL = {
    "system": "maskcontrast",
    "seed": 5,
    "data": {"dataset": "shapes", "image_size": 32, "workers": 0},
    "model": {"backbone": "mobilenet_v2", "init": "random", "head_channels": 8, "atrous_rates": [1, 2], "dim": 4},
    "contrast": {"queue_size": 6, "momentum": 0.9},
    "training": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "lr": 0.01, "log_every": 1},
}


@pytest.fixture
def config(voc, tmp_path):
    data = {**SMALL["data"], "root": str(voc)}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SMALL, "output_dir": str(tmp_path / "out"), "data": data}))
    return tmp_path / "small.yaml"


def load(config, *overrides) -> ContrastConfig:
    return load_config([str(config), *overrides], "")


def run(config, *overrides) -> int:
    return guarded(pretrain_contrast.main, [str(config), *overrides])


def read(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def reports(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line["train"] for line in lines if "train" in line]


# ---- the algorithm, plainly

# BatchNorm over four pooled features blows rounding up: same memory layout and small steps, so that it stays small
SMOOTH = ("model.backbone=resnet18", "model.dropout=0", "training.lr=1e-4", "run.channels_last=false")


def plain_prototypes(embedding: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rows = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)
    return torch.stack([F.normalize(row[inside > 0].sum(0), dim=0) for row, inside in zip(rows, mask, strict=True)])


def plain_loss(embedding, mask, prototypes, bank, temperature: float) -> torch.Tensor:
    inside = mask > 0
    label = torch.arange(len(mask))[:, None, None].expand_as(mask)[inside]
    pixels = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)[inside]
    logits = torch.cat([pixels @ prototypes.T, pixels @ bank], 1) / temperature
    weights = torch.cat([balanced_weights(inside.flatten(1).sum(1)), torch.ones(bank.shape[1])])
    return F.cross_entropy(logits, label, weights)


def plainly(cfg: ContrastConfig, world: int) -> tuple[list[dict], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(losses of each step, tensors of the first process before and after) of training by `world` processes."""
    options, rates = cfg.contrast, cfg.training
    replicas = []
    for _ in range(world):
        torch.manual_seed(cfg.seed)
        encoder = build_encoder(cfg.model, cfg.model.dim)
        replicas.append(ContrastModel(encoder, options.queue_size, options.momentum, options.freeze_layers))
    start = copy.deepcopy(replicas[0].state_dict())
    if world > 1:
        torch.manual_seed(cfg.seed)  # what the loop does on the first process, which draws the permutations
    trained = [[p for p in model.model_q.parameters() if p.requires_grad] for model in replicas]
    optimizers = [torch.optim.SGD(p, rates.lr, rates.momentum, weight_decay=rates.weight_decay) for p in trained]
    source, history = ContrastData.open(cfg).source("train"), []
    for epoch in range(rates.epochs):
        for batch in source.epoch(epoch, range(rates.iters_per_epoch)):
            keys = torch.cat([batch["key"][rank::world] for rank in range(world)])
            key_masks = torch.cat([batch["key_saliency"][rank::world] for rank in range(world)])
            order = torch.randperm(len(keys)).view(world, -1)
            everyone = torch.zeros(len(keys), cfg.model.dim)
            with torch.no_grad():
                for model, here in zip(replicas, order, strict=True):
                    for k, q in zip(model.model_k.parameters(), model.model_q.parameters(), strict=True):
                        k.copy_(options.momentum * k + (1 - options.momentum) * q)
                    embedding = model.model_k(model.model_k.normalize(keys[here])).embedding
                    everyone[here] = plain_prototypes(embedding, key_masks[here])
            losses = []
            for rank, model in enumerate(replicas):
                mask, own = batch["query_saliency"][rank::world], everyone.view(world, -1, cfg.model.dim)[rank]
                saliency, embedding = model.model_q(model.model_q.normalize(batch["query"][rank::world]))
                contrast = plain_loss(embedding, mask, own, model.queue.clone(), options.temperature)
                losses.append({"contrast": contrast, "saliency": balanced_bce(saliency[:, 0], mask)})
                sum(losses[-1].values()).backward()
            history.append({name: sum(part[name].item() for part in losses) / world for name in losses[0]})
            for parameters in zip(*trained, strict=True):
                mean = sum(p.grad for p in parameters) / world
                for p in parameters:
                    p.grad = mean.clone()
            for model, optimizer in zip(replicas, optimizers, strict=True):
                optimizer.param_groups[0]["lr"] = rates.lr * (1 - epoch / rates.epochs) ** 0.9
                optimizer.step()
                optimizer.zero_grad()
                for row in everyone:
                    model.queue[:, model.queue_ptr] = row[:, None]
                    model.queue_ptr.copy_((model.queue_ptr + 1) % options.queue_size)
        for model in replicas[1:]:
            for own, first in zip(model.buffers(), replicas[0].buffers(), strict=True):
                own.copy_(first)
    return history, start, replicas[0].state_dict()


def compare(folder: Path, expected: tuple[list[dict], dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
    history, start, end = expected
    found = reports(folder)
    assert len(found) == len(history) == 4
    for one, other in zip(found, history, strict=True):
        assert {name: one[name] for name in other} == pytest.approx(other, rel=1e-4, abs=2e-6)
        assert one["loss"] == pytest.approx(other["contrast"] + other["saliency"], rel=1e-4)
        assert 0 <= one["top1"] <= one["top5"] <= 1
    model = checkpoint.load(folder / "last.pth")["model"]
    assert model.keys() == end.keys()
    for name, value in end.items():
        way = (value - start[name]).abs().max().item()
        assert (model[name] - value).abs().max().item() <= 0.02 * way + 1e-6, name


@pytest.mark.parametrize("freeze", ["true", "false"])
def test_training_is_the_algorithm_written_out_plainly(config, tmp_path, freeze):
    options = (*SMOOTH, f"contrast.freeze_layers={freeze}")
    assert run(config, *options) == 0
    compare(tmp_path / "out" / "pretrain", plainly(load(config, *options), world=1))


def test_two_processes_shuffle_keys_and_share_the_bank(config, tmp_path):
    """Negatives inside a batch are those of a process, the bank's of all: again as written out plainly."""
    options = (*SMOOTH, "training.batch_size=8", "contrast.queue_size=12")
    on_two_ranks(lambda: run(config, *options))
    compare(tmp_path / "out" / "pretrain", plainly(load(config, *options), world=2))


# ---- what changes in a step


def test_tensors_that_change(config):
    """With frozen layers: neither their weights nor statistics, in both encoders; of the key, the average and BN."""
    cfg = load(config, "model.backbone=resnet18", "contrast.freeze_layers=true", "training.epochs=1")
    with start_run(cfg, "check", (), {}) as opened:
        recipe = build_recipe(cfg, ContrastData.open(cfg), opened)
        before = {key: value.clone() for key, value in recipe.model.state_dict().items()}
        fit(recipe, cfg.training, opened)
        changed = {key for key, value in recipe.model.state_dict().items() if not torch.equal(value, before[key])}
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.", "backbone.layer2.")
    still = {key for key in before if key.partition(".")[2].startswith(frozen)}
    assert changed == before.keys() - still
    assert {"queue", "queue_ptr", "model_k.backbone.layer3.0.bn1.running_mean"} <= changed


def test_key_encoder_and_bank_have_no_gradient(config):
    cfg = load(config)
    with start_run(cfg, "check", (), {}) as opened:
        recipe = build_recipe(cfg, ContrastData.open(cfg), opened)
        (batch,) = recipe.feed["train"].epoch(0, range(1))
        losses = recipe.step({"train": batch}, 0)
        sum(loss for loss in losses.values() if loss.requires_grad).backward()
        assert all((p.grad is not None) == name.startswith("model_q") for name, p in recipe.model.named_parameters())
        assert not losses["top1"].requires_grad and recipe.model.queue_ptr.item() == 4


def test_saliency_score_by_hand(config):
    """A head that sees no object anywhere: IoU 0 for objects, for background its share."""
    cfg = load(config)
    with start_run(cfg, "check", (), {}) as opened:
        recipe = build_recipe(cfg, ContrastData.open(cfg), opened)
        torch.nn.init.zeros_(recipe.model.model_q.classification_head.weight)
        found = recipe.evaluate(opened)
        share = torch.stack([recipe.protocol.images[i]["saliency"].float().mean() for i in range(12)]).mean().item()
    assert found["images"] == 12 and found["saliency_miou"] == pytest.approx((1 - share) / 2)
    assert recipe.model.training


# ---- a run


def test_what_a_run_leaves(config, tmp_path, capsys):
    assert run(config) == 0
    folder = tmp_path / "out" / "pretrain"
    metrics = read(folder)
    assert metrics["checkpoint"] == "last.pth" and metrics["epoch"] == 2 and metrics["training_images"] == 48
    assert 0 <= metrics["saliency_miou"] <= 1 and not (folder / "best.pth").exists()
    state = checkpoint.load(folder / "last.pth")["model"]
    encoder = load_encoder(load(config).model, folder / "last.pth").state_dict()
    assert all(torch.equal(value, state[f"model_q.{key}"]) for key, value in encoder.items())
    capsys.readouterr()
    assert run(config) == 0 and "pretrain: already finished" in capsys.readouterr().out
    again = (f"init_from={folder / 'last.pth'}", f"output_dir={tmp_path / 'again'}", "training.lr=1e-9")
    assert run(config, *again) == 0  # a start from there
    moved = checkpoint.load(tmp_path / "again" / "pretrain" / "last.pth")["model"]
    torch.testing.assert_close(moved["model_q.head.weight"], state["model_q.head.weight"])


def test_stopped_and_resumed(config, tmp_path, monkeypatch):
    """SIGTERM in the third step: the same encoders, bank and reports as without it, dropout included."""
    assert run(config, "training.save_every=1") == 0
    other, plain, steps = f"output_dir={tmp_path / 'other'}", ContrastRecipe.step, []

    def step(self, batch, epoch):
        steps.append(epoch)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(ContrastRecipe, "step", step)
    assert run(config, other) == 75
    monkeypatch.undo()
    assert run(config, other) == 0
    one, two = (tmp_path / name / "pretrain" for name in ("out", "other"))
    first, second = (checkpoint.load(folder / "last.pth") for folder in (one, two))
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    assert first["model"]["queue_ptr"].item() == 16 % 6
    assert (one / "history.jsonl").read_text() == (two / "history.jsonl").read_text()


def test_without_masks_of_validation_images(config, tmp_path):
    assert run(config, "data.val_list=trainaug") == 0  # a custom list
    assert read(tmp_path / "out" / "pretrain")["images"] == 48
    data = load(config).data.root
    (tmp_path / "bare").mkdir()
    for name in ("images", "saliency_supervised_model"):
        (tmp_path / "bare" / name).symlink_to(data / name)
    checkpoint.write_list(tmp_path / "bare" / "sets" / "trainaug.txt", [f"t{i:03d}" for i in range(8)])
    assert run(config, f"data.root={tmp_path / 'bare'}", f"output_dir={tmp_path / 'second'}") == 0
    assert "saliency_miou" not in read(tmp_path / "second" / "pretrain")


def test_a_batch_in_parts(config, tmp_path):
    assert run(config, "training.accumulate=2") == 0
    assert checkpoint.load(tmp_path / "out" / "pretrain" / "last.pth")["model"]["queue_ptr"].item() == 16 % 6


@pytest.mark.parametrize(
    "override, words",
    [
        ("training.accumulate=3", "training.batch_size=4: cannot be divided evenly"),
        ("contrast.temprature=1", "unknown key 'contrast.temprature'; did you mean 'contrast.temperature'?"),
        ("data.train_list=none", "none.txt: no such image list"),
        ("data.saliency_folder=maps", "has no folder 'maps'"),
        ("init_from=none.pth", "none.pth"),
        ("model.init=none.pth", "none.pth: no such checkpoint"),
    ],
)
def test_wrong_input_is_one_line(config, capsys, override, words):
    assert run(config, override) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
