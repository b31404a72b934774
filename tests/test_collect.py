"""Mean and deviation over runs."""

import json

import pytest

import collect
from utils.errors import UserError


def write(folder, stage, base, novel, miou):
    path = folder / stage / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"base_miou": base, "novel_miou": novel, "miou": miou}))


def test_mean_and_sample_deviation(tmp_path, capsys):
    """30, 34 and 38 per cent: mean 34, deviation sqrt((16 + 0 + 16) / 2) = 4."""
    for seed, novel in enumerate((0.30, 0.34, 0.38)):
        write(tmp_path / str(seed), "eval_eums", 0.5, novel, 0.4)
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
            write(tmp_path / str(seed) / f"fold{fold}", "eval_eums", 0.5, start + fold / 10, 0.4)
    write(tmp_path / "2" / "fold0", "eval_eums", 0.5, 0.3, 0.4)
    for file in tmp_path.rglob("metrics.json"):
        (file.parent / "config.yaml").write_text("data: {dataset: pascal}")
    folders = [str(folder) for folder in sorted(tmp_path.glob("*/fold*"))]
    collect.main(["--folds", "--style", "markdown", *folders])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| novel mIoU | fold0 | fold1 | fold2 | fold3 | mean | paper |"
    assert lines[2] == "| EUMS | 20.0 ± 10.0 | 25.0 ± 7.1 | 35.0 ± 7.1 | 45.0 ± 7.1 | 30.0 ± 7.1 | 59.1 |"
    collect.main(["--folds", *folders[:3]])  # not the four folds of the paper
    assert capsys.readouterr().out.split()[-1] == "-"


def test_a_published_value_that_is_not_known_says_so(tmp_path, capsys):
    for fold in range(4):
        write(tmp_path / f"fold{fold}", "eval_eums", 0.5, 0.3, 0.4)
        (tmp_path / f"fold{fold}" / "eval_eums" / "config.yaml").write_text("data: {dataset: coco}")
    collect.main(["--folds", *(str(tmp_path / f"fold{fold}") for fold in range(4))])
    assert capsys.readouterr().out.rstrip().endswith("not known")


def test_variants_are_compared_seed_by_seed(tmp_path, capsys):
    """Default 30 and 40, variant 35 and 43: +5 and +3, so +4.0 ± 1.4; a third seed without default adds nothing."""
    for seed, (default, variant) in enumerate([(0.30, 0.35), (0.40, 0.43)]):
        write(tmp_path / str(seed) / "a_variant" / "fold0", "eval_eums", 0.2, variant, 0.4)
        write(tmp_path / str(seed) / "default" / "fold0", "eval_eums", 0.2, default, 0.4)
        write(tmp_path / str(seed) / "default" / "fold0", "eval_basic", 0.2, 0.25, 0.4)
        write(tmp_path / str(seed) / "default" / "fold0", "pseudo", 0.2, 0.25, 0.4)
        (tmp_path / str(seed) / "default" / "fold0" / "pseudo" / "metrics.json").write_text('{"purity": 0.5}')
    write(tmp_path / "2" / "a_variant" / "fold0", "eval_eums", 0.2, 0.39, 0.4)
    collect.main(["--variants", "--style", "markdown", *map(str, sorted(tmp_path.glob("*/*/fold0")))])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| default (2) | 50.0 ± 0.0 | 25.0 ± 0.0 | 35.0 ± 7.1 | 20.0 ± 0.0 | - |"
    assert lines[3] == "| a_variant (3) | - | - | 39.0 ± 4.0 | 20.0 ± 0.0 | +4.0 ± 1.4 |"


def test_incremental_tasks_beside_the_paper(tmp_path, capsys):
    """Two seeds of SSUL on 15-1 of VOC: 66 and 68, published 67.61; a demo task has no published value."""
    for seed, miou in enumerate((0.66, 0.68)):
        for root, dataset in (("voc", "pascal"), ("demo", "demo")):
            folder = tmp_path / f"{root}{seed}" / "15-1-overlap" / "ssul"
            (folder / "step0").mkdir(parents=True)
            (folder / "step0" / "config.yaml").write_text(f"data: {{dataset: {dataset}}}")
            last = {"miou": miou, "old_miou": 0.77, "new_miou": None, "foreground_miou": 0.6}
            (folder / "summary.json").write_text(json.dumps({"last": last, "mean_over_steps": {"miou": 0.7}}))
    for root, paper in (("voc", "67.6"), ("demo", "-")):
        collect.main(["--tasks", "--style", "markdown", *map(str, sorted(tmp_path.glob(f"{root}*/*-overlap")))])
        line = capsys.readouterr().out.splitlines()[2]
        assert line == f"| 15-1-overlap, ssul (2) | 77.0 ± 0.0 | - | 67.0 ± 1.4 | 60.0 ± 0.0 | 70.0 ± 0.0 | {paper} |"
    collect.main(["--orders", "--style", "markdown", *map(str, sorted(tmp_path.glob("*/*-overlap")))])
    assert (
        capsys.readouterr().out.splitlines()[2]
        == "| ssul (4) | 77.0 ± 0.0 | - | 67.0 ± 1.2 | 60.0 ± 0.0 | 70.0 ± 0.0 |"
    )


def test_cost_of_the_stages(tmp_path, capsys):
    cost = {"seconds": 20.0, "peak_gpu_gib": 3.25, "amp": "bfloat16", "device": "H"}
    for stage, more, images in (("base", {"ms_per_step": 100.0, "images_per_second": 160.0}, 5), ("pseudo", {}, 40)):
        folder = tmp_path / "run" / "fold0" / stage
        folder.mkdir(parents=True)
        (folder / "cost.json").write_text(json.dumps(cost | more))
        (folder / "metrics.json").write_text(json.dumps({"images": images}))
    collect.main(["--cost", "--style", "markdown", str(tmp_path / "run" / "fold0")])
    lines = sorted(capsys.readouterr().out.splitlines())
    assert "| run/base | 20.0 | 100.0 | 160.0 | 3.2 | bfloat16 | H |" in lines
    assert "| run/pseudo | 20.0 | - | 2.0 | 3.2 | bfloat16 | H |" in lines


def test_nothing_to_collect(tmp_path):
    with pytest.raises(UserError, match="no evaluated stage"):
        collect.main([str(tmp_path)])


def test_features_beside_the_paper(tmp_path, capsys):
    """Columns that some network has; of the paper the rows that share one of them."""
    for name, stage, figures in (
        ("ours", "eval_linear", {"miou": 0.6}),
        ("ours", "kmeans", {"miou": 0.4, "miou_std": 0.012}),
        ("other", "kmeans", {"miou": 0.3, "miou_std": None}),
    ):
        path = tmp_path / name / stage / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(figures))
        path.with_name("config.yaml").write_text("data: {dataset: pascal}")
    collect.main(["--probes", "--style", "markdown", *(str(tmp_path / name) for name in ("ours", "other", "none"))])
    assert capsys.readouterr().out.splitlines() == [
        "| features | linear | k-means |",
        "|---|--:|--:|",
        "| ours | 60.0 | 40.0 ± 1.2 |",
        "| other | - | 30.0 |",
        "| paper: supervised saliency, ImageNet start | 63.9 | 44.2 |",
        "| paper: unsupervised saliency, MoCo start | 58.4 | 35.0 |",
    ]
    (tmp_path / "other" / "kmeans" / "config.yaml").write_text("data: {dataset: demo}")
    collect.main(["--probes", str(tmp_path / "other")])
    assert "paper" not in capsys.readouterr().out  # its figures are those of VOC
    with pytest.raises(UserError, match="run probe_features.py first"):
        collect.main(["--probes", str(tmp_path / "none")])
