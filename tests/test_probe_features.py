"""Clustering and retrieval from end to end on a few drawn images, against plain evaluations."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import probe_features
from data.contrast.probes import ProbeData
from data.io import read_image, read_label, write_label
from data.transforms import ValTransform
from models.contrast.probes import FeatureNetwork, build_features
from tests.conftest import CLASSES, make_voc
from tests.probes import BACKBONE, loaded, read, run, write_config, write_encoder
from utils.measure.metrics import iou


@pytest.fixture(scope="module")
def encoder(voc, tmp_path_factory):
    return write_encoder(voc, tmp_path_factory.mktemp("weights") / "checkpoint.pth.tar")


@pytest.fixture
def config(voc, encoder, tmp_path):
    return write_config(voc, encoder, tmp_path)


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
    assert "decoder.aspp.project.0.weight" in states[0] and states[0]["head.weight"].shape[0] == 6


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


@pytest.mark.parametrize("unit", ["image", "patch"])
@pytest.mark.parametrize("mode", ["kmeans", "retrieval"])
def test_no_object_anywhere_is_one_line(config, capsys, monkeypatch, tmp_path, mode, unit):
    """Neither from the network nor from the maps of the data: there would be figures otherwise."""
    options = (f"mode={mode}", f"{mode}.unit={unit}")
    root = make_voc(tmp_path / "voc", train=12)
    for path in (root / "saliency_supervised_model").iterdir():
        write_label(path, np.zeros((40, 40), np.uint8))
    assert run(config, *options, f"data.root={root}", *BACKBONE) == 2
    assert "foreground=saliency: in none of 12 images the saliency map has a salient pixel" in capsys.readouterr().err
    monkeypatch.setattr("models.contrast.probes.SALIENT", 1e9)
    assert run(config, *options, f"data.root={root}") == 2
    assert "foreground=head: in none of 12 images the saliency of the network" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("metrics.json"))


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


def test_expected_figures(config, capsys):
    assert run(config, "mode=kmeans", "expected={miou: 1.0}") == 1
    assert "FAIL: miou" in capsys.readouterr().out
