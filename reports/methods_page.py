"""The page of a split whose methods are evaluated one by one, for settings with two kinds of classes.

A setting declares the content of its page in a `MethodsPage`; additional sections are functions of a `MethodsRun`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.layouts import Sample
from data.two_groups import TwoGroups
from reports.page import Page, Shown, class_scores, or_reason, prediction_gallery, results, training
from utils.checkpoint import read_json
from utils.config.weakshot import WeakShotConfig
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable, published
from utils.report.results import Stage
from utils.report.tables import Rows, percent
from utils.run_folder import stage_dir

Config = ZeroShotConfig | WeakShotConfig  # the configurations with `split` and `method`


@dataclass(frozen=True)
class MethodsPage:
    """Content of the page of a setting, in the order of `sections`."""

    title: str
    table: ResultTable
    open_data: Callable[[Any], TwoGroups]
    images: Callable[[Any], Sequence[Sample]]  # data -> the images that eval.py predicts
    kinds: tuple[str, str]  # the classes without masks, those with masks: "unseen", "seen"
    tile: Column  # shown on tiles; its best row is marked if `bars` are drawn
    about: Callable[[Any], str]  # configuration -> facts below the title
    intro: str  # of the results
    evaluate: str  # command that evaluates a {method}
    predict: str  # keys with which it also saves predictions
    sections: tuple[Callable[["MethodsRun"], str], ...]
    bars: tuple[str, ...] = ()  # groups of classes that are drawn as bars
    accuracies: tuple[Column, ...] = ()  # of a second table

    def page(self, cfg: Config) -> Page:
        """The page of a configuration's split. Raises UserError if nothing is evaluated."""
        run = MethodsRun.open(self, cfg)
        tables = {"mIoU": run.rows, "accuracies": run.accuracies} if self.accuracies else {"": run.rows}
        return Page(
            title=f"{self.title}: {Path(cfg.data.dataset).name}, {Path(cfg.split).stem}",
            lead=html.chips(self.about(cfg), run.held_out),
            sections=[section(run) for section in self.sections],
            tables=tables,
            folder=run.folder,
        )


@dataclass(frozen=True)
class MethodsRun:
    """The evaluated methods of one split, by their row in the result table."""

    shows: MethodsPage
    cfg: Config
    folder: Path
    evaluated: Mapping[str, Stage]

    @classmethod
    def open(cls, shows: MethodsPage, cfg: Config) -> "MethodsRun":
        """Raises UserError if nothing is evaluated."""
        folder, found = stage_dir(cfg, "report").parent, {}
        for path in sorted(folder.glob("eval_*/metrics.json")):
            stage = Stage(path.parent, cfg.system, {}, read_json(path))
            found[shows.table.method(stage) or stage.name] = stage
        if not found:
            raise UserError(f"{folder}: nothing evaluated to report on; run first: {shows.evaluate.format(cfg.method)}")
        order = [
            *(name for name in shows.table.methods if name in found),
            *(sorted(found.keys() - {*shows.table.methods})),
        ]
        return cls(shows, cfg, folder, {name: found[name] for name in order})

    @property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        return {name: self.shows.table.scores(stage) for name, stage in self.evaluated.items()}

    @property
    def evaluate(self) -> str:
        """The command that evaluates the configured method."""
        return self.shows.evaluate.format(self.cfg.method)

    @property
    def trainings(self) -> dict[str, Path]:
        """Stage folder of the training of each method, if it is there."""
        folders = {name: self.folder / stage.name.removeprefix("eval_") for name, stage in self.evaluated.items()}
        return {name: folder for name, folder in folders.items() if folder.is_dir()}

    @property
    def colors(self) -> dict[str, str]:
        return charts.series_colors(self.evaluated)

    # ---- classes

    @cached_property
    def data(self) -> TwoGroups:
        """Raises UserError if the data set cannot be read."""
        return self.shows.open_data(self.cfg)

    @property
    def held_out(self) -> list[str]:
        """Names of the classes without masks; empty if the data set cannot be read."""
        try:
            return [self.data.names[number] for number in self.data.later]
        except UserError:
            return []

    @property
    def held_out_numbers(self) -> set[int]:
        """Numbers in the masks of the classes without masks in training."""
        return {self.data.groups.order[number] for number in self.data.later}

    # ---- tables

    @property
    def rows(self) -> Rows:
        """The columns of collect.py for each method, and the published values if the paper has this split."""
        table, key = self.shows.table, (Path(self.cfg.data.dataset).name, Path(self.cfg.split).stem)
        known = table.paper is not None and any(known[:2] == key for known in table.paper.values)
        paper = table.paper if known else None
        metrics = self.metrics
        columns = [c for c in table.columns if not c.optional or any(c.metric in m for m in metrics.values())]
        heading = [
            "method",
            *(c.heading for c in columns),
            *(f"paper, {name}" for name in (paper.columns if paper else ())),
        ]
        rows = []
        for name, found in metrics.items():
            values = [published(paper, (*key, name), column) for column in paper.columns] if paper else []
            rows.append([name, *(percent(found.get(column.metric)) for column in columns), *values])
        return [heading, *rows]

    @property
    def accuracies(self) -> Rows:
        columns = self.shows.accuracies
        rows = [[name, *(percent(m.get(column.metric)) for column in columns)] for name, m in self.metrics.items()]
        return [["method", *(column.heading for column in columns)], *rows]


# ---- sections


def scores(run: MethodsRun) -> str:
    """Results first: tiles, the table of the methods, bars of groups of classes, accuracies."""
    shows, metrics, tile = run.shows, run.metrics, run.shows.tile
    label = f"{tile.heading} mIoU"
    colors = charts.series_colors(shows.bars)
    bars = [(name, {group: m.get(f"{group}_miou") for group in colors}) for name, m in metrics.items()]
    best = max(metrics, key=lambda name: metrics[name].get(tile.metric) or 0)
    return results(
        shows.intro,
        [(percent(m.get(tile.metric)), f"{label}, {name}") for name, m in metrics.items()],
        run.rows,
        styles={best: "best"} if shows.bars else {},
        bars=bars if shows.bars else (),
        colors=colors,
        bar_width=400,
        more=("accuracies", run.accuracies) if shows.accuracies else None,
    )


def classes(run: MethodsRun) -> str:
    """IoU of every class, those without masks first."""

    def draw() -> str:
        ids = dict(zip(run.shows.kinds, (run.data.later, run.data.first), strict=True))
        kinds = {
            f"{kind} classes": ([run.data.names[number] for number in numbers], f"{kind}_miou")
            for kind, numbers in ids.items()
        }
        return class_scores(run.metrics, run.colors, kinds)

    return or_reason("IoU of every class", draw)


def gallery(run: MethodsRun) -> str:
    """Ground truth and predictions on validation images."""

    def shown() -> Shown:
        return Shown(run.shows.images(run.data), run.data.groups.classes, run.held_out_numbers)

    stages = {name: stage.folder for name, stage in run.evaluated.items()}
    return prediction_gallery(stages, f"{run.evaluate} {run.shows.predict} resume=false", run.shows.kinds[0], shown)


def learning(run: MethodsRun) -> str:
    """Losses of every training, and the mIoU of classes without masks over its epochs."""
    kind = run.shows.kinds[0]
    heading = f"{kind} mIoU, never used to choose an epoch"
    return training(run.trainings, "Losses over steps.", (f"{kind}_miou", heading, run.colors))
