"""Wrong input ends with exit status 2 and one line that names the file or key and the cure."""

import numpy as np
import pytest
import torch
from PIL import Image

import cluster_pseudolabel
import entropy_rank
import eval as evaluation
import finetune_novel
import train_base
from data.io import read_label, write_label
from models.segmentation import build_network
from tests.conftest import make_pseudo, make_voc, write_tiny
from utils import checkpoint
from utils.config.reader import load_config
from utils.run import guarded

SMALL = ("model.backbone=efficientnet_lite0", "base_training.epochs=1")


@pytest.fixture
def root(tmp_path):
    """A data root of this test's own, to damage."""
    return make_voc(tmp_path / "voc", train=16, val=8)


@pytest.fixture
def config(root, tmp_path):
    return write_tiny(tmp_path, root)


@pytest.fixture
def fail(config, capfd):
    """Run a stage that must fail; its one line on standard error."""

    def run(main, *overrides: str) -> str:
        assert guarded(main, [str(config), *SMALL, *overrides]) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        return error

    return run


def save_network(path, config, outputs: int) -> str:
    cfg = load_config([str(config), *SMALL], "")
    checkpoint.save(path, {"model": build_network(cfg.model, outputs).state_dict()})
    return str(path)


def test_missing_data_folder(fail, tmp_path):
    error = fail(train_base.main, f"data.root={tmp_path / 'none'}")
    assert f"data.root={tmp_path / 'none'}: no such folder; set data.root or $DATA_ROOT" in error


@pytest.mark.parametrize("folder", ["images", "sets", "SegmentationClassAug"])
def test_missing_folder_of_the_layout(fail, root, folder):
    (root / folder).rename(root / "elsewhere")
    error = fail(train_base.main)
    assert str(root) in error and folder in error and "expected layout" in error


def test_missing_image(fail, root):
    (root / "images" / "t004.jpg").unlink()
    assert f"{root / 'images' / 't004.jpg'}: no such file, but 't004' is in the image list" in fail(train_base.main)


def test_missing_saliency_file(fail, root, config, tmp_path):
    base = save_network(tmp_path / "base.pth", config, 3)
    (root / "saliency_supervised_model" / "t002.png").unlink()
    error = fail(cluster_pseudolabel.main, f"base_checkpoint={base}")
    assert "saliency_supervised_model/t002.png: no such file, but 't002' is in the image list" in error


def test_missing_saliency_folder(fail, root, config, tmp_path):
    base = save_network(tmp_path / "base.pth", config, 3)
    (root / "saliency_supervised_model").rename(root / "elsewhere")
    error = fail(cluster_pseudolabel.main, f"base_checkpoint={base}")
    assert "has no folder 'saliency_supervised_model'; expected layout" in error


@pytest.mark.parametrize("workers", [0, 1])
def test_label_value_outside_the_class_list(fail, root, workers):
    path = root / "SegmentationClassAug" / "t004.png"
    label = read_label(path)
    label[5, 5] = 77
    write_label(path, label)
    error = fail(train_base.main, f"data.workers={workers}", "base_training={batch_size: 8, iters_per_epoch: 1}")
    assert f"{path}: label value 77 is not a class here; allowed: 0-4, 255" in error


@pytest.mark.parametrize("name, workers", [("t004", 0), ("t004", 1), ("v000", 1)])  # in training and in validation
def test_image_and_mask_of_different_sizes(fail, root, name, workers):
    path = root / "SegmentationClassAug" / f"{name}.png"
    write_label(path, np.pad(read_label(path), ((0, 0), (0, 1))))
    options = "base_training={batch_size: 8, iters_per_epoch: 1}"  # 8 images with base classes: one step reads them all
    error = fail(train_base.main, f"data.workers={workers}", options)
    assert f"{path}: 41x40 pixels, but {root / 'images' / f'{name}.jpg'} has 40x40" in error


def test_unreadable_image(fail, root):
    path = root / "images" / "t004.jpg"
    path.write_bytes(path.read_bytes()[:400])
    error = fail(train_base.main, "base_training={batch_size: 8, iters_per_epoch: 1}")
    assert f"{path}: not a readable image" in error


def test_mask_in_colours(fail, root):
    path = root / "SegmentationClassAug" / "t004.png"
    Image.new("RGB", (40, 40)).save(path)
    error = fail(train_base.main)
    assert f"{path}: 3 channels; expected one value per pixel" in error


@pytest.mark.parametrize("outputs", [2, 4])
def test_checkpoint_for_other_classes(fail, config, tmp_path, outputs):
    path = save_network(tmp_path / "voc.pth", config, outputs)
    error = fail(evaluation.main, f"checkpoint={path}")
    assert f"{path}: has {outputs} outputs" in error and "split=two" in error and "needs 3 (base model)" in error
    assert "or, if it has so few clusters, evaluation.match=many_to_one" in error


def test_checkpoint_for_other_classes_in_the_other_stages(fail, config, root, tmp_path):
    path = save_network(tmp_path / "voc.pth", config, 17)
    error = fail(cluster_pseudolabel.main, f"base_checkpoint={path}")
    assert f"{path}: has 17 outputs, this run needs 3" in error
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    error = fail(entropy_rank.main, f"basic_checkpoint={path}", f"pseudo_dir={pseudo}")
    assert f"{path}: has 17 outputs, this run needs 6" in error


def test_checkpoint_of_another_network(fail, config, tmp_path):
    path = save_network(tmp_path / "lite.pth", config, 3)
    error = fail(evaluation.main, "method=base", f"checkpoint={path}", "model.backbone=resnet18")
    assert f"{path}: does not fit the network (" in error and "is missing there" in error


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_corrupt_checkpoint(fail, config, tmp_path, damage):
    path = tmp_path / "base.pth"
    save_network(path, config, 3)
    content = {"cut": path.read_bytes()[:-1000], "empty": b"", "text": b"<html>404</html>"}
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    for main, key in ((cluster_pseudolabel.main, "base_checkpoint"), (train_base.main, "init_from")):
        error = fail(main, f"{key}={path}", "resume=false")
        assert f"{path}: no such" in error or f"{path}: not a readable checkpoint" in error


def test_corrupt_checkpoint_of_the_run_itself(fail, config):
    folder = config.parent / "out" / "two" / "base"
    assert guarded(train_base.main, [str(config), *SMALL]) == 0
    (folder / "metrics.json").unlink()
    (folder / "last.pth").write_bytes((folder / "last.pth").read_bytes()[:5000])
    error = fail(train_base.main)
    assert f"{folder / 'last.pth'}: not a readable checkpoint" in error  # one epoch leaves none before it


def test_unknown_configuration_key(fail):
    assert "unknown key 'data.rot'; did you mean 'data.root'?" in fail(train_base.main, "data.rot=/data")


def test_unknown_class_name_in_a_split(fail, tmp_path):
    path = tmp_path / "shapes" / "two.yaml"
    path.write_text("novel: [barr, dot]\n")
    assert f"{path}: unknown class 'barr' (names, or numbers 1-4); did you mean 'bar'?" in fail(train_base.main)


def test_unknown_split_and_class_list(fail):
    assert "split=three: no such split" in fail(train_base.main, "split=three")
    assert "data.dataset=vocc: no class list; use one of" in fail(train_base.main, "data.dataset=vocc")


@pytest.mark.parametrize(
    "main, overrides, missing, made_by",
    [
        (cluster_pseudolabel.main, [], "base", "train_base.py"),
        (finetune_novel.main, ["method=basic"], "pseudo", "cluster_pseudolabel.py"),
        (finetune_novel.main, ["method=eums", "pseudo_dir={pseudo}"], "ranking", "entropy_rank.py"),
        (entropy_rank.main, [], "pseudo", "cluster_pseudolabel.py"),
        (entropy_rank.main, ["pseudo_dir={pseudo}"], "basic", "finetune_novel.py CONFIG method=basic"),
        (evaluation.main, ["method=eums"], "eums", "finetune_novel.py CONFIG method=eums"),
        (evaluation.main, ["method=base"], "base", "train_base.py"),
        (
            finetune_novel.main,
            ["method=basic", "pseudo_dir={pseudo}", "basic.init_from_base=true"],
            "base",
            "train_base.py",
        ),
    ],
)
def test_a_stage_started_before_the_stage_it_needs(fail, pseudo, main, overrides, missing, made_by):
    error = fail(main, *(value.format(pseudo=pseudo) for value in overrides))
    assert f"stage '{missing}' has not finished; run first: python {made_by}" in error


def test_method_of_another_script(fail):
    assert "use method=basic or method=eums, or train_base.py" in fail(finetune_novel.main, "method=base")


def test_empty_lists(fail, root, tmp_path):
    (root / "sets" / "val.txt").write_text("\n")
    assert "the image list 'base_val' is empty" in fail(train_base.main)
    checkpoint.write_list(root / "sets" / "val.txt", ["v000"])
    checkpoint.write_list(root / "sets" / "novel_only.txt", ["t002", "t003"])
    assert "the image list 'base_train' is empty" in fail(train_base.main, "data.train_list=novel_only")


def test_a_folder_of_lists_that_is_not_there(fail):
    assert "data.lists=/nowhere: no such folder" in fail(train_base.main, "data.lists=/nowhere")


def test_missing_and_repeated_list(fail, root):
    assert "sets/trainval.txt: no such image list" in fail(train_base.main, "data.train_list=trainval")
    checkpoint.write_list(root / "sets" / "twice.txt", ["t000", "t001", "t002", "t000"])
    assert "image 't000' is twice" in fail(train_base.main, "data.train_list=twice")


def test_results_of_other_data(root, config, tmp_path, capsys):
    """A mask edited after an evaluation; its figures are not shown as those of today's data."""

    def evaluate(*overrides: str) -> int:
        given = f"checkpoint={tmp_path / 'base.pth'}"
        return guarded(evaluation.main, [str(config), *SMALL, "method=base", given, *overrides])

    save_network(tmp_path / "base.pth", config, 3)
    assert evaluate() == 0 and evaluate(f"data.root={make_voc(tmp_path / 'copy', train=16, val=8)}") == 0
    assert "already finished, skipped" in capsys.readouterr().out
    path = root / "SegmentationClassAug" / "v000.png"
    write_label(path, np.flipud(read_label(path)))
    assert evaluate() == 2
    assert f"eval_base was made with other data ({path} has changed); resume=false" in capsys.readouterr().err
    assert evaluate("resume=false") == 0 and evaluate() == 0


def test_empty_lists_of_pseudo_labels(fail, root, tmp_path):
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    for method, name in (
        ("eums", "easy_split.txt"),
        ("eums", "hard_split.txt"),
        ("basic", "novel.txt"),
        ("basic", "base.txt"),
    ):
        content = (pseudo / name).read_text()
        (pseudo / name).write_text("")
        error = fail(finetune_novel.main, f"method={method}", f"pseudo_dir={pseudo}", f"split_dir={pseudo}")
        role = name.removesuffix(".txt").removesuffix("_split")
        assert f"the image list '{role}' is empty; training needs at least one image in it" in error
        (pseudo / name).write_text(content + content[-5:])
        error = fail(finetune_novel.main, f"method={method}", f"pseudo_dir={pseudo}", f"split_dir={pseudo}")
        assert f"{name}: image '{content[-5:].strip()}' is twice in the list; keep it once" in error
        (pseudo / name).write_text(content)


def test_lists_of_another_data_set(fail, root, tmp_path):
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    checkpoint.write_list(pseudo / "novel.txt", ["2007_000032"])
    error = fail(finetune_novel.main, "method=basic", f"pseudo_dir={pseudo}")
    assert "novel.txt: image '2007_000032' has no novel class here; made for another split?" in error


def test_missing_pseudo_label(fail, root, tmp_path):
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    (pseudo / "pseudo_labels" / "t002.png").unlink()
    error = fail(finetune_novel.main, "method=basic", f"pseudo_dir={pseudo}")
    assert "pseudo_labels/t002.png: no such file" in error


def test_pseudo_labels_of_more_clusters(fail, root, tmp_path):
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    options = ("method=basic", f"pseudo_dir={pseudo}", "cluster.k=2", "basic={batch_size: 8, iters_per_epoch: 1}")
    labels = pseudo / "pseudo_labels"
    for path in labels.iterdir():
        write_label(path, np.full_like(read_label(path), 5))
    assert "label value 5 is not a class here; allowed: 0-4, 255" in fail(finetune_novel.main, *options)


def test_fewer_clusters_than_novel_classes(fail, config, root, tmp_path):
    """Only what matches clusters to classes needs more, and says so before it trains; the oracle has one per class."""
    pseudo = make_pseudo(tmp_path / "pseudo", root)
    line = (
        "evaluation.match=official: not defined for 1 clusters, fewer than the 2 novel classes of split=two; give "
        "evaluation.match=many_to_one or one_to_one, or cluster.k=2 and more"
    )
    few = (f"pseudo_dir={pseudo}", f"split_dir={pseudo}", "cluster.k=1")
    assert line in fail(finetune_novel.main, "method=basic", *few)
    assert line in fail(finetune_novel.main, "method=eums", *few)
    base = save_network(tmp_path / "base.pth", config, 3)
    oracle = fail(cluster_pseudolabel.main, f"base_checkpoint={base}", "cluster.k=1", "cluster.assign=oracle")
    assert (
        "cluster.k=1: cluster.assign=oracle needs a cluster for each novel class of split=two; use at least 2" in oracle
    )


def test_batch_larger_than_the_list(fail):
    error = fail(train_base.main, "base_training={batch_size: 9, iters_per_epoch: null}")
    assert "batch_size=9 is larger than the 'base' image list; use a smaller one" in error


def test_batch_of_one(fail):
    assert "batch_size=1: less than 2 images" in fail(train_base.main, "base_training.batch_size=1")


def test_fewer_objects_than_clusters(fail, config, tmp_path):
    base = save_network(tmp_path / "base.pth", config, 3)
    options = (f"base_checkpoint={base}", "cluster.threshold=1.0")
    assert "cluster.pca_dim" in fail(cluster_pseudolabel.main, *options, "cluster.pca_dim=30")
    assert "cluster.k" in fail(cluster_pseudolabel.main, *options, "cluster.pca_dim=null", "cluster.k=30")
    assert "cluster.min_pixels=5000: no novel region" in fail(
        cluster_pseudolabel.main, *options, "cluster.min_pixels=5000"
    )


def test_not_a_number_in_training(fail, monkeypatch):
    step = train_base.SupervisedRecipe.step
    monkeypatch.setattr(
        train_base.SupervisedRecipe, "step", lambda self, *a: {k: v * torch.nan for k, v in step(self, *a).items()}
    )
    error = fail(train_base.main)
    assert "the loss is not finite at step 1 (base=nan); stopped before the update" in error
    named = error.strip().split("its images: base ")[1].split(", ")
    assert len(named) == 4 and all(int(name.removeprefix("t")) in range(16) for name in named)


def test_unknown_figure_expected(fail, config, tmp_path):
    path = save_network(tmp_path / "base.pth", config, 3)
    error = fail(evaluation.main, "method=base", f"checkpoint={path}", "expected={mIoU: 0.5}")
    assert "expected.mIoU: no such metric; metrics.json has miou" in error
