"""Class-incremental segmentation: the page of a task, all methods side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.incremental.builder import IncrementalData
from reports.incremental.table import TABLE
from reports.page import Page, Shown, loss_charts, prediction_gallery, results, saved_predictions
from utils.checkpoint import read_json
from utils.config.incremental import IncrementalConfig
from utils.errors import UserError
from utils.measure.forgetting import step_curves, step_matrix, summarize_steps
from utils.report import charts, html
from utils.report.aggregate import published
from utils.report.results import SUMMARY
from utils.report.tables import Rows, accuracies, percent, steps_table
from utils.run_folder import is_finished, stage_dir

METHODS = TABLE.methods
SHARED_STEP_0 = {"ssul_m": "ssul", "plop": "finetune", "mib": "finetune"}  # method -> the one whose step 0 it continues
GROUP_COLORS = {"old": charts.STEP_COLORS["classes of step 0"], "new": charts.STEP_COLORS["later classes"]}
TRAIN = "python train_incremental.py CONFIG method={}"


@dataclass(frozen=True)
class Trained:
    """The finished steps of a method, in order."""

    name: str
    folders: list[Path]
    finished: bool  # all steps of the task

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return [read_json(folder / "metrics.json") for folder in self.folders]

    @property
    def groups(self) -> list[list[str]]:
        """Names of the classes that each step adds, without background."""
        known, groups = {"background"}, []
        for metrics in self.metrics:
            groups.append([name for name in metrics["per_class"] if name not in known])
            known |= metrics["per_class"].keys()
        return groups

    @property
    def title(self) -> str:
        return self.name if self.finished else f"{self.name}, to step {self.metrics[-1]['step']}"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Metrics after the last step, `mean_over_steps` of the mIoU of all classes, and `forgetting`."""
        found = summarize_steps(self.metrics, self.groups)
        mean = found["mean_over_steps"].get("miou")
        return {**found["last"], "mean_over_steps": mean, "forgetting": found["forgetting"]}


@dataclass(frozen=True)
class TaskRun:
    """The trained methods of one task and setting."""

    cfg: IncrementalConfig
    folder: Path
    methods: list[Trained]

    @classmethod
    def open(cls, cfg: IncrementalConfig) -> "TaskRun":
        """Raises UserError if no step is finished."""
        folder = stage_dir(cfg, "report").parent
        names = {path.parents[1].name for path in folder.glob("*/step*/metrics.json")}
        names |= {path.parent.name for path in folder.glob(f"*/{SUMMARY}")}
        order = [*(name for name in METHODS if name in names), *sorted(names - {*METHODS})]
        found = [method for name in order if (method := _read_method(folder, name)).folders]
        begun = [method for method in found if method.finished or method.folders[-1].name != "step0"] or found
        if not begun:
            raise UserError(f"{folder}: no finished step to report on; run first: {TRAIN.format(cfg.method)}")
        return cls(cfg, folder, begun)

    @property
    def several(self) -> list[Trained]:
        """Methods with more than one finished step."""
        return [method for method in self.methods if len(method.folders) > 1]

    @property
    def groups(self) -> list[list[str]]:
        """Classes by step, of the method with the most steps."""
        return max((method.groups for method in self.methods), key=len)

    @property
    def colors(self) -> dict[str, str]:
        return charts.series_colors(method.name for method in self.methods)


def _read_method(folder: Path, name: str) -> Trained:
    """The steps of a method; step 0 may be another method's."""
    steps = {int(path.parent.name[4:]): path.parent for path in (folder / name).glob("step*/metrics.json")}
    shared = folder / SHARED_STEP_0.get(name, name) / "step0"
    if 0 not in steps and is_finished(shared):
        steps[0] = shared
    return Trained(name, [steps[number] for number in sorted(steps)], (folder / name / SUMMARY).exists())


def page(cfg: IncrementalConfig) -> Page:
    """Methods side by side, step by step and class by class, with predictions, memory and losses.

    Raises UserError if no step is finished.
    """
    run = TaskRun.open(cfg)
    first, *later = run.groups
    facts = f"{cfg.model.backbone}, {cfg.setting}; {len(first)} classes in step 0"
    facts += f", then in {len(later)} steps:" if later else "."
    sections = [scores, along_the_task, groups_by_step, classes_by_step, gallery, memory, learning]
    steps = [[f"{m.name}, {row[0]}", *row[1:]] for m in run.methods for row in steps_table(m.metrics)[1:]]
    return Page(
        title=f"Class-incremental segmentation: {Path(cfg.data.dataset).name}, {Path(cfg.task).stem}",
        lead=html.chips(facts, [name for names in later for name in names]),
        sections=[section(run) for section in sections],
        tables={
            "after the last step": methods_table(run),
            "after each step": [["method", *steps_table([])[0][1:]], *steps],
        },
        folder=run.folder,
    )


def methods_table(run: TaskRun) -> Rows:
    """The columns of collect.py for each method, forgetting, and the published mIoU of all classes."""
    assert TABLE.paper
    heading = ["method", *(column.heading for column in TABLE.columns), "forgetting", "paper, all"]
    dataset, task, rows = Path(run.cfg.data.dataset).name, run.folder.name, []
    for method in run.methods:
        cells = [percent(method.summary.get(column.metric)) for column in TABLE.columns]
        paper = published(TABLE.paper, (dataset, task, method.name), "all")
        rows.append([method.title, *cells, percent(method.summary["forgetting"]), paper])
    return [heading, *rows]


def scores(run: TaskRun) -> str:
    """Results first: tiles, the table of the methods, bars of old and new classes, accuracies, what is missing."""
    best = max(run.methods, key=lambda m: (m.name != "joint", m.finished, m.summary["miou"] or 0))
    styles = {m.title: "best" if m is best else "reference" if m.name == "joint" else "" for m in run.methods}
    unfinished = [method.name for method in run.methods if not method.finished]
    missing = [name for name in METHODS if name not in {method.name for method in run.methods}]
    notes = []
    if unfinished:
        notes.append(f"Not all steps are trained yet: {'; '.join(TRAIN.format(name) for name in unfinished)}.")
    if missing:
        notes.append(f"Not trained yet: {', '.join(missing)}; run {TRAIN.format('NAME')}.")
    return results(
        "Mean intersection over union in per cent after the last step. Old: the classes of step 0 and background; new: "
        "all later classes; foreground: all but background. Forgetting: how far the classes of a step fall below their "
        "best value, mean over all steps but the last. Joint training sees all classes at once: an upper bound.",
        [(percent(method.summary["miou"]), f"all classes, {method.title}") for method in run.methods],
        methods_table(run),
        styles=styles,
        bars=[(method.title, {g: method.summary.get(f"{g}_miou") for g in GROUP_COLORS}) for method in run.methods],
        colors=GROUP_COLORS,
        bar_width=400,
        more=_accuracies(run),
        notes=notes,
    )


def _accuracies(run: TaskRun) -> tuple[str, Rows] | None:
    """(summary, rows) of the accuracies of the methods that have some."""
    measured = {method.title: accuracies(method.summary) for method in run.methods}
    columns = max((list(found) for found in measured.values()), key=len)
    rows = [[name, *(percent(found.get(key)) for key in columns)] for name, found in measured.items()]
    return ("accuracies, and IoU by frequency", [["method", *columns], *rows]) if columns else None


def along_the_task(run: TaskRun) -> str:
    """mIoU after each step: all methods in one chart, then old, new and all classes of each method."""
    title = "Along the task"
    if not run.several:
        return html.absent(title, "No method has learned a second step", TRAIN.format(run.cfg.method))
    together = {method.name: step_curves(method.metrics)["all classes"] for method in run.several}
    chart = charts.legend({name: run.colors[name] for name in together})
    chart += charts.curves(together, run.colors, "step", percent=True, width=540)
    parts = []
    for method in run.several:
        drawn = charts.curves(step_curves(method.metrics), charts.STEP_COLORS, "step", percent=True)
        heading, *rows = steps_table(method.metrics)
        parts.append((method.name, drawn + html.disclosure("as a table", html.table(heading, [(r, "") for r in rows]))))
    intro = "mIoU in per cent of the classes learned so far, after each step."
    body = html.side_by_side([("All classes", chart)]) + charts.legend(charts.STEP_COLORS) + html.side_by_side(parts)
    return html.section(title, intro, body)


def groups_by_step(run: TaskRun) -> str:
    """Mean IoU of the classes of each step after each step."""
    if not run.several:
        return ""
    parts = []
    for method in run.several:
        matrix = step_matrix(method.metrics, method.groups)
        parts.append((method.name, _heat_map(matrix, _after(method), _group_names(method.groups))))
    intro = (
        "Rows: after each step. Columns: the classes that a step adds, without background; mean IoU in per cent. "
        "The diagonal is what was learned, below it what is left."
    )
    return html.section("What each step learned, and what is left of it", intro, html.side_by_side(parts))


def classes_by_step(run: TaskRun) -> str:
    """IoU of every class: of all methods after the last step, then of each method after each step."""
    names = max((list(method.metrics[-1]["per_class"]) for method in run.methods), key=len)
    last = _ious([method.metrics[-1] for method in run.methods], names)
    body = _heat_map(last, [method.title for method in run.methods], names, 1140)
    for method in run.several:
        seen = list(method.metrics[-1]["per_class"])
        drawn = _heat_map(_ious(method.metrics, seen), _after(method), seen, 1140)
        body += html.disclosure(f"{method.name}, after each step", drawn, shown=method is run.several[0])
    return html.section("IoU of every class", "In per cent, after the last step of each method.", body)


def gallery(run: TaskRun) -> str:
    """Ground truth and predictions on validation images, of every evaluated step whose predictions are saved."""
    paths = sorted(run.folder.glob("eval_step*/metrics.json"), key=lambda path: int(path.parent.name[9:]))
    stages = {f"step {path.parent.name[9:]}": path.parent for path in paths}
    command = "python eval.py CONFIG checkpoint=.../best.pth evaluation.native=true save_predictions=true"

    def shown() -> Shown:
        data = IncrementalData.open(run.cfg)
        later = [number for step in data.task.groups[1:] for number in step]
        return Shown(data.context.index(data.test_ids, ("image", "label")), data.task.classes, later)

    saved = saved_predictions(stages)
    networks = [f"{name}: {read_json(stages[name] / 'metrics.json')['checkpoint']}" for name in saved]
    return prediction_gallery(stages, command, "later", shown, "; ".join(networks))


def memory(run: TaskRun) -> str:
    """The exemplars of the last step, for methods with a memory."""
    body = ""
    for method in run.methods:
        pictures = [folder / "memory.jpg" for folder in method.folders if (folder / "memory.jpg").exists()]
        if pictures:
            name = f"{method.name}, for {pictures[-1].parent.name}"
            body += html.disclosure(name, html.picture_file(pictures[-1]))
    intro = "Images of earlier steps that are kept: a row per class, its pixels in colour."
    return html.section("Memory", intro, body) if body else ""


def learning(run: TaskRun) -> str:
    """Losses of every step."""
    body = ""
    for method in run.methods:
        parts = loss_charts({folder.name: folder for folder in method.folders if folder.parent.name == method.name})
        body += html.disclosure(method.name, html.side_by_side(parts)) if parts else ""
    intro = "Losses of each step as they enter the sum. A step 0 that methods share is shown with the first of them."
    return html.section("Training", intro, body)


def _ious(metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    """IoU [metrics, names]; 0 for a class without pixels, NaN for one that is not learned yet."""
    return np.array([[m["per_class"][n] or 0.0 if n in m["per_class"] else np.nan for n in names] for m in metrics])


def _heat_map(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], width: int = 380) -> str:
    unknown = {(int(row), int(column)) for row, column in np.argwhere(np.isnan(matrix))}
    return charts.heat_map(matrix, rows, columns, width=width, empty=unknown)


def _after(method: Trained) -> list[str]:
    return [f"step {metrics['step']}" for metrics in method.metrics]


def _group_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """The name of a step's class, or the number of its classes."""
    return [names[0] if len(names) == 1 else f"{len(names)} of step {step}" for step, names in enumerate(groups)]
