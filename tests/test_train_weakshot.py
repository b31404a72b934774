"""Weak-shot training from the command line: all stages on drawn shapes, killed and resumed, and its losses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import collect
import eval as evaluation
import predict
import report
import train_weakshot
from data.embeddings import write_table
from data.io import read_label
from models.weakshot.simformer import build_weak_shot
from tests.conftest import CLASSES
from train_weakshot import SimFormerRecipe, SingleImageRecipe, in_pairs, side_by_side
from utils import checkpoint
from utils.config.weakshot import WeakShotConfig
from utils.run import guarded
from utils.step import build_optimizer, train_step

TINY = {
    "system": "simformer",
    "split": "two",
    "seed": 7,
    "data": {"train_list": "trainaug", "image_size": 32, "sizes": [28, 36], "workers": 0, "cache": True},
    "model": {
        **{"backbone": "resnet18", "init": "random", "queries": 6, "layers": 2, "width": 64, "heads": 2},
        **{"feedforward": 16, "dropout": 0.0, "simnet_width": 8},
    },
    "training": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "eval_every": 2, "save_every": 1},
    "similarity": {"points": 10, "partner": "fixed"},
    "distillation": {"points": 10},
    "evaluation": {"size": 32},
}
NOVEL = (3, 4)


def write_weak_shot(folder: Path, voc: Path) -> Path:
    """A configuration file for `voc`: bar and dot have tags only; output beside it."""
    dataset = folder / "weak_shapes"
    dataset.mkdir()
    (dataset / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    (dataset / "two.yaml").write_text("novel: [bar, dot]\n")
    (dataset / "other.yaml").write_text("novel: [disc]\n")
    data = {**TINY["data"], "dataset": str(dataset), "root": str(voc)}
    path = folder / "weak_shot.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": data, "output_dir": str(folder / "out")}))
    return path


@pytest.fixture(scope="module")
def shapes(voc, tmp_path_factory) -> Path:
    return write_weak_shot(tmp_path_factory.mktemp("weakshot"), voc)


@pytest.fixture(scope="module")
def chain(shapes) -> Path:
    """Folder of the split after all stages."""
    for option in ("method=simformer", "stage=pseudo", "method=retrain", "method=supervised", "method=single"):
        assert guarded(train_weakshot.main, [str(shapes), option]) == 0, option
    for method in ("simformer", "retrain"):
        assert guarded(evaluation.main, [str(shapes), f"method={method}", "save_predictions=true"]) == 0
    return shapes.parent / "out/two"


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_every_stage_leaves_its_results(chain):
    found = metrics(chain / "eval_retrain")
    assert found["images"] == 12 and {"base_miou", "novel_miou", "harmonic_miou", "miou"} <= found.keys()
    assert list(found["per_class"]) == CLASSES
    assert metrics(chain / "simformer_pseudo")["images"] == 48
    first = json.loads((chain / "simformer/history.jsonl").read_text().splitlines()[0])["train"]
    assert first.keys() >= {"cls", "focal", "dice", "comp", "sim"}
    assert all(
        name not in json.loads(line).get("train", {})
        for name in ("comp", "sim")
        for line in (chain / "retrain/history.jsonl").read_text().splitlines()
    )


def test_pseudo_labels_are_base_masks_and_tagged_classes(chain, voc):
    """Image i shows one object, of class 1 + i mod 4; classes 3 and 4 are novel."""
    for number, novel in ((0, set()), (1, set()), (2, {3}), (3, {4})):
        found = read_label(chain / f"simformer_pseudo/labels/t00{number}.png")
        truth = read_label(voc / f"SegmentationClassAug/t00{number}.png")
        base = truth < 3
        assert (found[base] == truth[base]).all() and set(found[~base].tolist()) <= {*novel, 255}
    manifest = json.loads((chain / "simformer_pseudo/labels/manifest.json").read_text())
    assert manifest["novel"] == ["bar", "dot"]
    assert manifest["made_from"] == {"network": checkpoint.digest(chain / "simformer/last.pth")}
    for name, entry in manifest["images"].items():
        found = read_label(chain / f"simformer_pseudo/labels/{name}.png")
        assert (found != 255).sum() == entry["labelled"]
        assert entry["confidence"] is None or 0 < entry["confidence"] <= 1


def test_clusters_of_class_discovery_serve_as_masks(shapes, pseudo, voc, tmp_path):
    """Clusters are right in this folder: images of novel classes, without masks, get their labels back."""
    given = [str(shapes), f"output_dir={tmp_path}", "data.tags=image", "data.masks=base"]
    assert guarded(train_weakshot.main, [*given, "method=clusters", "stage=pseudo", f"clusters_dir={pseudo}"]) == 0
    for number in range(4):
        found = read_label(tmp_path / f"two/clusters_pseudo/labels/t00{number}.png")
        truth = read_label(voc / f"SegmentationClassAug/t00{number}.png")
        assert (found == np.where((truth == 255) & (number > 1), 0, truth)).all()  # the folder has no 255
    assert guarded(train_weakshot.main, [*given, "method=retrain", "retraining.labels_by=clusters"]) == 0
    assert metrics(tmp_path / "two/clusters_pseudo")["novel_miou"] == 1


def test_words_tell_the_classes(shapes, tmp_path):
    words = tmp_path / "words.npz"
    write_table(words, CLASSES, np.eye(5, 7))
    given = [str(shapes), f"output_dir={tmp_path}", "model.classes=words", f"data.embeddings={words}", "method=single"]
    assert guarded(train_weakshot.main, given) == 0
    assert guarded(evaluation.main, given) == 0
    found = torch.load(tmp_path / "two/single/last.pth", weights_only=True)["model"]["network.class_embed.vectors"]
    assert found.equal(torch.eye(5, 7))


def test_a_finished_stage_is_skipped_and_a_stopped_one_goes_on_to_the_last_bit(chain, shapes, capsys, monkeypatch):
    assert guarded(train_weakshot.main, [str(shapes)]) == 0
    assert "already finished" in capsys.readouterr().out
    done, output = SimFormerRecipe.step, shapes.parent / "stopped"
    steps = []

    def stops(self, batch, epoch):
        steps.append(epoch)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return done(self, batch, epoch)

    monkeypatch.setattr(SimFormerRecipe, "step", stops)
    options = [str(shapes), f"output_dir={output}"]
    assert guarded(train_weakshot.main, options) != 0
    assert guarded(train_weakshot.main, options) == 0 and len(steps) == 5
    one, two = (torch.load(folder / "two/simformer/last.pth", weights_only=True) for folder in (chain.parent, output))
    assert two["recipe"]["queue"].equal(one["recipe"]["queue"]) and len(one["recipe"]["queue"]) == 5
    assert all(value.equal(two["model"][key]) for key, value in one["model"].items())


def test_the_general_scripts_serve_it(chain, shapes, voc, tmp_path, capsys):
    assert guarded(report.main, [str(shapes)]) == 0
    page = (chain / "report.html").read_text()
    assert "bar" in page and "Proposals" in page
    network = chain / "retrain/last.pth"
    assert guarded(predict.main, [str(network), str(voc / "images/v000.jpg"), "--to", str(tmp_path)]) == 0
    assert read_label(tmp_path / "v000.png").shape == (40, 40)
    capsys.readouterr()
    assert guarded(collect.main, [str(chain.parent)]) == 0
    table = capsys.readouterr().out
    assert "two, simformer" in table and "novel" in table
    views = ["evaluation.tta=true", "evaluation.tta_sizes=[32, 64]", f"output_dir={tmp_path}", f"checkpoint={network}"]
    assert guarded(evaluation.main, [str(shapes), "method=retrain", *views]) == 0


@pytest.mark.parametrize(
    "options, problem",
    [
        (("method=retrain", "stage=pseudo"), "stage=pseudo: labels are made by method=simformer or single"),
        (("training.batch_size=5",), "2.5 pairs of images cannot be divided evenly"),
        (("distillation.points=65",), "has 64 cells only"),
        (("similarity.weight=0",), "SimNet would not train"),
        (("method=clusters",), "trains no network; give stage=pseudo"),
        (("data.masks=base",), "data.tags=crop reads the mask of every crop"),
        (("method=supervised", "data.tags=image", "data.masks=base"), "method=supervised learns from all masks"),
        (("method=clusters", "stage=pseudo"), "cluster_pseudolabel.py"),
        (("data.tags=image", "complement.unlabelled=false"), "novel pixels are unlabelled"),
        (("split=other", "method=retrain", "pseudo_dir={chain}/simformer_pseudo/labels"), "pseudo-labels of split=two"),
        (("split=other", "stage=pseudo", "labels_checkpoint={chain}/simformer/last.pth"), "trained with split=two"),
        (("init_from={chain}/simformer/last.pth", "model.queries=7"), "set model.queries=6"),
    ],
)
def test_bad_input(chain, shapes, tmp_path, capsys, options, problem):
    given = [option.format(chain=chain) for option in options]
    assert guarded(train_weakshot.main, [str(shapes), f"output_dir={tmp_path}", *given]) == 2
    assert problem in capsys.readouterr().err


def test_a_missing_pseudo_label_is_an_error(chain, shapes, tmp_path, capsys):
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in (chain / "simformer_pseudo/labels").iterdir():
        if path.name != "t005.png":
            (folder / path.name).write_bytes(path.read_bytes())
    given = [str(shapes), "method=retrain", f"pseudo_dir={folder}", f"output_dir={tmp_path}"]
    assert guarded(train_weakshot.main, given) == 2
    assert "t005.png: no such file" in capsys.readouterr().err


# ---- a step


def config(**values) -> WeakShotConfig:
    return WeakShotConfig.model_validate({key: value for key, value in TINY.items() if key != "data"} | values)


def batch(images: int = 4) -> dict[str, torch.Tensor]:
    """Blocks of classes 0 to 4, of which 3 and 4 are novel, and some unlabelled and padded pixels."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 5, (images, 4, 4), generator=generator).to(torch.uint8)
    label = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    label[:, :, -4:] = 255
    padding = torch.zeros_like(label)
    padding[:, :, -4:] = 1
    image = torch.randint(0, 256, (images, 3, 32, 32), generator=generator).to(torch.uint8)
    present = torch.stack([torch.bincount(one.flatten().long(), minlength=256)[:5] > 0 for one in label])
    return {"image": image, "label": label, "padding": padding, "present": present.to(torch.uint8)}


def recipe(cfg: WeakShotConfig, kind=SimFormerRecipe):
    torch.manual_seed(0)
    return kind(build_weak_shot(cfg.model, 5, pairs=kind is SimFormerRecipe), cfg, NOVEL)


def pairs(images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Images 0 and 1, 2 and 3 as pairs."""
    return {name: values[::2] for name, values in images.items()} | {
        f"partner_{name}": values[1::2] for name, values in images.items()
    }


def test_pairs_lie_side_by_side():
    images = batch()
    joined = side_by_side(pairs(images))
    assert all(joined[name].equal(images[name]) for name in images)
    assert in_pairs(joined["present"])[1, 0].equal(images["present"][2])


def test_masks_of_novel_classes_are_never_looked_at():
    """Losses and gradients are the same when all novel pixels have another class, or none."""
    found = []
    novel = torch.arange(256) > 2
    for instead in (None, 4, 255):
        made, images = recipe(config()), batch()
        if instead is not None:
            images["label"][novel[images["label"].long()]] = instead
        losses = made.step({"pairs": pairs(images)}, 0)
        total = sum(loss for name, loss in losses.items() if name not in ("sim", "dist"))
        total.backward()
        found.append((total.item(), made.model.network.query_embed.weight.grad.clone()))
    for value, gradient in found[1:]:
        assert value == found[0][0] and gradient.equal(found[0][1])


def test_gradients_of_the_parts():
    """SimNet learns from base pairs alone; score maps learn from SimNet, which does not move with them."""
    made = recipe(config())
    losses = made.step({"pairs": pairs(batch())}, 0)
    network, simnet = list(made.model.network.parameters()), list(made.model.simnet.parameters())

    def reaches(name, parameters):
        gradients = torch.autograd.grad(losses[name], parameters, allow_unused=True, retain_graph=True)
        return any(gradient is not None and gradient.any() for gradient in gradients)

    assert reaches("sim", simnet) and not reaches("sim", network)
    assert reaches("dist", network) and not reaches("dist", simnet)
    assert not reaches("comp", simnet) and reaches("comp", network)


def test_distillation_may_leave_out_pairs_of_base_pixels():
    """One cell is not base, the other points are: their pairs among themselves count by default."""
    images = batch()
    images["label"][:] = 0
    images["label"][:, :8, :8], images["padding"] = 3, torch.zeros_like(images["padding"])
    images["present"][:] = torch.tensor([1, 0, 0, 1, 0])
    found = [
        recipe(config(distillation={"points": 10, "valid": valid})).step({"pairs": pairs(images)}, 0)["dist"].item()
        for valid in (False, True)
    ]
    assert found[0] != found[1]


def test_pairs_that_share_no_novel_class_distil_nothing():
    images = batch()
    images["present"][1::2, 3:] = 0
    made = recipe(config())
    assert "dist" not in made.step({"pairs": pairs(images)}, 0)


def test_losses_without_weight_are_left_out():
    cfg = config(complement={"weight": 0}, distillation={"weight": 0})
    assert recipe(cfg).step({"pairs": pairs(batch())}, 0).keys() == {"cls", "focal", "dice", "sim"}


def test_a_step_of_single_images_lowers_its_loss():
    cfg = config(training={**TINY["training"], "lr": 1e-3})
    made = recipe(cfg, SingleImageRecipe)
    optimizer = build_optimizer(made.parameter_groups(), cfg.training)
    losses = [train_step(made, {"images": batch()}, optimizer, clip_norm=0.01)["loss"].item() for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]
