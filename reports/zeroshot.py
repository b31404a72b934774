"""Zero-shot segmentation: what report.py shows of a split, all methods beside each other; collect.py's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.layouts import Sample
from data.zeroshot.builder import ZeroShotData
from reports.common import (
    Page,
    class_section,
    loss_charts,
    saved_gallery,
    score_curves,
)
from utils.checkpoint import read_json
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable
from utils.report.published import ZERO_SHOT, ZERO_SHOT_FROM_MEMORY
from utils.report.results import Stage
from utils.report.tables import percent
from utils.run_folder import stage_dir

METHODS = ("step1", "devise", "zs3", "zs3, strict", "zs3_gc", "zs3_gc, strict", "zs5", "zs5, strict")
COLUMNS = (
    Column("seen", "seen_miou"),
    Column("unseen", "unseen_miou"),
    Column("all", "miou"),
    Column("harmonic", "harmonic_miou"),
    Column("area", "sweep_area"),
)
ACCURACIES = (
    Column("seen PA", "seen_pixel_accuracy"),
    Column("seen MA", "seen_accuracy"),
    Column("unseen PA", "unseen_pixel_accuracy"),
    Column("unseen MA", "unseen_accuracy"),
    Column("all PA", "pixel_accuracy"),
    Column("all MA", "mean_accuracy"),
)
EVALUATE = "python eval.py CONFIG method={}"


@dataclass(frozen=True)
class SplitRun:
    """The evaluated methods of one split: name -> metrics.json of eval.py."""

    cfg: ZeroShotConfig
    folder: Path
    metrics: Mapping[str, dict[str, Any]]

    @classmethod
    def open(cls, cfg: ZeroShotConfig) -> "SplitRun":
        """UserError when nothing is evaluated."""
        folder = stage_dir(cfg, "report").parent
        found = {called(path.parent.name): read_json(path) for path in sorted(folder.glob("eval_*/metrics.json"))}
        metrics = {name: found[name] for name in sorted(found, key=_place)}
        if not metrics:
            raise UserError(f"{folder}: nothing evaluated to report on; run first: {EVALUATE.format(cfg.method)}")
        return cls(cfg, folder, metrics)

    @cached_property
    def colors(self) -> dict[str, str]:
        return charts.series_colors(self.metrics)

    @cached_property
    def groups(self) -> tuple[list[str], list[str]]:
        """(seen, unseen) class names; UserError when the data set cannot be read."""
        data = ZeroShotData.open(self.cfg)
        return [data.names[number] for number in data.seen], [data.names[number] for number in data.unseen]

    def stages(self, prefix: str = "") -> dict[str, Path]:
        """Folder of the training, or with `eval_` of the evaluation, of each method."""
        return {name: self.folder / f"{prefix}{name.replace(', ', '_')}" for name in self.metrics}


def called(stage: str) -> str:
    """eval_zs3_strict -> zs3, strict."""
    name = stage.removeprefix("eval_")
    return f"{name.removesuffix('_strict')}, strict" if name.endswith("_strict") else name


def _place(name: str) -> tuple[int, str]:
    return METHODS.index(name) if name in METHODS else len(METHODS), name


def page(cfg: ZeroShotConfig) -> Page:
    """One split: methods beside each other, the calibrated bias, class by class, pictures, trainings."""
    run = SplitRun.open(cfg)
    parts = [headline, bias, classes, gallery, learning]
    facts = f"{cfg.model.backbone}, {Path(cfg.split).stem}."
    heading, rows = methods_table(run)
    return Page(
        title=f"Zero-shot segmentation: {Path(cfg.data.dataset).name}, {Path(cfg.split).stem}",
        lead=html.chips(facts, _unseen_names(run)),
        sections=[part(run) for part in parts],
        tables={"mIoU": [heading, *rows], "accuracies": accuracies(run)},
        folder=run.folder,
    )


def _unseen_names(run: SplitRun) -> list[str]:
    try:
        return run.groups[1]
    except UserError:
        return []


def methods_table(run: SplitRun) -> tuple[list[str], list[list[str]]]:
    """(heading, a row per method): the columns of collect.py, and the published values, * if from memory."""
    key = Path(run.cfg.data.dataset).name, Path(run.cfg.split).stem
    paper = [name for name in ("unseen", "harmonic") if any(known[:2] == key for known in ZERO_SHOT)]
    rows = []
    for name, metrics in run.metrics.items():
        scores, published = flat(metrics), ZERO_SHOT.get((*key, name), {})
        cells = [percent(scores.get(column.metric)) for column in COLUMNS]
        marks = {group: "*" if (*key, name, group) in ZERO_SHOT_FROM_MEMORY else "" for group in paper}
        cells += [f"{published[g]:.1f}{marks[g]}" if g in published else "not known" for g in paper]
        rows.append([name, *cells])
    return ["method", *(column.heading for column in COLUMNS), *(f"paper, {name}" for name in paper)], rows


def accuracies(run: SplitRun) -> list[list[str]]:
    """Pixel accuracy and mean accuracy of the groups."""
    rows = [[name, *(percent(m.get(column.metric)) for column in ACCURACIES)] for name, m in run.metrics.items()]
    return [["method", *(column.heading for column in ACCURACIES)], *rows]


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json with the area of its sweep as a value."""
    return {**metrics, "sweep_area": metrics.get("sweep", {}).get("area")}


def headline(run: SplitRun) -> str:
    """Results first: tiles, the table of the methods, bars of seen and unseen classes."""
    heading, rows = methods_table(run)
    best = max(run.metrics, key=lambda name: run.metrics[name].get("harmonic_miou") or 0)
    lines = [(row, "best" if row[0] == best else "") for row in rows]
    groups = charts.series_colors(("seen", "unseen", "harmonic"))
    bars = [(name, {g: m.get(f"{g}_miou") for g in groups}) for name, m in run.metrics.items()]
    chart = charts.legend(groups) + charts.bars(bars, groups, width=400)
    heading_more, *more = accuracies(run)
    body = html.side_by_side([("", html.table(heading, lines)), ("", chart)])
    body += html.disclosure("accuracies", html.table(heading_more, [(row, "") for row in more]))
    intro = (
        "Mean intersection over union in per cent; all classes compete with each other (generalised zero-shot). Area: "
        "below the curve of unseen over seen mIoU. * published value from memory, not confirmed by a second text."
    )
    tiles = [(percent(m.get("harmonic_miou")), f"harmonic mIoU, {name}") for name, m in run.metrics.items()]
    return html.tiles(tiles) + html.section("Results", intro, body)


def bias(run: SplitRun) -> str:
    """Unseen over seen mIoU as a constant is taken from the seen scores."""
    title, curves = "Calibrated bias", {}
    for name, metrics in run.metrics.items():
        if "sweep" in metrics:
            sweep = metrics["sweep"]
            points = {round(100 * x, 2): y for x, y in zip(sweep["seen_miou"], sweep["unseen_miou"], strict=True)}
            curves[name] = sorted(points.items())
    if not curves:
        return html.absent(title, "No evaluation has counted it", EVALUATE.format(run.cfg.method))
    colors = {name: run.colors[name] for name in curves}
    drawn = charts.legend(colors) + charts.curves(curves, colors, "seen mIoU", percent=True, width=540)
    rows = [
        ([name, f"{s['best_gamma']:.2f}", percent(s["best_harmonic_miou"]), percent(s["area"])], "")
        for name, s in ((name, run.metrics[name]["sweep"]) for name in curves)
    ]
    note = html.table(["method", "best gamma", "harmonic there", "area"], rows)
    intro = (
        "Unseen mIoU over seen mIoU, in per cent, as a constant gamma is subtracted from the scores of seen classes. "
        "The best gamma is chosen on the validation labels themselves, unseen ones among them: a bound, not a result."
    )
    return html.section(title, intro, html.side_by_side([("", drawn), ("", note)]))


def classes(run: SplitRun) -> str:
    """IoU of every class, unseen ones first."""

    def groups() -> dict[str, list[str]]:
        seen, unseen = run.groups
        return {"unseen": unseen, "seen": seen}

    return class_section(run.metrics, run.colors, groups)


def gallery(run: SplitRun) -> str:
    """Truth and predictions on validation images, at their own size."""

    def read() -> tuple[list[Sample], Sequence[str], set[int]]:
        data = ZeroShotData.open(run.cfg)
        unseen = {data.groups.order[number] for number in data.unseen}
        return data.val_images(run.cfg.evaluation.size).samples, data.groups.classes, unseen

    command = f"{EVALUATE.format(run.cfg.method)} evaluation.native=true save_predictions=true resume=false"
    return saved_gallery(run.stages("eval_"), command, "unseen", read)


def learning(run: SplitRun) -> str:
    """Losses of every training, unseen mIoU on validation images over its epochs."""
    folders = {name: folder for name, folder in run.stages().items() if folder.is_dir()}
    parts = loss_charts(folders)
    curves = score_curves(folders, "unseen_miou")
    if curves:
        colors = {name: run.colors[name] for name in curves}
        drawn = charts.legend(colors) + charts.curves(curves, colors, "epoch", percent=True)
        parts.append(("unseen mIoU, never used to choose an epoch", drawn))
    return html.section("Training", "Losses over steps.", html.side_by_side(parts)) if parts else ""


# ---- many splits


def _method(stage: Stage) -> str | None:
    return called(stage.name) if stage.name.startswith("eval_") else None


TABLE = ResultTable(
    columns=COLUMNS,
    main="harmonic",
    evaluated_by="eval.py",
    method=_method,
    scores=lambda stage: flat(stage.metrics),
    split=lambda config: Path(config.get("split", "")).stem,
    heading="split, method",
    names_split=True,
    methods=METHODS,
    published=ZERO_SHOT,
    paper_columns=("unseen", "harmonic"),
    from_memory=ZERO_SHOT_FROM_MEMORY,
)
