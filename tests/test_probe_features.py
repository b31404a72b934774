"""Linear probe, clustering and retrieval from end to end on a few drawn images, against plain evaluations."""

import json
import signal
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

import predict
import probe_features
from data.io import read_image, read_label, write_label
from data.probing import ProbeData
from data.transforms import ValTransform
from models.contrast import ContrastModel, build_encoder
from models.deeplab_files import to_official
from models.probes import FeatureNetwork, LinearProbe, build_features, build_probe, load_probe
from tests.conftest import CLASSES, make_voc
from utils import checkpoint
from utils.config.probe import ProbeConfig
from utils.config.reader import load_config
from utils.measure.metrics import iou
from utils.run import guarded

SMALL = {
    "system": "probe",
    "seed": 3,
    "name": "net",
    "data": {"image_size": 32, "workers": 0},
    "model": {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": [1, 2], "dim": 6},
    "training": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "save_every": 1, "milestones": [0]},
    "kmeans": {"pca_dim": 4, "seeds": [1, 2], "patches": 3},
    "retrieval": {"memory": "trainaug", "ignore": ["disc", "bar"], "patches": 3},
    "evaluation": {"batch_size": 5},
}


@pytest.fixture(scope="module")
def encoder(voc, tmp_path_factory):
    """A random encoder whose saliency head takes about a third of the pixels, as an official checkpoint."""
    torch.manual_seed(0)
    model = ContrastModel(build_encoder(ProbeConfig.model_validate({"model": SMALL["model"]}).model), 8).eval()
    query, paths = model.model_q, sorted((voc / "images").glob("v*.jpg"))
    with torch.no_grad():
        images = torch.stack([torch.from_numpy(cv2.resize(read_image(path), (32, 32))) for path in paths])
        features = query.decoder(query.backbone(query.normalize(images.permute(0, 3, 1, 2)))).movedim(1, -1)
        mean, weight = features.flatten(0, 2).mean(0), torch.randn(8)
        weight -= mean * (mean @ weight) / (mean @ mean)  # logits of mean 0
        query.classification_head.weight.copy_((weight / (features @ weight).std())[None, :, None, None])
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth.tar"
    torch.save({"optimizer": {}, "model": state, "epoch": 40}, path)
    return path


@pytest.fixture
def config(voc, encoder, tmp_path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    data = {**SMALL["data"], "dataset": str(folder), "root": str(voc)}
    tree = {**SMALL, "data": data, "checkpoint": str(encoder), "output_dir": str(tmp_path / "out")}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "small.yaml"


BACKBONE = ("model.kind=backbone", "checkpoint=null", "name=plain")


def run(config, *overrides) -> int:
    return guarded(probe_features.main, [str(config), *overrides])


def read(path) -> dict:
    return json.loads(path.read_text())


def loaded(config, *overrides) -> ProbeConfig:
    return load_config([str(config), *overrides], "")


@torch.no_grad()
def plain_outputs(config, dataset):
    """(embedding [D, S, S], saliency logit [S, S]) of each image, everything up-sampled as the official code does."""
    network = build_features(loaded(config)).network
    for sample in dataset.samples:
        resized = ValTransform(32).resize("image", read_image(sample.image))
        outputs = network(network.normalize(torch.from_numpy(resized.transpose(2, 0, 1)[None])))
        yield outputs.embedding[0].numpy(), outputs.logits[0, 0].numpy()


# ---- networks


def test_untrained_is_the_network_that_pretraining_starts_from(config):
    """Decoder and heads at random, the same for a seed; the data's maps say what is foreground."""
    cfg = loaded(config, "model.kind=untrained", "checkpoint=null", "name=null")
    states = []
    for _ in range(2):
        with probe_features.start_run(cfg.model_copy(update={"resume": "false"}), "x", (), {}) as stage:
            extractor, fields = probe_features.build_extractor(ProbeData.open(cfg), stage)
            states.append(extractor.network.network.state_dict())
    assert fields == ("saliency",) and str(cfg.folder) == "untrained_resnet18_random"
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    assert "decoder.0.project.0.weight" in states[0] and states[0]["head.weight"].shape[0] == 6


# ---- clustering and retrieval


def test_prototypes_and_counts_equal_the_plain_evaluation(config, tmp_path):
    """Threshold 0.5 on the raw logit, which is the weight too; un-normalised embeddings; pixels at image size."""
    cfg = loaded(config)
    data = ProbeData.open(cfg)
    dataset = data.val()
    with probe_features.start_run(cfg, "x", (), {}) as stage:
        objects = probe_features.build_extractor(data, stage)[0].objects(data.loader(dataset), "")
    found = 0
    for index, (embedding, logit) in enumerate(plain_outputs(config, dataset)):
        inside = logit > 0.5
        total = (np.where(inside, logit, 0) * embedding).sum((1, 2))
        expected = total / max(np.linalg.norm(total), 1e-12)
        np.testing.assert_allclose(objects.prototypes[index], expected, atol=2e-4)
        truth = read_label(dataset.samples[index].label)
        large = cv2.resize(inside.astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        expected = [[((truth == c) & (large == part)).sum() for part in (0, 1)] for c in range(5)]
        assert objects.counts[index].tolist() == expected
        found += inside.any()
    assert found >= 8


@pytest.mark.parametrize("options", [(), BACKBONE])
@pytest.mark.parametrize("unit", ["image", "patch"])
def test_kmeans(config, tmp_path, options, unit):
    assert run(config, "mode=kmeans", f"kmeans.unit={unit}", *options) == 0
    folder = tmp_path / "out" / ("plain" if options else "net") / ("kmeans_patch" if unit == "patch" else "kmeans")
    metrics = read(folder / "metrics.json")
    assert metrics["images"] == 12 and list(metrics["per_class"]) == CLASSES and len(metrics["match"]) == 5
    assert [run["seed"] for run in metrics["seeds"]] == [1, 2]
    assert metrics["miou"] == pytest.approx(np.mean([run["miou"] for run in metrics["seeds"]]))
    assert (folder / "prototypes.svg").exists() == (unit == "image")
    if options and unit == "image":  # saliency maps are perfect here, and the background is the largest cluster
        assert metrics["per_class"]["background"] > 0.95


def test_cells_that_the_clustering_is_fitted_to(config, tmp_path):
    """At most three of each object, on cells it covers by half or, when it is small, the one it covers most."""
    root = make_voc(tmp_path / "voc", train=2, val=2)
    mask = np.zeros((40, 40), np.uint8)
    mask[0:3, 0:3] = 1  # a seventh of the first of 4 x 4 cells
    write_label(root / "saliency_supervised_model" / "v000.png", mask)
    cfg = loaded(config, f"data.root={root}", *BACKBONE)
    data = ProbeData.open(cfg)
    with probe_features.start_run(cfg, "x", (), {}) as stage:
        extractor, _ = probe_features.build_extractor(data, stage)
        vectors, counts = extractor.patches(data.loader(data.val("label", "saliency")), 3, "")
        (_, features, _), *_ = extractor.walk(data.loader(data.val("saliency")), "")
    assert vectors.shape == (4, 512) and counts.shape == (4, 5)
    torch.testing.assert_close(vectors[0], F.normalize(features[0, :, 0, 0], dim=0))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert counts[0].tolist() == [8, 0, 0, 0, 0]  # its 3 x 3 pixels show background, one is border
    assert (counts[1:, 2] > 0).all()


def test_more_clusters_than_classes(config, tmp_path):
    assert run(config, "mode=kmeans", "kmeans.clusters=9", *BACKBONE) == 0
    match = read(tmp_path / "out" / "plain" / "kmeans" / "metrics.json")["match"]
    assert [cluster for cluster, _ in match] == list(range(10)) and {number for _, number in match} <= set(range(5))


def test_the_network_sees_each_image_once_for_all_seeds(config, monkeypatch):
    seen, forward = [], FeatureNetwork.forward
    monkeypatch.setattr(FeatureNetwork, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    assert run(config, "mode=kmeans", "kmeans.seeds=[1,2,3,4,5]") == 0
    assert sum(seen) == 12


@pytest.mark.parametrize("options", [(), BACKBONE])
@pytest.mark.parametrize("unit", ["image", "patch"])
def test_retrieval(config, tmp_path, options, unit):
    assert run(config, "mode=retrieval", f"retrieval.unit={unit}", *options) == 0
    stage = "retrieval_patch" if unit == "patch" else "retrieval"
    metrics = read(tmp_path / "out" / ("plain" if options else "net") / stage / "metrics.json")
    assert metrics["images"] == 12 and list(metrics["kept_per_class"]) == ["square", "dot"]
    kept = [value or 0 for value in metrics["kept_per_class"].values()]
    assert metrics["kept_miou"] == pytest.approx(np.mean(kept)) and 0 <= metrics["miou"] <= 1
    most = 48 * (3 if unit == "patch" else 1)
    assert 0 < metrics["memory"][1] < metrics["memory"][0] <= most
    if options:  # every image has one object with a perfect map, half of them of the classes that are left out
        assert metrics["per_class"]["background"] > 0.95
        assert unit == "patch" or metrics["memory"] == [48, 24]


def matrix_of(folder, names, root, num_pred: int = 5) -> np.ndarray:
    """Counts int64 [5, num_pred] of the label maps in `folder` against the masks at their own size."""
    matrix = np.zeros((5, num_pred), int)
    for name in names:
        truth, found = (read_label(place / f"{name}.png") for place in (root / "SegmentationClassAug", folder))
        assert truth.shape == found.shape == (40, 40)
        np.add.at(matrix, (truth[truth != 255], found[truth != 255]), 1)
    return matrix


@pytest.mark.parametrize("options", [(), BACKBONE])
@pytest.mark.parametrize("unit", ["image", "patch"])
def test_cluster_maps(config, tmp_path, options, unit):
    """Maps of the clusters of the first seed give its matrix; those of the classes are the same under its match."""
    many = ("kmeans.clusters=6", "kmeans.match=one_to_one")  # some clusters have no class
    assert run(config, "mode=kmeans", f"kmeans.unit={unit}", "save_predictions=true", *many, *options) == 0
    folder = tmp_path / "out" / ("plain" if options else "net") / ("kmeans_patch" if unit == "patch" else "kmeans")
    metrics, root, names = read(folder / "metrics.json"), loaded(config).data.root, [f"v{i:03d}" for i in range(12)]
    matrix, every = np.load(folder / "confusion.npy"), np.load(folder / "confusion_seeds.npy")
    assert np.array_equal(matrix_of(folder / "clusters", names, root, 7), matrix) and every.shape == (2, 5, 7)
    assert np.array_equal(every[0], matrix) and not np.array_equal(every[0], every[1])
    match = np.array([number for _, number in metrics["match"]])
    assert (match < 0).any()
    for name in names:
        clusters, classes = (read_label(folder / part / f"{name}.png") for part in ("clusters", "predictions"))
        assert np.array_equal(classes, np.where(match < 0, 255, match)[clusters])
    if unit == "image":
        assigned = read(folder / "assignments.json")
        assert list(assigned) == names and np.array(list(assigned.values())).shape == (12, 2)
        for name in names:
            values = np.unique(read_label(folder / "clusters" / f"{name}.png")).tolist()
            assert set(values) <= {0, assigned[name][0]}
        second = [np.isin(np.arange(7), [assigned[name][1] for name in names])]
        assert not every[1][:, 1:][:, ~second[0][1:]].any()


@pytest.mark.parametrize("unit", ["image", "patch"])
def test_predictions_of_retrieval(config, tmp_path, unit):
    """All objects are found here: maps at the size of the files, from the figure over all classes."""
    assert run(config, "mode=retrieval", f"retrieval.unit={unit}", "save_predictions=true", *BACKBONE) == 0
    folder = tmp_path / "out" / "plain" / ("retrieval_patch" if unit == "patch" else "retrieval")
    root, names = loaded(config).data.root, [f"v{i:03d}" for i in range(12)]
    metrics = read(folder / "metrics.json")
    whole, kept = (np.load(folder / f"{name}.npy") for name in ("confusion", "confusion_kept"))
    assert metrics["miou"] == pytest.approx(np.nan_to_num(iou(whole)).mean()) and kept.shape == (5, 5)
    assert not kept[:, [1, 3]].any() and whole[:, [1, 3]].any()  # disc and bar are in no memory
    found = matrix_of(folder / "predictions", names, root)  # at 40 pixels, the matrices are counted at 32
    np.testing.assert_allclose(found / found.sum(), whole / whole.sum(), atol=0.02)
    if unit == "patch":
        return
    memory, neighbours = read(folder / "memory.json"), read(folder / "neighbours.json")
    assert memory["all"] == {f"t{i:03d}": 1 + i % 4 for i in range(48)}  # the class of each mask
    assert memory["kept"] == {name: number for name, number in memory["all"].items() if number in (2, 4)}
    for which, matrix in (("all", whole), ("kept", kept)):
        assert list(neighbours[which]) == names and set(neighbours[which].values()) <= memory[which].keys()
        shown = {memory[which][entry] for entry in neighbours[which].values()}
        assert shown == set((np.flatnonzero(matrix[:, 1:].any(0)) + 1).tolist())
    for name, seen in zip(names, ProbeData.open(loaded(config)).val("saliency"), strict=True):
        inside = cv2.resize(seen["saliency"].numpy(), (40, 40), interpolation=cv2.INTER_NEAREST)
        expected = inside * memory["all"][neighbours["all"][name]]
        assert np.array_equal(read_label(folder / "predictions" / f"{name}.png"), expected)


def test_the_neighbour_is_the_most_similar_prototype(config, tmp_path):
    """Of the images that the plain evaluation describes; labels are majorities inside the masks at network size."""
    assert run(config, "mode=retrieval", "retrieval.memory=val") == 0
    found = read(tmp_path / "out" / "net" / "retrieval" / "neighbours.json")["all"]
    labels = read(tmp_path / "out" / "net" / "retrieval" / "memory.json")["all"]
    dataset = ProbeData.open(loaded(config)).val("label")
    outputs = list(plain_outputs(config, dataset))
    vectors = np.stack([(np.where(logit > 0.5, logit, 0) * emb).sum((1, 2)) for emb, logit in outputs])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    names, majority = [sample.id for sample in dataset.samples], {}
    for index, (_, logit) in enumerate(outputs):
        inside = dataset[index]["label"].numpy()[logit > 0.5]
        counts = np.bincount(inside[(inside > 0) & (inside < 255)], minlength=5)
        if counts.any():
            majority[names[index]] = 4 - int(counts[::-1].argmax())
    assert labels == majority and len(labels) >= 8
    rows = [names.index(name) for name in labels]
    similar = vectors @ vectors[rows].T
    for index, name in enumerate(names):
        assert similar[index, list(labels).index(found[name])] >= similar[index].max() - 1e-4


@pytest.mark.parametrize("mode", ["kmeans", "retrieval"])
def test_images_without_a_salient_object_count_as_background(config, tmp_path, mode):
    """Only the background of such an image is predicted; its prototype is a zero vector."""
    root = make_voc(tmp_path / "voc", train=12)
    for name in ("v003", "t003"):
        write_label(root / "saliency_supervised_model" / f"{name}.png", np.zeros((40, 40), np.uint8))
    assert run(config, f"mode={mode}", f"data.root={root}", *BACKBONE) == 0
    metrics = read(tmp_path / "out" / "plain" / mode / "metrics.json")
    assert metrics["images"] == 12 and metrics["per_class"]["background"] < 0.999
    if mode == "retrieval":
        assert metrics["memory"] == [11, 5]  # t003 shows a dot, which is kept


def test_a_memory_without_objects_is_one_line(config, capsys, monkeypatch):
    monkeypatch.setattr("models.probes.SALIENT", 1e9)
    assert run(config, "mode=retrieval") == 2
    assert "retrieval.memory=trainaug: no object of it covers a class" in capsys.readouterr().err


# ---- linear probe


@pytest.mark.parametrize("options", [(), BACKBONE])
def test_linear_probe_trains_one_layer_and_is_scored_at_image_size(config, tmp_path, options):
    assert run(config, "mode=linear", "save_predictions=true", *options) == 0
    folder = tmp_path / "out" / ("plain" if options else "net")
    metrics, online = (read(folder / stage / "metrics.json") for stage in ("eval_linear", "linear"))
    assert metrics["images"] == 12 and metrics["protocol"] == "image size" and list(metrics["per_class"]) == CLASSES
    assert [row["model"] for row in metrics["compared"]] == ["best epoch", "last epoch"]
    assert metrics["compared"][0]["miou"] == metrics["miou"] and {"miou", "last"} <= online.keys()
    cfg = loaded(config, *options)
    torch.manual_seed(cfg.seed)
    trained, fresh = load_probe(cfg, folder / "linear" / "last.pth", 5).state_dict(), build_probe(cfg, 5).state_dict()
    changed = {key for key in fresh if not torch.equal(fresh[key], trained[key])}
    if not options:  # a random backbone is drawn anew
        assert changed == {"classifier.4.weight", "classifier.4.bias"}
    matrix = np.zeros((5, 5))
    for path in (folder / "eval_linear" / "predictions").iterdir():
        truth, prediction = read_label(cfg.data.root / "SegmentationClassAug" / path.name), read_label(path)
        np.add.at(matrix, (truth[truth != 255], prediction[truth != 255]), 1)
    assert metrics["miou"] == pytest.approx(np.nan_to_num(iou(matrix)).mean(), abs=1e-12)
    assert np.array_equal(np.load(folder / "eval_linear" / "confusion.npy"), matrix)


def test_a_trained_probe_labels_single_images(config, tmp_path):
    """predict.py gives the same label image as the evaluation."""
    assert run(config, "mode=linear", "save_predictions=true") == 0
    folder, photo = tmp_path / "out" / "net", loaded(config).data.root / "images" / "v001.jpg"
    given = [str(folder / "linear" / "best.pth"), str(photo), "--to", str(tmp_path / "labels"), "--device", "cpu"]
    assert guarded(predict.main, given) == 0
    expected = read_label(folder / "eval_linear" / "predictions" / "v001.png")
    assert np.array_equal(read_label(tmp_path / "labels" / "v001.png"), expected)


def test_step_is_cross_entropy_of_one_convolution(config):
    """Value and gradients by hand from the frozen features; dropout stays off while training."""
    cfg = loaded(config, "mode=linear", "data.border=ignore")
    data = ProbeData.open(cfg)
    with probe_features.start_run(cfg, "x", (), {}) as stage:
        model = stage.place(build_probe(cfg, data.num_classes))
        recipe = probe_features.LinearRecipe(model, cfg.training)
        (batch,) = data.source("train", data.train()).epoch(0, range(1))
        recipe.model.train()
        loss = recipe.step({"train": batch}, 0)["ce"]
        loss.backward()
    probe, image = recipe.model, recipe.model.normalize(batch["image"])
    encoder = build_features(cfg).network
    with torch.no_grad():
        features = encoder.decoder(encoder.backbone(image))
    weight, bias = (p.detach().clone().requires_grad_() for p in (probe.last.weight, probe.last.bias))
    logits = F.interpolate(F.conv2d(features, weight, bias), size=(32, 32), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(logits, batch["label"].long(), ignore_index=255)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(probe.last.weight.grad, weight.grad)
    torch.testing.assert_close(probe.last.bias.grad, bias.grad)
    assert all(p.grad is None for name, p in probe.named_parameters() if not name.startswith("classifier.4"))


def test_train_miou_is_of_the_pixels_before_each_step(config, tmp_path, monkeypatch):
    """All predictions of an epoch in one list, as the official program's meter; nothing of the epoch before."""
    plain, seen = LinearProbe.forward, []

    def forward(self, image):
        output = plain(self, image)
        if torch.is_grad_enabled():  # not in validation
            seen.append(output.logits.argmax(1))
        return output

    monkeypatch.setattr(LinearProbe, "forward", forward)
    assert run(config, "mode=linear") == 0
    monkeypatch.undo()
    cfg, shares = loaded(config, "mode=linear"), []
    data = ProbeData.open(cfg)
    source = data.source("train", data.train())
    labels = [batch["label"] for epoch in range(2) for batch in source.epoch(epoch, range(2))]
    for epoch in range(2):
        matrix = np.zeros((5, 5))
        for label, pred in list(zip(labels, seen, strict=True))[2 * epoch : 2 * epoch + 2]:
            counted = label != 255
            np.add.at(matrix, (label[counted].numpy(), pred[counted].numpy()), 1)
        shares.append(np.nan_to_num(iou(matrix)).mean())
    folder = tmp_path / "out" / "net" / "linear"
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    found = [line["val"]["train_miou"] for line in lines if "val" in line]
    metrics = read(folder / "metrics.json")
    assert found == pytest.approx(shares) and metrics["last"]["train_miou"] == found[-1]
    assert metrics["train_miou"] == found[metrics["epoch"] - 1]
    assert "train_miou" in (folder / "log.txt").read_text()


def test_a_killed_probe_goes_on_where_it_was(config, tmp_path, monkeypatch):
    """SIGTERM in the third of four iterations: the same final layer and figures as without it."""
    assert run(config, "mode=linear", "name=whole") == 0
    plain, seen = probe_features.LinearRecipe.step, []

    def step(self, batch, epoch):
        seen.append(epoch)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(probe_features.LinearRecipe, "step", step)
    assert run(config, "mode=linear", "name=stopped") == 75
    monkeypatch.undo()
    assert run(config, "mode=linear", "name=stopped") == 0
    first, second = (checkpoint.load(tmp_path / "out" / n / "linear" / "last.pth") for n in ("whole", "stopped"))
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    assert first["history"] == second["history"]
    one, two = (read(tmp_path / "out" / n / "eval_linear" / "metrics.json") for n in ("whole", "stopped"))
    assert one["per_class"] == two["per_class"] and one["compared"] == two["compared"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_official_linear_probe_is_scored_at_once(config, tmp_path, wrapped):
    assert run(config, "mode=linear") == 0
    state = to_official({"student": checkpoint.load(tmp_path / "out" / "net" / "linear" / "best.pth")["model"]})
    assert {"decoder.4.weight", "decoder.4.bias"} <= state.keys()
    path = tmp_path / "best_model.pth.tar"
    torch.save(
        {"optimizer": {}, "model": state, "epoch": 60, "best_epoch": 3, "best_iou": 0.5} if wrapped else state, path
    )
    assert run(config, "mode=linear", f"checkpoint={path}", "name=null") == 0
    ours, theirs = (read(tmp_path / "out" / n / "eval_linear" / "metrics.json") for n in ("net", "best_model"))
    assert ours["per_class"] == theirs["per_class"] and not (tmp_path / "out" / "best_model" / "linear").exists()


def test_crf_sees_logits_and_the_image_itself(config, tmp_path, monkeypatch):
    """A stand-in for the CRF that labels bright pixels of the whole image; only the best epoch is refined."""
    monkeypatch.setattr(probe_features, "require_crf", lambda: None)
    seen = []

    def bright(logits, image):
        seen.append((logits.shape, logits.dtype, image.shape))
        return (image[..., 0] > 150).astype(np.uint8)

    monkeypatch.setattr(probe_features, "refine", bright)
    assert run(config, "mode=linear", "evaluation.crf=true", "save_predictions=true") == 0
    assert seen == [((5, 32, 32), np.float32, (40, 40, 3))] * 12
    folder = tmp_path / "out" / "net" / "eval_linear_crf"
    metrics = read(folder / "metrics.json")
    assert metrics["protocol"] == "image size, CRF" and len(metrics["compared"]) == 1
    image = read_image(next((loaded(config).data.root / "images").glob("v000.jpg")))
    assert np.array_equal(read_label(folder / "predictions" / "v000.png"), (image[..., 0] > 150).astype(np.uint8))


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("mode=kmeans", "evaluation.crf=true"), "evaluation.crf: for mode=linear; ignored with mode=kmeans"),
        (("mode=retrieval", "training.lr=1"), "training.lr: for mode=linear; ignored with mode=retrieval"),
        (("checkpoint=null",), "checkpoint: model.kind=maskcontrast needs a pre-training checkpoint"),
        (("model.kind=untrained",), "checkpoint: not with model.kind=untrained"),
        (("mode=retrieval", "retrieval.ignore=[dics]"), "retrieval.ignore: 'dics' is no class of"),
        (("mode=kmeans", "kmeans.pca_dim=13"), "kmeans.pca_dim=13: only 12 vectors to cluster"),
        (("mode=kmeans", "kmeans.clusters=13"), "kmeans.clusters=13: only 12 vectors to cluster"),
        (("mode=retrieval", "retrieval.memory=nothing"), "nothing.txt: no such image list"),
        ((*BACKBONE, "mode=kmeans", "foreground=head"), "foreground=head: a plain backbone has no saliency head"),
        (("model.head_channels=9", "mode=kmeans"), "does not fit the network"),
        (
            (
                "mode=kmeans",
                "kmeans.cluster=5",
            ),
            "unknown key 'kmeans.cluster'; did you mean 'kmeans.clusters'?",
        ),
    ],
)
def test_mistakes_are_one_line(config, capsys, options, message):
    assert run(config, *options) == 2
    assert message in capsys.readouterr().err


def test_crf_without_its_package_fails_before_training(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert run(config, "mode=linear", "evaluation.crf=true") == 2
    assert "evaluation.crf=true: needs pydensecrf2" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_expected_figures(config, capsys):
    assert run(config, "mode=kmeans", "expected={miou: 1.0}") == 1
    assert "FAIL: miou" in capsys.readouterr().out
