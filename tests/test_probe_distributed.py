"""Two processes evaluate features as one does."""

import json

import pytest
import yaml

import probe_features
from tests.conftest import CLASSES
from tests.processes import on_two_ranks
from utils import dist

MODES = ("mode=kmeans", "mode=retrieval", "mode=kmeans kmeans.unit=patch", "mode=retrieval retrieval.unit=patch")


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

    def evaluate(output: str) -> None:
        for argv in commands(output):
            assert not probe_features.main(argv)
        dist.shutdown()

    evaluate("one")
    on_two_ranks(lambda: evaluate("both"))
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
