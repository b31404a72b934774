"""Every shipped zero-shot configuration starts: two steps of steps 1 and 2, evaluation, on small copies of its data."""

from pathlib import Path

import pytest

import eval as evaluation
import train_base
import train_zeroshot
from data.zeroshot.builder import ZeroShotData
from tests.conftest import make_voc
from tests.zeroshot_data import make_context, make_voc_sbd
from utils.config.reader import load_config
from utils.config.strict_yaml import read_yaml
from utils.run import guarded

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
    if read_yaml(path)["system"] == "zs3" and path.stem != "cocostuff"  # whose layout tests/data draws
]
ROOTS = {"voc": make_voc_sbd, "context": make_context}
SMALL = (
    *(
        "run.dry=true",
        "model.init=random",
        "model.backbone=mobilenet_v2",
        "model.head_channels=8",
        "model.trained=null",
    ),
    *("model.atrous_rates=[1, 2]", "data.image_size=32", "data.workers=0", "step1.batch_size=2", "zs3.batch_size=2"),
    *("zs3.samples=8", "evaluation.size=40", "evaluation.batch_size=1"),
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run(path, tmp_path):
    root = ROOTS.get(path.stem, make_voc)(tmp_path / "data")
    options = [str(path), *SMALL, f"data.root={root}", f"output_dir={tmp_path / 'out'}"]
    assert guarded(train_base.main, options) == 0
    assert guarded(train_zeroshot.main, options) == 0
    assert guarded(evaluation.main, options) == 0
    split = load_config(options, "").split
    assert (tmp_path / "out" / "dry" / split / "eval_zs3" / "metrics.json").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_there_is_a_word_vector_for_every_class(path, tmp_path):
    data = ZeroShotData.open(load_config([str(path), f"data.root={make_voc(tmp_path)}", "data.use_sbd=false"], ""))
    assert len(data.embeddings) == data.num_classes and data.unseen and not set(data.unseen) & set(data.seen)
