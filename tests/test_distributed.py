"""Two processes, started by torchrun: the same evaluation to the last digit, the same training up to rounding."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import checkpoint
from utils.run import guarded

ROOT = Path(__file__).parents[1]
# BatchNorm in training mode would see half a batch per process (SyncBatchNorm has no CPU form), dropout other draws
ALIKE = ("model.freeze_batchnorm=all", "model.dropout=0", "model.backbone=efficientnet_lite0", "model.head_channels=16")
SHORT = ("base_training.log_every=1", "eums.log_every=1", "eums.epochs=2", "base_training.epochs=2")
# all stages in one start, which is most of the time
SCRIPT = """
import json, sys
import importlib
from utils import dist
for name, argv in json.loads(sys.argv[1]):
    assert not importlib.import_module(name).main(argv)
dist.shutdown()
"""


@pytest.fixture(scope="module")
def folders(voc, pseudo, tmp_path_factory):
    """Output folders of every stage by one process and by two."""
    from tests.conftest import write_tiny

    folder = tmp_path_factory.mktemp("distributed")
    config = str(write_tiny(folder, voc))

    def commands(output: Path) -> list[tuple[str, list[str]]]:
        options = [config, f"output_dir={output}", *ALIKE, *SHORT]
        one = folder / "one" / "two"  # the split is called two
        basic = f"basic_checkpoint={one / 'eums' / 'best.pth'}"  # any network of these classes will do
        return [
            ("train_base", options),
            ("finetune_novel", [*options, "method=eums", f"pseudo_dir={pseudo}", f"split_dir={pseudo}"]),
            ("cluster_pseudolabel", [*options, f"base_checkpoint={one / 'base' / 'best.pth'}"]),
            ("entropy_rank", [*options, f"pseudo_dir={pseudo}", basic]),
            ("eval", [*options, "method=base", f"checkpoint={one / 'base' / 'best.pth'}", "save_predictions=true"]),
            ("eval", [*options, "method=eums", f"checkpoint={one / 'eums' / 'best.pth'}", "save_predictions=true"]),
        ]

    for name, argv in commands(folder / "one"):
        assert guarded(importlib.import_module(name).main, argv) == 0
    (folder / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "utils.launch", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, str(folder / "script.py"), json.dumps(commands(folder / "both"))],
        **{"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 400},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "one" / "two", folder / "both" / "two"


@pytest.mark.parametrize("stage", ["eval_base", "eval_eums"])
def test_evaluation_agrees_to_the_last_digit(folders, stage):
    one, both = (folder / stage for folder in folders)
    assert np.array_equal(np.load(one / "confusion.npy"), np.load(both / "confusion.npy"))
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, both)]
    for values in metrics:
        del values["config_sha256"]  # of a file that names the output folder
    assert metrics[0] == metrics[1]
    names = sorted(path.name for path in (one / "predictions").iterdir())
    assert len(names) == metrics[0]["images"] and names == sorted(p.name for p in (both / "predictions").iterdir())
    for name in names:
        assert (one / "predictions" / name).read_bytes() == (both / "predictions" / name).read_bytes()


def test_pseudo_labels_are_the_same_files(folders):
    one, both = (folder / "pseudo" for folder in folders)
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.suffix in (".png", ".txt") and p.name != "log.txt")
    assert names == sorted(
        p.relative_to(both) for p in both.rglob("*") if p.suffix in (".png", ".txt") and p.name != "log.txt"
    )
    assert sum(name.parts[0] == "pseudo_labels" for name in names) > 10
    for name in names:
        assert (one / name).read_bytes() == (both / name).read_bytes()
    manifests = [(folder / "pseudo_labels" / "manifest.json").read_bytes() for folder in (one, both)]
    assert manifests[0] == manifests[1]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, both)]
    assert metrics[0]["purity"] == metrics[1]["purity"] and metrics[0]["kept"] == metrics[1]["kept"]


def test_ranking_is_the_same(folders):
    entropies = [json.loads((folder / "ranking" / "entropy.json").read_text()) for folder in folders]
    assert entropies[1] == pytest.approx(entropies[0], rel=1e-5) and list(entropies[0]) == list(entropies[1])
    for name in ("easy_split.txt", "hard_split.txt"):
        assert len({(folder / "ranking" / name).read_text() for folder in folders}) == 1


@pytest.mark.parametrize("stage", ["base", "eums"])
def test_training_agrees_up_to_rounding(folders, stage):
    histories = [(folder / stage / "history.jsonl").read_text().splitlines() for folder in folders]
    assert len(histories[0]) == len(histories[1]) == 6  # two epochs of two steps, and their validations
    for one, both in zip(*(map(json.loads, lines) for lines in histories), strict=True):
        assert one["step"] == both["step"] and one.keys() == both.keys()
        if "train" in one:
            assert both["train"] == pytest.approx(one["train"], rel=1e-4, abs=2e-6)
    models = [checkpoint.load(folder / stage / "last.pth")["model"] for folder in folders]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_reassignment_agrees(folders):
    """The students agree up to rounding, so that images of nearly equal entropy may change places across the limit."""
    scores = [json.loads((folder / "eums" / "entropy.json").read_text()) for folder in folders]
    assert list(scores[0]) == list(scores[1]) and scores[1] == pytest.approx(scores[0], rel=2e-3, abs=2e-4)
    lists = [
        [checkpoint.read_list(folder / "eums" / f"{name}_split.txt") for name in ("easy", "hard")] for folder in folders
    ]
    assert len(lists[0][0]) == len(lists[1][0]) > 0
    assert sorted(sum(lists[0], [])) == sorted(sum(lists[1], []))
    limit = max(scores[0][name] for name in lists[0][0])
    for name in set(lists[0][0]) ^ set(lists[1][0]):
        assert scores[0][name] == pytest.approx(limit, rel=4e-3, abs=4e-4)


def test_random_states_of_both_processes_are_kept(folders):
    states = [checkpoint.load(folder / "base" / "last.pth")["random"] for folder in folders]
    assert [len(state) for state in states] == [1, 2]
    assert not torch.equal(states[1][0]["cpu"], states[1][1]["cpu"])  # dropout draws apart
