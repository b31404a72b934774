"""Mean and deviation over runs."""

import json

import pytest
import yaml

import collect
from utils.errors import UserError
from utils.run import guarded


def stage(folder, metrics, **config):
    """A finished stage, as far as collect.py reads it."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write(folder, name, base, novel, miou, dataset="pascal", seed=0, split="fold0"):
    """An evaluated stage of novel class discovery in <output_dir>/<split>."""
    metrics = {"base_miou": base, "novel_miou": novel, "miou": miou}
    stage(folder / split / name, metrics, system="ncdss", split=split, seed=seed, data={"dataset": dataset})


def test_mean_and_sample_deviation(tmp_path, capsys):
    """30, 34 and 38 per cent: mean 34, deviation sqrt((16 + 0 + 16) / 2) = 4."""
    for seed, novel in enumerate((0.30, 0.34, 0.38)):
        write(tmp_path / str(seed), "eval_eums", 0.5, novel, 0.4, seed=seed)
    write(tmp_path / "0", "eval_basic_random", 0.1, None, 0.1)
    collect.main([str(tmp_path / str(seed)) for seed in range(3)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "EUMS" in line] == [
        ["EUMS", "(3)", "50.0", "±", "0.0", "34.0", "±", "4.0", "40.0", "±", "0.0"]
    ]
    assert [line.split()[-3:] for line in lines if "random" in line] == [["10.0", "-", "10.0"]]


def test_folds_beside_the_paper(tmp_path, capsys):
    """Two seeds of four folds: means 25 and 35, so 30 ± sqrt(50) = 7.1; a third seed lacks folds and stays out."""
    for seed, start in enumerate((0.10, 0.20)):
        for fold in range(4):
            write(tmp_path / str(seed), "eval_eums", 0.5, start + fold / 10, 0.4, seed=seed, split=f"fold{fold}")
    write(tmp_path / "2", "eval_eums", 0.5, 0.3, 0.4, seed=2)
    collect.main([str(tmp_path), "--columns", "split", "--style", "markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| novel mIoU | fold0 | fold1 | fold2 | fold3 | mean | paper |"
    assert lines[2] == "| EUMS | 20.0 ± 10.0 | 25.0 ± 7.1 | 35.0 ± 7.1 | 45.0 ± 7.1 | 30.0 ± 7.1 | 59.1 |"
    folders = [str(folder) for folder in sorted(tmp_path.glob("*/fold*"))]
    collect.main(["--columns", "split", *folders[:3]])  # not the four folds of the paper
    assert capsys.readouterr().out.split()[-1] == "-"


def test_a_published_value_that_is_not_known_says_so(tmp_path, capsys):
    for fold in range(4):
        write(tmp_path, "eval_eums", 0.5, 0.3, 0.4, dataset="coco", split=f"fold{fold}")
    collect.main(["--columns", "split", str(tmp_path)])
    assert capsys.readouterr().out.rstrip().endswith("not known")


def test_another_metric_under_the_splits(tmp_path, capsys):
    """By its key or its heading; the paper's value is one of novel mIoU only."""
    for fold in range(4):
        write(tmp_path, "eval_eums", fold / 10, 0.3, 0.4, split=f"fold{fold}")
    for name in ("base_miou", "base mIoU"):
        collect.main(["--columns", "split", "--metric", name, "--style", "markdown", str(tmp_path)])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("| base mIoU | fold0 |")
        assert lines[2] == "| EUMS | 0.0 | 10.0 | 20.0 | 30.0 | 15.0 | - |"


def test_variants_are_compared_seed_by_seed(tmp_path, capsys):
    """Default 30 and 40, variant 35 and 43: +5 and +3, so +4.0 ± 1.4; a third seed without default adds nothing.

    Its standard error is 1.4 / sqrt(2) = 1; two pairs of seeds need 12.7 of them for a star.
    """
    for seed, (default, variant) in enumerate([(0.30, 0.35), (0.40, 0.43)]):
        write(tmp_path / str(seed) / "a_variant", "eval_eums", 0.2, variant, 0.4, seed=seed)
        write(tmp_path / str(seed) / "default", "eval_eums", 0.2, default, 0.4, seed=seed)
        write(tmp_path / str(seed) / "default", "eval_basic", 0.2, 0.25, 0.4, seed=seed)
        write(tmp_path / str(seed) / "default", "pseudo", 0.2, 0.25, 0.4, seed=seed)
        (tmp_path / str(seed) / "default" / "fold0" / "pseudo" / "metrics.json").write_text('{"purity": 0.5}')
    write(tmp_path / "2" / "a_variant", "eval_eums", 0.2, 0.39, 0.4, seed=2)
    collect.main(["--rows", "variant", "--style", "markdown", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "| variant | purity | basic novel | EUMS novel | EUMS base | against default | difference / s.e. |"
    )
    assert lines[2] == "| default (2) | 50.0 ± 0.0 | 25.0 ± 0.0 | 35.0 ± 7.1 | 20.0 ± 0.0 | - | - |"
    assert lines[3] == "| a_variant (3) | - | - | 39.0 ± 4.0 | 20.0 ± 0.0 | +4.0 ± 1.4 | +4.0 |"


def write_task(folder, miou, dataset, seed=0, task="15-1", method="ssul"):
    """All steps of a class-incremental task, summed up."""
    config = {"system": "ssul", "task": task, "setting": "overlap", "seed": seed, "data": {"dataset": dataset}}
    steps = folder / f"{task}-overlap" / method
    (steps / "step0").mkdir(parents=True)
    (steps / "step0" / "config.yaml").write_text(yaml.safe_dump(config))
    last = {"miou": miou, "old_miou": 0.77, "new_miou": None, "foreground_miou": 0.6}
    (steps / "summary.json").write_text(json.dumps({"last": last, "mean_over_steps": {"miou": 0.7}}))


def test_incremental_tasks_beside_the_paper(tmp_path, capsys):
    """Two seeds of SSUL on 15-1 of VOC: 66 and 68, published 67.61; a demo task has no published value."""
    for seed, miou in enumerate((0.66, 0.68)):
        for root, dataset in (("voc", "pascal"), ("demo", "demo")):
            write_task(tmp_path / f"{root}{seed}", miou, dataset, seed)
    for root, paper in (("voc", "67.6"), ("demo", "-")):
        collect.main(["--style", "markdown", *map(str, sorted(tmp_path.glob(f"{root}*/*-overlap")))])
        line = capsys.readouterr().out.splitlines()[2]
        assert line == f"| 15-1-overlap, ssul (2) | 77.0 ± 0.0 | - | 67.0 ± 1.4 | 60.0 ± 0.0 | 70.0 ± 0.0 | {paper} |"
    collect.main(["--over", "datasets", "--style", "markdown", str(tmp_path)])
    assert (
        capsys.readouterr().out.splitlines()[2]
        == "| ssul (4) | 77.0 ± 0.0 | - | 67.0 ± 1.2 | 60.0 ± 0.0 | 70.0 ± 0.0 |"
    )


def test_mean_over_class_orders(tmp_path, capsys):
    """60, 64 and 68 in three orders: 64 ± 4; another data set has a separate row."""
    for order, miou in (("b", 0.60), ("c", 0.64), ("d", 0.68)):
        write_task(tmp_path, miou, "pascal", task=f"15-1_{order}")
    write_task(tmp_path / "other", 0.2, "demo")
    collect.main(["--over", "splits", "--style", "markdown", str(tmp_path)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[3]) for row in rows] == [("| demo, ssul (1)", "20.0"), ("| pascal, ssul (3)", "64.0 ± 4.0")]


def test_cost_of_the_stages(tmp_path, capsys):
    cost = {"seconds": 20.0, "peak_gpu_gib": 3.25, "amp": "bfloat16", "device": "H"}
    for name, more, images in (("base", {"ms_per_step": 100.0, "images_per_second": 160.0}, 5), ("pseudo", {}, 40)):
        folder = tmp_path / "run" / "fold0" / name
        stage(folder, {"images": images}, system="ncdss", split="fold0")
        (folder / "cost.json").write_text(json.dumps(cost | more))
    collect.main(["--cost", "--style", "markdown", str(tmp_path / "run" / "fold0")])
    lines = sorted(capsys.readouterr().out.splitlines())
    assert "| run/base | 20.0 | 100.0 | 160.0 | 3.2 | bfloat16 | H |" in lines
    assert "| run/pseudo | 20.0 | - | 2.0 | 3.2 | bfloat16 | H |" in lines


def test_nothing_to_collect(tmp_path):
    with pytest.raises(UserError, match="no evaluated stage"):
        collect.main([str(tmp_path)])


@pytest.mark.parametrize("arguments", [["none"], ["no*"], ["", "--cost"], ["", "--system", "probe"]])
def test_unknown_or_empty_folders_are_one_line(tmp_path, capsys, arguments):
    folder, *options = arguments
    assert guarded(collect.main, [str(tmp_path / folder), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / folder}: no ") and error.count("\n") == 1


def test_features_beside_the_paper(tmp_path, capsys):
    """Columns that some network has; of the paper the rows that share one of them."""
    for name, mode, metrics in (
        ("ours", "eval_linear", {"miou": 0.6}),
        ("ours", "kmeans", {"miou": 0.4, "miou_std": 0.012}),
        ("other", "kmeans", {"miou": 0.3, "miou_std": None}),
    ):
        stage(tmp_path / name / mode, metrics, system="probe", data={"dataset": "pascal"})
    (tmp_path / "none").mkdir()
    collect.main(["--style", "markdown", *(str(tmp_path / name) for name in ("ours", "other", "none"))])
    assert capsys.readouterr().out.splitlines() == [
        "| features | linear | k-means |",
        "|---|--:|--:|",
        "| ours | 60.0 | 40.0 ± 1.2 |",
        "| other | - | 30.0 |",
        "| paper: supervised saliency, ImageNet start | 63.9 | 44.2 |",
        "| paper: unsupervised saliency, MoCo start | 58.4 | 35.0 |",
    ]
    (tmp_path / "other" / "kmeans" / "config.yaml").write_text("system: probe\ndata: {dataset: demo}")
    collect.main([str(tmp_path / "other")])
    assert "paper" not in capsys.readouterr().out  # its values are those of VOC
    with pytest.raises(UserError, match="run probe_features.py first"):
        collect.main(["--system", "probe", str(tmp_path / "none")])


def test_data_sets_and_splits_have_rows_of_their_own(tmp_path, capsys):
    write(tmp_path / "a", "eval_eums", 0.5, 0.3, 0.4)
    write(tmp_path / "a", "eval_eums", 0.5, 0.1, 0.4, split="fold1")
    write(tmp_path / "b", "eval_eums", 0.5, 0.2, 0.4, dataset="coco")
    collect.main(["--style", "markdown", str(tmp_path)])
    rows = [line.split(" | ")[:3] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["| coco, fold0, EUMS", "50.0", "20.0"],
        ["| pascal, fold0, EUMS", "50.0", "30.0"],
        ["| pascal, fold1, EUMS", "50.0", "10.0"],
    ]


def test_runs_of_one_seed_are_not_repetitions(tmp_path, capsys):
    """They are averaged, as asked, with a warning that names both; with different seeds there is none."""
    write(tmp_path / "a", "eval_eums", 0.5, 0.3, 0.4, seed=1)
    write(tmp_path / "b", "eval_eums", 0.5, 0.2, 0.4, seed=1)
    write(tmp_path / "c", "eval_eums", 0.5, 0.2, 0.4, seed=2)
    collect.main([str(tmp_path)])
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and f"{tmp_path / 'a'} and {tmp_path / 'b'} have the same seed, 1" in warnings[0]
    collect.main([str(tmp_path / "a"), str(tmp_path / "c")])
    assert "warning" not in capsys.readouterr().err


def test_several_systems_have_a_table_each(tmp_path, capsys):
    write(tmp_path / "a", "eval_eums", 0.5, 0.3, 0.4)
    write_task(tmp_path / "b", 0.6, "demo")
    collect.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == ["ncdss", "ssul"]
    collect.main([str(tmp_path), "--system", "ssul"])
    assert "novel" not in capsys.readouterr().out


def test_a_metric_that_no_stage_has(tmp_path):
    write(tmp_path, "eval_eums", 0.5, 0.3, 0.4)
    with pytest.raises(UserError, match="--metric purity: no stage has it; there are base_miou, miou, novel_miou"):
        collect.main([str(tmp_path), "--metric", "purity"])


def test_last_and_best_epoch_side_by_side(tmp_path, capsys):
    """Of the last epoch 30 and 34, of the best 36 and 34 (the same epoch): by the official matching, not the other."""
    best, last = {"model": "best epoch", "novel_miou": 0.36}, {"model": "last epoch", "novel_miou": 0.30}
    two = [row | {"matching": rule} for row in (best, last) for rule in ("official", "one_to_one")]
    two[1]["novel_miou"] = two[3]["novel_miou"] = 0.2
    for seed, rows in enumerate((two, [{"model": "best epoch", "matching": "official", "novel_miou": 0.34}])):
        metrics = {"base_miou": 0.5, "novel_miou": 0.3, "miou": 0.4, "compared": rows}
        stage(tmp_path / str(seed) / "fold0" / "eval_eums", metrics, system="ncdss", split="fold0", seed=seed)
    collect.main([str(tmp_path), "--style", "markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("| novel, last epoch | novel, best epoch |")
    assert lines[2].endswith("| 32.0 ± 2.8 | 35.0 ± 1.4 |")


def test_figures_saved_to_a_file_give_the_same_table(tmp_path, capsys):
    for seed, novel in enumerate((0.30, 0.34)):
        write(tmp_path / "runs" / str(seed), "eval_eums", 0.5, novel, 0.4, seed=seed)
    collect.main([str(tmp_path / "runs"), "--save", str(tmp_path / "figures.json")])
    first = capsys.readouterr()
    collect.main([str(tmp_path / "figures.json")])
    assert capsys.readouterr() == first


def test_zero_shot_beside_the_paper_with_marks(tmp_path, capsys):
    """Published values from memory have a star; one that nobody knows says so, one of other data has a dash."""
    for dataset, split, name, strict in (
        ("pascal", "unseen2", "zs3", False),
        ("pascal", "unseen4", "zs3", False),
        ("context", "unseen2", "zs5", False),
        ("demo", "unseen2", "zs3", True),
    ):
        metrics = {"seen_miou": 0.7, "unseen_miou": 0.3, "miou": 0.6, "harmonic_miou": 0.42, "sweep": {"area": 0.25}}
        folder = tmp_path / dataset / split / f"eval_{name}{'_strict' if strict else ''}"
        stage(folder, metrics, system="zs3", split=split, seed=0, data={"dataset": dataset})
    collect.main(["--style", "markdown", str(tmp_path)])
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| split, method | seen | unseen | all | harmonic | area | paper, unseen | paper, harmonic |"
    ours = "70.0 | 30.0 | 60.0 | 42.0 | 25.0"
    assert rows[2:6] == [
        f"| context, unseen2, zs5 | {ours} | 55.5 | not known |",
        f"| demo, unseen2, zs3, strict | {ours} | - | - |",
        f"| pascal, unseen2, zs3 | {ours} | 35.4 | 47.5 |",
        f"| pascal, unseen4, zs3 | {ours} | 23.2* | 34.4* |",
    ]


def test_runs_on_other_data_are_not_repetitions(tmp_path, capsys):
    """Two data sets of one name, or one name of two sizes: 2 % and 34 % have no mean."""
    for seed, (images, novel) in enumerate(((173, 0.02), (1449, 0.34))):
        metrics = {"base_miou": 0.5, "novel_miou": novel, "miou": 0.4, "images": images}
        config = {"system": "ncdss", "split": "fold0", "seed": seed, "data": {"dataset": "pascal"}}
        stage(tmp_path / str(seed) / "fold0" / "eval_eums", metrics, **config)
    collect.main(["--style", "markdown", str(tmp_path)])
    rows = [line.split(" | ")[:3] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [["| EUMS, images 173", "50.0", "2.0"], ["| EUMS, images 1449", "50.0", "34.0"]]
