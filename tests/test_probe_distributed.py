"""Two processes, started by torchrun, evaluate features as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import probe_features
from tests.conftest import CLASSES
from utils.run import guarded

ROOT = Path(__file__).parents[1]
MODES = ("mode=kmeans", "mode=retrieval", "mode=kmeans kmeans.unit=patch", "mode=retrieval retrieval.unit=patch")
SCRIPT = """
import json, sys
import probe_features
from utils import dist
for argv in json.loads(sys.argv[1]):
    assert not probe_features.main(argv)
dist.shutdown()
"""


def test_two_processes_give_the_figures_of_one(voc, tmp_path):
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    tree = {
        "name": "net",
        "data": {"image_size": 32, "workers": 0, "dataset": str(tmp_path), "root": str(voc)},
        "model": {"kind": "backbone", "backbone": "efficientnet_lite0", "init": "random", "output_stride": 16},
        "training": {"epochs": 1, "iters_per_epoch": 2, "batch_size": 4, "lr": 0.001, "log_every": 1},
        "kmeans": {"pca_dim": 4, "seeds": [1, 2], "patches": 3},
        "retrieval": {"memory": "trainaug", "ignore": ["disc"], "patches": 3},
        "evaluation": {"batch_size": 5},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))

    def commands(output: str) -> list[list[str]]:
        options = [str(tmp_path / "small.yaml"), f"output_dir={tmp_path / output}", "save_predictions=true"]
        return [[*options, *mode.split()] for mode in (*MODES, "mode=linear")]

    for argv in commands("one"):
        assert guarded(probe_features.main, argv) == 0
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, str(tmp_path / "script.py"), json.dumps(commands("both"))],
        **{"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 900},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("kmeans", "retrieval", "kmeans_patch", "retrieval_patch", "eval_linear"):
        one, both = (json.loads((tmp_path / n / "net" / stage / "metrics.json").read_text()) for n in ("one", "both"))
        assert both["images"] == one["images"] == 12
        tolerance = 0.02 if stage == "eval_linear" else 1e-9  # the others have no training that could round differently
        assert both["miou"] == pytest.approx(one["miou"], abs=tolerance), stage
        if stage == "eval_linear":
            continue
        folders = [tmp_path / name / "net" / stage for name in ("one", "both")]
        written = [sorted(path.relative_to(folder) for path in folder.rglob("*.png")) for folder in folders]
        assert written[0] == written[1] and len(written[0]) == (24 if "kmeans" in stage else 12)
        more = [name for name in ("assignments.json", "memory.json", "neighbours.json") if (folders[0] / name).exists()]
        assert len(more) == {"kmeans": 1, "retrieval": 2}.get(stage, 0)
        for name in (*written[0], *more, "confusion.npy"):
            assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), (stage, name)
    losses = [(tmp_path / n / "net" / "linear" / "history.jsonl").read_text().splitlines() for n in ("one", "both")]
    for one, both in zip(*([json.loads(line) for line in lines] for lines in losses), strict=True):
        if "val" in one and "train_miou" in one["val"]:  # counted over both processes
            assert both["val"]["train_miou"] == pytest.approx(one["val"]["train_miou"], abs=0.01)
        if "train" in one:
            assert both["train"] == pytest.approx(one["train"], rel=1e-4)
