"""The whole discovery chain on a few drawn images, called as a user calls it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

import cluster_pseudolabel
import entropy_rank
import eval as evaluation  # the module's name is the script's
import finetune_novel
import predict
import report
import train_base
from data.discovery.builder import DiscoveryData
from data.embeddings import write_table
from data.io import read_label
from models.contrast.encoder import build_encoder
from models.segmentation import build_network
from models.segmentation_files import load_network
from utils.checkpoint import read_list
from utils.config.contrast import Encoder
from utils.config.reader import load_config
from utils.errors import UserError
from utils.run import guarded


def run(main, config, *overrides) -> int:
    return guarded(main, [str(config), *overrides])


@pytest.fixture(scope="module")
def chain(voc, tmp_path_factory):
    """Output folder of a finished chain, and its configuration file."""
    from tests.conftest import write_tiny

    folder = tmp_path_factory.mktemp("chain")
    config = write_tiny(folder, voc)
    assert run(train_base.main, config) == 0
    assert run(cluster_pseudolabel.main, config) == 0
    assert run(finetune_novel.main, config, "method=basic") == 0
    assert run(entropy_rank.main, config) == 0
    assert run(finetune_novel.main, config, "method=eums") == 0
    assert run(evaluation.main, config, "method=eums", "save_predictions=true") == 0
    assert run(report.main, config) == 0
    return folder / "out" / "two", config


def test_files_are_those_of_the_official_code(chain):
    out, _ = chain
    novel, base = read_list(out / "pseudo" / "novel.txt"), read_list(out / "pseudo" / "base.txt")
    assert novel == sorted(novel) and not set(novel) & set(base)
    assert base == [f"t{i:03d}" for i in range(48) if i % 4 < 2]  # disc and square
    assert set(novel) <= {f"t{i:03d}" for i in range(48) if i % 4 >= 2}
    for name in novel:
        pseudo = read_label(out / "pseudo" / "pseudo_labels" / f"{name}.png")
        assert pseudo.shape == (40, 40) and pseudo.max() <= 2 + 3
    easy, hard = read_list(out / "ranking" / "easy_split.txt"), read_list(out / "ranking" / "hard_split.txt")
    assert sorted(easy + hard) == novel and len(easy) == int(0.67 * len(novel))
    entropy = json.loads((out / "ranking" / "entropy.json").read_text())
    assert [entropy[name] for name in easy + hard] == sorted(entropy.values())


def test_clustering_takes_its_features_from_any_checkpoint(chain, tmp_path):
    out, config = chain  # whose features are the base model's
    state = torch.load(out / "base" / "best.pth", weights_only=True)["model"]
    plain = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    torch.save(plain, tmp_path / "backbone.pth")
    options = [f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}"]
    assert (
        run(cluster_pseudolabel.main, config, *options, f"cluster.features_checkpoint={tmp_path / 'backbone.pth'}") == 0
    )
    for name in read_list(out / "pseudo" / "novel.txt"):
        one, other = (folder / "pseudo" / "prototypes" / f"{name}.npy" for folder in (out, tmp_path / "two"))
        assert np.array_equal(np.load(one), np.load(other))


def test_clusters_get_names_from_word_vectors(chain, tmp_path, capsys):
    out, config = chain
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 1]])
    write_table(tmp_path / "words.npz", ["disc", "square", "bar", "dot"], vectors)
    options = [f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}", "cluster.names=suggest"]
    words = f"cluster.name_vectors={tmp_path / 'words.npz'}"
    assert run(cluster_pseudolabel.main, config, *options, words) == 0
    pseudo = tmp_path / "two" / "pseudo"
    names = json.loads((pseudo / "names.json").read_text())
    assert list(names) == ["1", "2", "3"]
    for best in names.values():
        assert {name for name, _ in best} == {"bar", "dot"} and 1 >= best[0][1] >= best[1][1] >= -1
    files = (pseudo / "clusters.json", out / "pseudo" / "clusters.json")
    assert len({file.read_text() for file in files}) == 1  # names change nothing else
    capsys.readouterr()
    assert run(cluster_pseudolabel.main, config, *options, words, "cluster.assign=random", "resume=false") == 2
    assert "cluster.names=suggest: needs cluster.assign=kmeans, not random" in capsys.readouterr().err


def test_clustering_on_maskcontrast_features(chain, tmp_path):
    """Prototypes are the official evaluation's, of the novel region: sums of embeddings, not normalised before."""
    out, config = chain
    torch.manual_seed(0)
    sizes = {"backbone": "resnet18", "init": "random", "atrous_rates": (1, 2, 3), "head_channels": 8}
    encoder = build_encoder(Encoder(**sizes), 6).eval()
    file = tmp_path / "contrast.pth"
    torch.save({"model": {f"module.model_q.{key}": value for key, value in encoder.state_dict().items()}}, file)
    options = [f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}", "cluster.pca_dim=null"]
    assert run(cluster_pseudolabel.main, config, *options, "cluster.features=maskcontrast", f"checkpoint={file}") == 0
    pseudo = tmp_path / "two" / "pseudo"
    name = read_list(pseudo / "novel.txt")[0]
    image = cv2.imread(str(Path(load_config([str(config)], "").data.root) / "images" / f"{name}.jpg"))[..., ::-1].copy()
    image = torch.from_numpy(cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC)).permute(2, 0, 1)[None]
    weight = cv2.resize(read_label(pseudo / "novel_map" / f"{name}.png"), (32, 32), interpolation=cv2.INTER_NEAREST)
    with torch.no_grad():
        embedding = encoder(encoder.normalize(image)).embedding
    expected = normalize((embedding[0] * torch.from_numpy(weight).float()).sum((1, 2)), dim=0)
    torch.testing.assert_close(np.load(pseudo / "prototypes" / f"{name}.npy"), expected.numpy(), atol=1e-4, rtol=1e-3)
    assert "features_checkpoint" in json.loads((pseudo / "inputs.json").read_text())


def test_maskcontrast_features_need_their_file(chain, capsys):
    _, config = chain
    assert run(cluster_pseudolabel.main, config, "cluster.features=maskcontrast") == 2
    assert "needs checkpoint=FILE" in capsys.readouterr().err


def test_clustering_on_the_embedding_of_the_base_model(chain, tmp_path):
    """Before PCA, an object is the normalised mean of the classifier's input over its novel region."""
    out, config = chain
    options = [f"base_checkpoint={out / 'base' / 'best.pth'}", f"output_dir={tmp_path}", "cluster.pca_dim=null"]
    assert run(cluster_pseudolabel.main, config, *options, "cluster.layer=embedding") == 0
    pseudo, data = tmp_path / "two" / "pseudo", DiscoveryData.open(load_config([str(config)], ""))
    model = build_network(data.cfg.model, data.num_known, init="random").eval()
    load_network(model, out / "base" / "best.pth")
    dataset = data.objects(read_list(pseudo / "novel.txt"), pseudo, 32)
    for batch in data.context.loader(dataset, 1):
        with torch.no_grad():
            embedding = model(model.normalize(batch["image"])).embedding
        large = interpolate(embedding, batch["saliency"].shape[-2:], mode="bilinear")
        vector = normalize((large * batch["saliency"][:, None]).sum((0, 2, 3)), dim=0).numpy()
        found = np.load(pseudo / "prototypes" / f"{dataset.samples[int(batch['index'])].id}.npy")
        np.testing.assert_allclose(found, vector, atol=1e-5)


def test_the_embedding_is_that_of_the_base_model(chain, capsys):
    _, config = chain
    options = ["cluster.layer=embedding", "cluster.features=imagenet"]
    assert run(cluster_pseudolabel.main, config, *options) == 2
    assert "set cluster.features=base" in capsys.readouterr().err


def test_eums_may_start_from_the_whole_basic_model(chain, tmp_path):
    """At a learning rate of nearly zero, student and teacher stay the basic model of the last epoch."""
    out, config = chain
    options = [f"pseudo_dir={out / 'pseudo'}", f"split_dir={out / 'ranking'}", f"output_dir={tmp_path}"]
    options += [f"basic_checkpoint={out / 'basic' / 'last.pth'}", "eums.epochs=1", "eums.reassign_epochs=[]"]
    options += ["method=eums", "eums.init_from_basic=true", "eums.lr=1e-12", "eums.weight_decay=0"]
    assert run(finetune_novel.main, config, *options) == 0
    basic = torch.load(out / "basic" / "last.pth", weights_only=True)["model"]
    eums = torch.load(tmp_path / "two" / "eums" / "last.pth", weights_only=True)["model"]
    for name, value in basic.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            for network in ("student", "teacher"):
                torch.testing.assert_close(eums[f"{network}.{name}"], value, rtol=0, atol=1e-6)


def test_ranking_by_the_truth(chain, voc, tmp_path):
    """The images with the largest error of their pseudo-label are unclean; the error is 1 in a foreign cluster."""
    out, config = chain
    options = [f"pseudo_dir={out / 'pseudo'}", f"basic_checkpoint={out / 'basic' / 'best.pth'}"]
    assert run(entropy_rank.main, config, *options, f"output_dir={tmp_path}", "ranking.by=truth") == 0
    folder = tmp_path / "two" / "ranking"
    errors = json.loads((folder / "entropy.json").read_text())
    easy, hard = (read_list(folder / f"{name}_split.txt") for name in ("easy", "hard"))
    assert max(errors[name] for name in easy) <= min(errors[name] for name in hard)
    for name, error in errors.items():
        pseudo = read_label(out / "pseudo" / "pseudo_labels" / f"{name}.png")
        label = read_label(voc / "SegmentationClassAug" / f"{name}.png")
        found, true, valid = pseudo > 2, (label > 2) & (label != 255), label != 255
        iou = (found & true & valid).sum() / ((found | true) & valid).sum()
        assert error == pytest.approx(1 - iou) or error == 1.0


def test_reassignment_keeps_half_of_the_clean_list(chain):
    out, _ = chain
    before, after = (read_list(out / stage / "easy_split.txt") for stage in ("ranking", "eums"))
    assert set(after) < set(before) and len(after) == len(before) // 2
    moved = set(before) - set(after)
    hard = read_list(out / "eums" / "hard_split.txt")
    assert hard[: -len(moved)] == read_list(out / "ranking" / "hard_split.txt") and set(hard[-len(moved) :]) == moved


def test_metrics_follow_the_contract(chain):
    out, _ = chain
    metrics = json.loads((out / "eval_eums" / "metrics.json").read_text())
    assert {
        "protocol",
        "images",
        "miou",
        "pixel_accuracy",
        "mean_accuracy",
        "base_miou",
        "novel_miou",
        "harmonic_miou",
        "per_class",
        "match",
        "checkpoint",
        "config_sha256",
    } <= metrics.keys()
    assert list(metrics["per_class"]) == ["background", "disc", "square", "bar", "dot"]
    assert [cluster for cluster, _ in metrics["match"]] == [0, 1, 2] and {c for _, c in metrics["match"]} <= {0, 1}
    scores = [s or 0.0 for s in metrics["per_class"].values()]
    assert metrics["miou"] == pytest.approx(np.mean(scores)) and metrics["novel_miou"] == pytest.approx(
        np.mean(scores[3:])
    )


def test_saved_predictions_give_the_reported_iou(chain, voc):
    """Recompute every IoU from the written PNGs, in original class numbers, the slow way."""
    out, _ = chain
    metrics = json.loads((out / "eval_eums" / "metrics.json").read_text())
    names = read_list(voc / "sets" / "val.txt")
    truth = np.stack([read_label(voc / "SegmentationClassAug" / f"{n}.png") for n in names])
    pred = np.stack([read_label(out / "eval_eums" / "predictions" / f"{n}.png") for n in names])
    for number, name in enumerate(["background", "disc", "square", "bar", "dot"]):
        valid = truth != 255
        union = ((truth == number) | (pred == number)) & valid
        both = (truth == number) & (pred == number)
        assert metrics["per_class"][name] == pytest.approx(both.sum() / union.sum())


def test_finished_stages_are_skipped(chain, capsys):
    out, config = chain
    before = (out / "eums" / "best.pth").stat().st_mtime_ns
    assert run(finetune_novel.main, config, "method=eums") == 0
    assert "already finished" in capsys.readouterr().out
    assert (out / "eums" / "best.pth").stat().st_mtime_ns == before


def test_other_settings_are_refused_not_overwritten(chain, capsys):
    _, config = chain
    assert run(train_base.main, config, "base_training.lr=0.2") == 2
    assert "base_training.lr: 0.05 there, 0.2 now" in capsys.readouterr().err


def test_changed_input_is_noticed(chain, capsys):
    """A clustering made from another base model must not pass for this one's."""
    out, config = chain
    other = out / "other.pth"
    state = torch.load(out / "base" / "best.pth", weights_only=True)
    state["model"]["classifier.bias"] += 1
    torch.save(state, other)
    assert run(cluster_pseudolabel.main, config, f"base_checkpoint={other}") == 2
    assert "its input 'base_checkpoint' has changed" in capsys.readouterr().err


def test_half_written_stage_is_never_used(chain, capsys):
    out, config = chain
    mark = out / "pseudo" / "metrics.json"
    content = mark.read_text()
    mark.unlink()
    try:
        assert run(finetune_novel.main, config, "method=basic", "resume=false") == 2
        assert "stage 'pseudo' has not finished" in capsys.readouterr().err
    finally:
        mark.write_text(content)


def test_same_seed_same_pseudo_labels(chain, tmp_path):
    out, config = chain
    assert (
        run(cluster_pseudolabel.main, config, f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}")
        == 0
    )
    again = tmp_path / "two" / "pseudo"
    assert (out / "pseudo" / "pseudo_labels" / "manifest.json").is_file()
    for path in (out / "pseudo" / "pseudo_labels").iterdir():
        assert (again / "pseudo_labels" / path.name).read_bytes() == path.read_bytes()


def test_references(chain):
    """Oracle labels put every object into its true class; with them the clusters are pure."""
    out, config = chain
    assert run(cluster_pseudolabel.main, config, "cluster.assign=oracle") == 0
    assert json.loads((out / "pseudo_oracle" / "metrics.json").read_text())["purity"] == 1.0
    assert run(cluster_pseudolabel.main, config, "cluster.assign=random") == 0
    assert run(finetune_novel.main, config, "method=basic", "cluster.assign=oracle") == 0
    assert (out / "basic_oracle" / "metrics.json").exists()


def test_official_folders_move_in(chain, tmp_path):
    """Pseudo-labels and clean/unclean lists given by path start EUMS without the stages before it."""
    out, config = chain
    given = [f"pseudo_dir={out / 'pseudo'}", f"split_dir={out / 'ranking'}", f"output_dir={tmp_path}", "eums.epochs=1"]
    assert run(finetune_novel.main, config, "method=eums", *given) == 0
    assert (tmp_path / "two" / "eums" / "metrics.json").exists()


def test_expected_figure_decides_the_exit_status(chain):
    _, config = chain
    assert run(evaluation.main, config, "method=eums", "resume=false", "expected={miou: 1.0}") == 1
    assert run(evaluation.main, config, "method=eums", "resume=false", "expected={miou: 0.0}") == 0


def test_stage_needs_the_one_before(tiny, capsys):
    assert run(cluster_pseudolabel.main, tiny) == 2
    assert "stage 'base' has not finished; run first: python train_base.py" in capsys.readouterr().err


def test_fewer_clusters_than_novel_classes(chain, tmp_path):
    """One cluster for two classes: the chain runs, and the class that it is not matched to has IoU 0."""
    out, config = chain
    few = [f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}", "cluster.k=1"]
    assert run(cluster_pseudolabel.main, config, *few) == 0
    few.append("evaluation.match=many_to_one")
    assert run(finetune_novel.main, config, "method=basic", *few) == 0
    assert run(entropy_rank.main, config, *few) == 0
    assert run(finetune_novel.main, config, "method=eums", *few) == 0
    assert run(evaluation.main, config, "method=eums", "save_predictions=true", *few) == 0
    metrics = json.loads((tmp_path / "two" / "eval_eums" / "metrics.json").read_text())
    [[cluster, novel]] = metrics["match"]
    assert cluster == 0 and metrics["per_class"][["bar", "dot"][1 - novel]] == 0
    assert {row["matching"] for row in metrics["compared"]} == {"many_to_one", "one_to_one"}
    assert run(report.main, config, *few) == 0


def test_report_is_one_file(chain):
    out, _ = chain
    page = (out / "report.html").read_text()
    assert "EUMS" in page and "data:image/" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_more_base_classes_than_eight_bits_hold():
    """Class 299 is not stored as 43."""
    logits = torch.zeros(1, 300, 1, 2)
    logits[0, 299, 0, 0] = logits[0, 7, 0, 1] = 20
    maps = cluster_pseudolabel.base_removal(logits, torch.ones(1, 1, 2, dtype=torch.uint8), 0.9)
    assert maps["full_pred"].tolist() == maps["high_base_pred"].tolist() == [[[299, 7]]]
    assert maps["novel_map"].tolist() == [[[0, 0]]] and maps["high_base_map"].tolist() == [[[255, 255]]]


def test_more_clusters_than_eight_bits_hold(voc, tmp_path):
    """k=300: pseudo-labels are 16-bit files; training, ranking, evaluation and prediction work."""
    from tests.conftest import write_tiny

    config = write_tiny(tmp_path, voc)
    assert run(train_base.main, config, "base_training.epochs=1", "base_training.milestones=[]") == 0
    assert run(cluster_pseudolabel.main, config, "cluster.k=300", "cluster.assign=random") == 0
    with pytest.raises(UserError, match="cluster.k=65533: label files hold at most 65532 clusters besides these"):
        DiscoveryData.open(load_config([str(config), "cluster.k=65533"], ""))
    out = tmp_path / "out" / "two"
    folder = out / "pseudo_random"
    many = ("cluster.k=300", f"pseudo_dir={folder}", "eums.epochs=1", "eums.reassign_epochs=[]")
    labels = [read_label(folder / "pseudo_labels" / f"{name}.png") for name in read_list(folder / "novel.txt")]
    assert {label.dtype for label in labels} == {np.dtype(np.uint16)}
    assert 255 < max(label.max() for label in labels) <= 2 + 300
    assert run(finetune_novel.main, config, "method=basic", "basic.epochs=1", *many) == 0
    assert run(entropy_rank.main, config, *many) == 0
    assert run(finetune_novel.main, config, "method=eums", *many) == 0
    assert run(evaluation.main, config, "method=eums", "save_predictions=true", *many) == 0
    evaluated = out / "eval_eums"
    assert np.load(evaluated / "confusion.npy").shape == (5, 3 + 300)
    for path in (evaluated / "predictions").glob("*.png"):
        assert set(np.unique(read_label(path))) <= {0, 1, 2, 3, 4, 255}
    image = next((voc / "images").glob("v*.jpg"))
    assert predict.main([str(out / "eums" / "best.pth"), str(image), "--to", str(tmp_path / "seen")]) == 0
    assert set(np.unique(read_label(tmp_path / "seen" / f"{image.stem}.png"))) <= {0, 1, 2, 3, 4, 255}
