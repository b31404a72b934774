"""Class-incremental segmentation: what report.py shows of a task, all methods beside each other; collect.py's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.incremental.builder import IncrementalData
from reports.common import Page, loss_charts, or_reason, pick_images, predicted, prediction_columns
from utils.checkpoint import read_json, write_json, write_text
from utils.config.incremental import IncrementalConfig
from utils.errors import UserError
from utils.log import log
from utils.measure.steps import step_curves, step_matrix, summarize_steps
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable
from utils.report.published import INCREMENTAL
from utils.report.results import SUMMARY, Stage
from utils.report.tables import accuracies, percent, steps_table
from utils.run_folder import stage_dir

METHODS = ("finetune", "mib", "plop", "ssul", "ssul_m", "joint")
SHARED_STEP_0 = {"ssul_m": "ssul", "plop": "finetune", "mib": "finetune"}  # of methods without one of their own
COLUMNS = (
    Column("old", "old_miou"),
    Column("new", "new_miou"),
    Column("all", "miou"),
    Column("foreground", "foreground_miou"),
    Column("mean over steps", "mean_over_steps"),
)
GROUP_COLORS = {"old": charts.STEP_COLORS["classes of step 0"], "new": charts.STEP_COLORS["later classes"]}
TRAIN = "python train_incremental.py CONFIG method={}"
LEAST_TRUST = 0.2  # share of a class's background pixels that PLOP keeps; below it a step warns


@dataclass(frozen=True)
class Trained:
    """The finished steps of one method, in order."""

    name: str
    folders: list[Path]
    finished: bool  # all steps of the task

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return [read_json(folder / "metrics.json") for folder in self.folders]

    @property
    def groups(self) -> list[list[str]]:
        """Names of the classes that each step added; background is in none."""
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
        """Metrics after the last step with `mean_over_steps` (of all classes), `forgetting`."""
        found = summarize_steps(self.metrics, self.groups)
        mean = found["mean_over_steps"].get("miou")
        return {**found["last"], "mean_over_steps": mean, "forgetting": found["forgetting"]}


@dataclass(frozen=True)
class TaskRun:
    """What is trained of one task and setting."""

    cfg: IncrementalConfig
    folder: Path
    methods: list[Trained]

    @classmethod
    def open(cls, cfg: IncrementalConfig) -> "TaskRun":
        """UserError when no step is finished."""
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
        """Methods that have learned in more than one step."""
        return [method for method in self.methods if len(method.folders) > 1]

    @property
    def groups(self) -> list[list[str]]:
        """Classes by step, as far as any method came."""
        return max((method.groups for method in self.methods), key=len)

    @property
    def colors(self) -> dict[str, str]:
        return charts.series_colors(method.name for method in self.methods)


def _read_method(folder: Path, name: str) -> Trained:
    """The steps of a method, the first perhaps another method's."""
    steps = {int(path.parent.name[4:]): path.parent for path in (folder / name).glob("step*/metrics.json")}
    shared = folder / SHARED_STEP_0.get(name, name) / "step0"
    if 0 not in steps and (shared / "metrics.json").exists():
        steps[0] = shared
    return Trained(name, [steps[number] for number in sorted(steps)], (folder / name / SUMMARY).exists())


def page(cfg: IncrementalConfig) -> Page:
    """One task: methods beside each other, step by step, class by class, and what they saw."""
    run = TaskRun.open(cfg)
    first, *later = run.groups
    facts = f"{cfg.model.backbone}, {cfg.setting}; {len(first)} classes in step 0"
    facts += f", then in {len(later)} steps:" if later else "."
    parts = [headline, along_the_task, groups_by_step, classes_by_step, gallery, memory, learning]
    steps = [[f"{m.name}, {row[0]}", *row[1:]] for m in run.methods for row in steps_table(m.metrics)[1:]]
    heading, rows = methods_table(run)
    return Page(
        title=f"Class-incremental segmentation: {Path(cfg.data.dataset).name}, {Path(cfg.task).stem}",
        lead=html.chips(facts, [name for names in later for name in names]),
        sections=[part(run) for part in parts],
        tables={
            "after the last step": [heading, *rows],
            "after each step": [["method", *steps_table([])[0][1:]], *steps],
        },
        folder=run.folder,
    )


def methods_table(run: TaskRun) -> tuple[list[str], list[list[str]]]:
    """(heading, a row per method): the columns of collect.py, forgetting, and the published mIoU of all classes."""
    key = Path(run.cfg.data.dataset).name, run.folder.name
    rows = []
    for method in run.methods:
        paper = INCREMENTAL.get((*key, method.name), {}).get("all")
        cells = [percent(method.summary.get(column.metric)) for column in COLUMNS]
        forgotten = percent(method.summary["forgetting"])
        rows.append([method.title, *cells, forgotten, "-" if paper is None else f"{paper:.1f}"])
    return ["method", *(column.heading for column in COLUMNS), "forgetting", "paper, all"], rows


def headline(run: TaskRun) -> str:
    """Results first: tiles, the table of the methods, bars of old and new classes."""
    heading, rows = methods_table(run)
    best = max(run.methods, key=lambda m: (m.name != "joint", m.finished, m.summary["miou"] or 0))
    lines = [
        (row, "best" if method is best else "reference" if method.name == "joint" else "")
        for method, row in zip(run.methods, rows, strict=True)
    ]
    bars = [(method.title, {g: method.summary.get(f"{g}_miou") for g in GROUP_COLORS}) for method in run.methods]
    chart = charts.legend(GROUP_COLORS) + charts.bars(bars, GROUP_COLORS, width=400)
    body = html.side_by_side([("", html.table(heading, lines)), ("", chart)])
    unfinished = [method.name for method in run.methods if not method.finished]
    missing = [name for name in METHODS if name not in {method.name for method in run.methods}]
    measured = {method.title: accuracies(method.summary) for method in run.methods}
    columns = max((list(found) for found in measured.values()), key=len)
    if columns:
        lines = [([name, *(percent(found.get(key)) for key in columns)], "") for name, found in measured.items()]
        body += html.disclosure("accuracies, and IoU by frequency", html.table(["method", *columns], lines))
    if unfinished:
        body += html.note(f"Not all steps are trained yet: {'; '.join(TRAIN.format(name) for name in unfinished)}.")
    if missing:
        body += html.note(f"Not trained yet: {', '.join(missing)}; run {TRAIN.format('NAME')}.")
    intro = (
        "Mean intersection over union in per cent after the last step. Old are the classes of step 0 with background, "
        "new all later ones; foreground leaves background out. Forgetting: how far the classes of a step fall below "
        "their best, mean over all steps but the last. Joint training sees all classes at once: an upper bound."
    )
    tiles = [(percent(method.summary["miou"]), f"all classes, {method.title}") for method in run.methods]
    return html.tiles(tiles) + html.section("Results", intro, body)


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
    """Step × group: what becomes of the classes of each step."""
    if not run.several:
        return ""
    parts = []
    for method in run.several:
        matrix = step_matrix(method.metrics, method.groups)
        parts.append((method.name, _heat_map(matrix, _after(method), _group_names(method.groups))))
    intro = (
        "Rows: after each step. Columns: the classes that a step added, background left out; mean IoU in per cent. "
        "The diagonal is what was learned, below it what is left."
    )
    return html.section("What each step learned, and what is left of it", intro, html.side_by_side(parts))


def classes_by_step(run: TaskRun) -> str:
    """IoU of every class, of all methods after the last step, then of each method after each."""
    names = max((list(method.metrics[-1]["per_class"]) for method in run.methods), key=len)
    last = _ious([method.metrics[-1] for method in run.methods], names)
    body = _heat_map(last, [method.title for method in run.methods], names, 1140)
    for method in run.several:
        seen = list(method.metrics[-1]["per_class"])
        drawn = _heat_map(_ious(method.metrics, seen), _after(method), seen, 1140)
        body += html.disclosure(f"{method.name}, after each step", drawn, shown=method is run.several[0])
    return html.section("IoU of every class", "In per cent, after the last step of each method.", body)


def gallery(run: TaskRun) -> str:
    """Truth and predictions on validation images, of every network that eval.py saved some of."""
    title = "What the networks see"
    stages = sorted(run.folder.glob("eval_step*/metrics.json"), key=lambda path: int(path.parent.name[9:]))
    folders = {f"step {path.parent.name[9:]}": path.parent / "predictions" for path in stages}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        command = "python eval.py CONFIG checkpoint=.../best.pth evaluation.native=true save_predictions=true"
        return html.absent(title, "No predictions are saved", command)

    def draw() -> str:
        data = IncrementalData.open(run.cfg)
        later = [number for step in data.task.groups[1:] for number in step]
        samples = predicted(data.context.index(data.test_ids, ("image", "label")), folders)
        samples = pick_images(samples, later)
        columns, rows = prediction_columns(samples, folders, data.task.classes, later)
        metrics = {name: read_json(folder.parent / "metrics.json") for name, folder in folders.items()}
        shown = [f"{name}: {found['checkpoint']}" for name, found in metrics.items()]
        intro = "Validation images that show the later classes in turn; these have white outlines and filled tags."
        grid = html.gallery(columns, rows, [sample.id for sample in samples])
        return html.section(title, intro, grid + html.note("; ".join(shown)))

    return or_reason(title, draw)


def memory(run: TaskRun) -> str:
    """The exemplars that the last step was trained with, of methods that keep some."""
    body = ""
    for method in run.methods:
        pictures = [folder / "memory.jpg" for folder in method.folders if (folder / "memory.jpg").exists()]
        if pictures:
            name = f"{method.name}, for {pictures[-1].parent.name}"
            body += html.disclosure(name, html.picture_file(pictures[-1]))
    intro = "The images that are kept of earlier steps: a row per class, with its pixels in colour."
    return html.section("Memory", intro, body) if body else ""


def learning(run: TaskRun) -> str:
    """Losses of every step."""
    body = ""
    for method in run.methods:
        folders = {folder.name: folder for folder in method.folders if folder.parent.name == method.name}
        parts = [(step, chart) for step, chart in loss_charts(folders)]
        body += html.disclosure(method.name, html.side_by_side(parts)) if parts else ""
    intro = "Losses of each step as they enter the sum. Methods that share step 0 have it with the first of them."
    return html.section("Training", intro, body)


def _ious(metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    """IoU [metrics, names]; 0 for a class without pixels, NaN for one that is not learned."""
    return np.array([[m["per_class"][n] or 0.0 if n in m["per_class"] else np.nan for n in names] for m in metrics])


def _heat_map(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], width: int = 380) -> str:
    unknown = {(int(row), int(column)) for row, column in np.argwhere(np.isnan(matrix))}
    return charts.heat_map(matrix, rows, columns, width=width, empty=unknown)


def _after(method: Trained) -> list[str]:
    return [f"step {metrics['step']}" for metrics in method.metrics]


def _group_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """The class of a step, or how many it has."""
    return [names[0] if len(names) == 1 else f"{len(names)} of step {step}" for step, names in enumerate(groups)]


# ---- many tasks


def _scores(stage: Stage) -> dict[str, Any]:
    """Of summary.json: metrics after the last step, and the mean of all classes over the steps."""
    last, means = stage.metrics.get("last", {}), stage.metrics.get("mean_over_steps", {})
    return {**last, "mean_over_steps": means.get("miou"), "forgetting": stage.metrics.get("forgetting")}


TABLE = ResultTable(
    columns=COLUMNS,
    main="all",
    evaluated_by="train_incremental.py",
    method=lambda stage: stage.name if "mean_over_steps" in stage.metrics else None,
    scores=_scores,
    split=lambda config: f"{Path(config.get('task', '')).stem}-{config.get('setting', 'overlap')}",
    heading="task, method",
    names_split=True,
    methods=METHODS,
    against="plop",
    published=INCREMENTAL,
)


# ---- while it trains


def log_trust(step: int, names: Sequence[str], thresholds: np.ndarray, shares: np.ndarray) -> None:
    """A line of PLOP's thresholds and trusted shares by old class, and a warning where hardly anything is trusted."""
    found = zip(names, thresholds, shares, strict=False)  # names go on with the new classes
    each = [f"{name} {tau:.4f} " + ("-" if np.isnan(share) else f"{share:.0%}") for name, tau, share in found]
    log.info("step %d, entropy threshold and trusted share of background: %s", step, ", ".join(each))
    few = [each[place] for place in np.flatnonzero(shares < LEAST_TRUST)]
    if few:
        text = "step %d: PLOP trusts less than %.0f %% of %s, which may be forgotten; plop.median=exact trusts half"
        log.warning(text, step, 100 * LEAST_TRUST, ", ".join(few))


def write_summary(metrics: Sequence[dict], data: IncrementalData, folder: Path) -> None:
    """summary.json: last step, means over steps, forgetting; curve.svg: what is learned and forgotten on the way."""
    names = data.task.names
    groups = [[names[number] for number in data.task.ids(step)] for step in range(data.num_steps)]
    write_json(folder / SUMMARY, summarize_steps(metrics, groups))
    curves = step_curves(metrics)
    drawn = charts.curves(curves, charts.STEP_COLORS, "step", percent=True, width=540) if len(metrics) > 1 else ""
    write_text(folder / "curve.svg", drawn)
