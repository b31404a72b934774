"""The page of a class-incremental task whose files are written here, so that every number it must show is known."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

import report
from data.io import read_label, write_label
from reports.incremental import page as incremental
from tests.conftest import TASK
from utils.checkpoint import read_list, write_json
from utils.config.reader import load_config
from utils.run import guarded


def metrics(step: int, miou: float, old: float, new: float | None, **per_class: float) -> dict:
    means = {"miou": miou, "old_miou": old, "foreground_miou": 0.11, **({} if new is None else {"new_miou": new})}
    return {**means, "step": step, "per_class": {"background": 0.9, **per_class}, "images": 12}


# disc and square come first, then bar, then dot
SSUL = [
    metrics(0, 0.60, 0.60, None, disc=0.6, square=0.4),
    metrics(1, 0.50, 0.55, 0.32, disc=0.5, square=0.3, bar=0.32),
    metrics(2, 0.40, 0.45, 0.22, disc=0.3, square=0.3, bar=0.12, dot=0.3),
]


def write_steps(folder, found, summed_up=True):
    for values in found:
        step = folder / f"step{values['step']}"
        write_json(step / "metrics.json", values)
        (step / "history.jsonl").write_text(json.dumps({"step": 1, "epoch": 1, "train": {"bce": 0.5}}) + "\n")
    if summed_up:
        write_json(folder / "summary.json", {"last": found[-1], "mean_over_steps": {"miou": 0.5}})


@pytest.fixture
def task(voc, tmp_path):
    """(configuration file, task folder): SSUL is trained, SSUL-M shares its step 0, MiB stopped after step 1."""
    write = {"steps": [["disc", "square"], ["bar"], ["dot"]]}
    (tmp_path / "names").mkdir()
    names = ["background", "disc", "square", "bar", "dot"]
    (tmp_path / "names" / "classes.yaml").write_text(yaml.safe_dump(names))
    (tmp_path / "names" / "tasks").mkdir()
    (tmp_path / "names" / "tasks" / "abc.yaml").write_text(yaml.safe_dump(write))
    tree = TASK | {"output_dir": str(tmp_path / "out")}
    tree = tree | {"data": tree["data"] | {"root": str(voc), "dataset": str(tmp_path / "names")}}
    config, folder = tmp_path / "ssul.yaml", tmp_path / "out" / "abc-overlap"
    config.write_text(yaml.safe_dump(tree))
    write_steps(folder / "ssul", SSUL)
    write_steps(folder / "ssul_m", [metrics(1, 0.7, 0.7, 0.7, disc=0.7, square=0.7, bar=0.7)])
    write_steps(folder / "finetune", SSUL[:1], summed_up=False)  # step 0 for MiB
    write_steps(folder / "mib", [SSUL[1]], summed_up=False)
    return config, folder


def opened(config) -> incremental.TaskRun:
    return incremental.TaskRun.open(load_config([str(config)], ""))


def test_methods_with_the_steps_that_they_share(task):
    config, folder = task
    found = {method.name: method for method in opened(config).methods}
    assert list(found) == ["mib", "ssul", "ssul_m"]  # fine-tuning has only the shared step 0
    assert [path.relative_to(folder).as_posix() for path in found["ssul_m"].folders] == ["ssul/step0", "ssul_m/step1"]
    assert found["mib"].folders[0] == folder / "finetune" / "step0"
    assert found["mib"].title == "mib, to step 1" and found["ssul"].title == "ssul"
    assert found["ssul"].groups == [["disc", "square"], ["bar"], ["dot"]]


def test_table_of_the_methods(task, capsys):
    """SSUL forgets 50 - 30 = 20 points of the first group and 32 - 12 = 20 of the second; its mean is (60+50+40)/3."""
    config, folder = task
    assert guarded(report.main, [str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert ["method", "old", "new", "all", "foreground", "mean over steps", "forgetting", "paper, all"] in rows
    assert ["ssul", "45.0", "22.0", "40.0", "11.0", "50.0", "20.0", "-"] in rows
    assert ["ssul, step 1", "55.0", "32.0", "50.0", "11.0"] in rows
    page = (folder / "report.html").read_text()
    assert "<td>ssul</td><td>45.0</td><td>22.0</td><td>40.0</td>" in page
    assert "Not all steps are trained yet: python train_incremental.py CONFIG method=mib." in page
    assert "Not trained yet: finetune, plop, joint" in page
    markdown = (folder / "table.md").read_text()
    assert markdown.startswith("after the last step\n\n| method | old |") and "| ssul, step 2 | 45.0 |" in markdown


def test_accuracies_of_the_methods_that_have_them(task):
    config, folder = task
    assert "accuracies" not in incremental.scores(opened(config))
    write_json(folder / "ssul" / "step2" / "metrics.json", SSUL[2] | {"old_accuracy": 0.61, "fw_iou": 0.72})
    text = incremental.scores(opened(config))
    heading = text[text.index("accuracies, and IoU by frequency") :].split("<th>")[1:]
    assert [cell.split("<")[0] for cell in heading] == ["method", "accuracy, old", "frequency-weighted IoU"]
    assert "<td>ssul</td><td>61.0</td><td>72.0</td>" in text and "<td>ssul_m</td><td>-</td><td>-</td>" in text


def test_groups_after_each_step(task):
    """Mean of disc and square 50, 40, 30; bar 32, 12; dot 30; the cells before are not drawn."""
    text = incremental.groups_by_step(opened(task[0]))
    part = text[text.index("<h3>ssul</h3>") : text.index("<h3>ssul_m</h3>")]
    assert re.findall(r">(\d+)</text>", part) == ["50", "40", "32", "30", "12", "30"]
    assert part.count("<rect") == 6 and ">2 of step 0<" in part and ">bar<" in part


def test_classes_after_each_step(task):
    text = incremental.classes_by_step(opened(task[0]))
    assert text.count("<details") == 3 and text.count("<details open>") == 1
    ours = text[text.index("ssul, after each step") :]
    assert re.findall(r">(\d+)</text>", ours)[:7] == ["90", "60", "40", "90", "50", "30", "32"]


def test_curves_and_losses(task):
    run = opened(task[0])
    along, training = incremental.along_the_task(run), incremental.learning(run)
    assert along.count("<h3>") == 1 + 3 and along.count("<table") == 3
    assert training.count("<details") == 3 and training.count("<h3>step") == 3 + 1 + 1


def test_predictions_beside_the_truth(task, voc):
    config, folder = task
    run = opened(config)
    assert "No predictions are saved: <code>python eval.py" in incremental.gallery(run)
    for name in read_list(voc / "sets" / "val.txt"):
        label = read_label(voc / "SegmentationClassAug" / f"{name}.png")
        write_label(folder / "eval_step2" / "predictions" / f"{name}.png", np.where(label == 255, 0, label))
    write_json(folder / "eval_step2" / "metrics.json", {"checkpoint": "my/best.pth"})
    text = incremental.gallery(run)
    assert text.count("<img") == 3 * 6 and "step 2: my/best.pth" in text and ">v002<" in text
    gone = incremental.TaskRun(load_config([str(config), "data.root=/none"], ""), run.folder, run.methods)
    assert "data.root=/none: no such folder" in incremental.gallery(gone)


def test_memory_of_the_last_step(task):
    config, folder = task
    assert incremental.memory(opened(config)) == ""
    Image.new("RGB", (8, 8)).save(folder / "ssul_m" / "step1" / "memory.jpg")
    assert "ssul_m, for step1" in incremental.memory(opened(config))


def test_joint_training_alone(task):
    config, folder = task
    for method in ("ssul", "ssul_m", "finetune", "mib"):
        for path in (folder / method).rglob("*.json"):
            path.unlink()
    write_steps(folder / "joint", [metrics(0, 0.6, 0.6, 0.5, disc=0.6, square=0.4, bar=0.5, dot=0.2)])
    assert guarded(report.main, [str(config)]) == 0
    page = (folder / "report.html").read_text()
    assert "4 classes in step 0." in page and "No method has learned a second step" in page


def test_nothing_trained(task, capsys):
    config, _ = task
    assert guarded(report.main, [str(config), "task=abc", "setting=disjoint"]) == 2
    error = capsys.readouterr().err
    assert "no finished step" in error and error.count("\n") == 1


def test_paper_beside_its_task(tmp_path):
    cfg = load_config(["configs/incremental/voc.yaml", f"output_dir={tmp_path}", "task=15-1"], "")
    write_steps(tmp_path / "15-1-overlap" / "ssul", SSUL)
    heading, row = incremental.methods_table(incremental.TaskRun.open(cfg))
    assert (heading[-1], row[-1]) == ("paper, all", "67.6")
