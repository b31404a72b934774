"""Every shipped weak-shot configuration starts: two steps of each stage and an evaluation, on small drawn data."""

from pathlib import Path

import pytest

import eval as evaluation
import train_weakshot
from tests.conftest import make_voc
from tests.weakshot_data import make_ade, make_stuff
from utils.config.reader import load_config
from utils.config.strict_yaml import read_yaml
from utils.run import guarded

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
    if read_yaml(path)["system"] == "simformer"
]
ROOTS = {"coco": make_stuff, "ade": make_ade}
SMALL = (
    *("run.dry=true", "model.init=random", "model.backbone=resnet18", "model.queries=5", "model.layers=1"),
    *("model.width=64", "model.heads=2", "model.feedforward=16", "model.simnet_width=8", "data.image_size=32"),
    *("data.sizes=[28, 36]", "data.workers=0", "training.batch_size=4", "evaluation.size=32"),
)
FEW = ("similarity.points=16", "distillation.points=16")  # a crop has 64 cells
STAGES = ("method=simformer", "stage=pseudo", "method=retrain")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run_of_every_stage(path, tmp_path):
    root = ROOTS.get(path.stem, make_voc)(tmp_path / "data")
    given = [str(path), *SMALL, f"data.root={root}", f"output_dir={tmp_path / 'out'}"]
    for stage in STAGES:
        more = {"stage=pseudo": ("pseudo.tta_sizes=[32, 40]",), "method=simformer": FEW}.get(stage, ())
        assert guarded(train_weakshot.main, [*given, stage, *more]) == 0, stage
    assert guarded(evaluation.main, [*given, "method=retrain"]) == 0
    split = load_config(given, "").split
    assert (tmp_path / "out" / "dry" / split / "eval_retrain" / "metrics.json").is_file()
