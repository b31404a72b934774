"""Every step of zero-shot segmentation from the command line, on small copies of VOC with SBD and of Pascal-Context."""

import json
from pathlib import Path

import pytest
import yaml

import eval as evaluation
import train_base
import train_zeroshot
from tests.zeroshot_data import make_context, make_voc_sbd
from utils.run import guarded

DATA = {
    "voc": (make_voc_sbd, {"dataset": "pascal", "use_sbd": True}, (10, 14, 1, 18, 8, 20, 19, 5, 9, 16)),
    "context": (make_context, {"dataset": "context", "step1_val": "seen"}, (10, 14, 18, 8, 4, 32, 3, 20, 1, 38)),
}
TRAINING = {"batch_size": 3, "epochs": 1, "iters_per_epoch": 2}
TINY = {
    "system": "zs3",
    "run": {"dry": True},
    "model": {
        "backbone": "mobilenet_v2",
        "init": "random",
        "head_channels": 8,
        "atrous_rates": [1, 2],
        "low_channels": 4,
    },
    "step1": TRAINING,
    "zs3": {**TRAINING, "hidden": 8, "noise_dim": 4, "samples": 8},
    "step3": TRAINING,
    "evaluation": {"size": 40},
}


@pytest.fixture(scope="module", params=DATA)
def kind(request, tmp_path_factory):
    """(configuration file, unseen classes in the paper's order) of a data set that was drawn once."""
    make, keys, order = DATA[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    data = {"root": str(make(folder / "data")), "image_size": 32, "workers": 0} | keys
    path = folder / "zs3.yaml"
    path.write_text(yaml.safe_dump({**TINY, "output_dir": str(folder / "out"), "data": data}))
    return path, order


def run(main, config: Path, *options: str) -> int:
    return guarded(main, [str(config), *options])


@pytest.mark.parametrize("k", [2, 10])
def test_splits_of_the_paper(kind, k):
    """Which classes are unseen in the others: tests/data/zeroshot/test_builder.py."""
    config, order = kind
    split = f"split=unseen{k}"
    assert run(train_base.main, config, split) == 0
    assert run(train_zeroshot.main, config, split) == 0
    assert run(evaluation.main, config, split) == 0
    metrics = json.loads((config.parent / f"out/dry/unseen{k}/eval_zs3/metrics.json").read_text())
    assert metrics["protocol"] == "shorter side 40"
    assert {"seen_miou", "unseen_miou", "harmonic_miou", "miou"} <= metrics.keys()
    names = list(metrics["per_class"])
    unseen = [metrics["per_class"][names[number]] or 0 for number in order[:k]]
    assert metrics["unseen_miou"] == pytest.approx(sum(unseen) / k)


@pytest.mark.parametrize("method", ["step1", "devise", "zs3_gc", "zs5"])
def test_other_methods(kind, method):
    config, _ = kind
    for main, options in (
        (train_base.main, ()),
        *([(train_zeroshot.main, ("method=zs3",))] if method == "zs5" else []),
        *([(train_zeroshot.main, (f"method={method}",))] if method != "step1" else []),
        (evaluation.main, (f"method={method}",)),
    ):
        assert run(main, config, "split=unseen10", *options) == 0
    assert (config.parent / f"out/dry/unseen10/eval_{method}/metrics.json").is_file()


def test_a_split_and_strictness_of_ones_own(kind, tmp_path):
    config, _ = kind
    (tmp_path / "mine.yaml").write_text("unseen: [dog, 5]")
    split = f"split={tmp_path / 'mine.yaml'}"
    assert run(train_base.main, config, split) == 0
    assert run(train_zeroshot.main, config, split, "strict_unseen=true") == 0
    assert run(evaluation.main, config, split, "strict_unseen=true") == 0
    assert (config.parent / "out/dry/mine/eval_zs3_strict/metrics.json").is_file()


def test_a_step1_network_of_another_split_is_refused(kind, tmp_path, capsys):
    config, _ = kind
    assert run(train_base.main, config, "split=unseen2") == 0
    other = config.parent / "out/dry/unseen2/step1/last.pth"
    options = ("split=unseen4", f"step1_checkpoint={other}", f"output_dir={tmp_path}")
    assert run(train_zeroshot.main, config, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert (
        len(error) == 1 and f"{other}: trained with split=unseen2, unseen cow, motorbike; but split=unseen4" in error[0]
    )
