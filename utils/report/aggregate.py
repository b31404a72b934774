"""Many finished stages as one table: rows × columns of mean ± deviation over runs.

A run is what one output_dir holds of one split. What a system's table shows, a `ResultTable`, lies with its page in
reports/. Runs of different data sets or splits are averaged only on request (`over`).
"""

import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from utils.errors import UserError
from utils.report.published import MEAN, Published
from utils.report.results import Stage
from utils.report.t_test import TTest, t_test
from utils.report.tables import percent, spread

DEFAULT = "default"  # the variant that others are compared with
RATIO = "difference / s.e."  # heading of mean differences over their standard errors
Over = Literal["seeds", "splits", "datasets"]


@dataclass(frozen=True)
class Column:
    """A metric under its heading: that of the stage which gives a row its name, or of another stage of the run."""

    heading: str
    metric: str  # key of metrics.json
    stage: str = ""
    optional: bool = False  # left out where no row has a value, as columns of another stage are


@dataclass(frozen=True)
class ResultTable:
    """What a system's table of results shows, and how to find it in finished stages."""

    columns: tuple[Column, ...]
    main: str  # heading of the column that splits and variants are compared by
    evaluated_by: str  # the script whose stages it reads
    method: Callable[[Stage], str | None]  # name of the row that a stage belongs to, None for no row
    scores: Callable[[Stage], Mapping[str, Any]] = lambda stage: stage.metrics
    split: Callable[[Mapping[str, Any]], str] = lambda config: ""  # split or task of a configuration
    heading: str = "method"  # of the rows' names
    names_split: bool = False  # in every row; else only where there are several
    methods: tuple[str, ...] = ()  # that are shown first, in this order
    variants: tuple[Column, ...] = ()  # columns of a row per variant; () takes `columns`, in a row per method, too
    compared: str = ""  # of those the column that is set against the default; "" takes `main`
    against: str = ""  # method that others are compared with, if it is there; else the first row's
    published: Published = field(default_factory=dict)
    paper_columns: tuple[str, ...] = ()  # headings that the paper's stand beside; () for the main one
    from_memory: Collection[tuple[str, str, str, str]] = ()  # published values, (*key, heading), that get a *
    paper: Literal["column", "rows", "mean"] = "column"  # its place: beside ours, below, or where splits are columns
    whole: tuple[str, ...] = ()  # splits that the published mean is over
    paper_is: str = ""  # what its value under the splits is
    deviation: str = ""  # what ± is over where there is one run


@dataclass(frozen=True)
class Options:
    """What a table is to show; the defaults suit each system."""

    rows: Literal["method", "variant"] = "method"
    columns: Literal["metrics", "split"] = "metrics"
    metric: str = ""  # heading or key; "" shows all as columns, and the main one where splits are columns
    over: Over = "seeds"
    against: str = ""  # method that others are compared with; "" takes the table's


BY_METHOD = Options()


@dataclass(frozen=True)
class Entry:
    """What a table needs of a stage."""

    stage: Stage
    dataset: str
    split: str
    method: str | None
    scores: Mapping[str, Any]

    @cached_property
    def output_dir(self) -> Path:
        return self.stage.output_dir(self.split)

    def data(self, scored: bool) -> dict[str, Any]:
        """What it was trained and, if it is `scored`, evaluated on: runs that differ in it are no repetitions."""
        data = self.stage.config.get("data", {})
        found = {name: data.get(name) for name in ("dataset", "train_list", "val_list", "lists")}
        images = self.stage.metrics.get("images") if scored else None
        return found | ({} if images is None else {"images": images})

    @property
    def variant(self) -> str:
        return self.output_dir.name

    @property
    def draw(self) -> tuple[str, str, int | None]:
        """What the variants of a run have in common."""
        return self.dataset, self.split, self.stage.seed

    def values(self, column: Column) -> list[float]:
        """Its value of a metric, if the column is of this stage and there is one."""
        value = self.scores.get(column.metric) if column.stage in ("", self.stage.name) else None
        return [] if value is None else [value]


@dataclass(frozen=True)
class Row:
    """The entries that a row of the table is of; parts of its name are empty where it does not tell them apart."""

    dataset: str
    split: str
    variant: str
    method: str
    entries: tuple[Entry, ...]
    data: str = ""  # what tells it from a row of the same names on other data

    @property
    def num_runs(self) -> int:
        return len({(entry.output_dir, entry.split) for entry in self.entries})

    def values(self, column: Column) -> list[float]:
        return [value for entry in self.entries for value in entry.values(column)]

    def by_draw(self, column: Column) -> dict[Hashable, float]:
        """Value of each seed, split and data set; runs that have all three in common are averaged."""
        found: dict[Hashable, list[float]] = {}
        for entry in self.entries:
            found.setdefault(entry.draw, []).extend(entry.values(column))
        return {draw: statistics.mean(values) for draw, values in found.items() if values}

    def cell(self, column: Column) -> str:
        """Mean ± deviation over runs; of a single run the deviation that it knows itself."""
        values = self.values(column)
        own = self.values(replace(column, metric=f"{column.metric}_std"))
        return f"{spread(values)} ± {percent(own[0])}" if len(values) == len(own) == 1 else spread(values)


def result_table(stages: Sequence[Stage], about: ResultTable, options: Options = BY_METHOD) -> list[list[str]]:
    """Rows of text, the heading first and alone where no stage has results. UserError for a metric that none has."""
    entries = [Entry(s, s.dataset, about.split(s.config), about.method(s), about.scores(s)) for s in stages]
    columns = _columns(entries, about, options)
    rows = [row for row in _rows(entries, about, options) if any(row.values(column) for column in columns)]
    if not rows:
        return [[about.heading]]
    if options.columns == "split":
        return _by_split(rows, about, columns[0], options)
    columns = [c for c in columns if not (c.stage or c.optional) or any(row.values(c) for row in rows)]
    heading = [about.heading if options.rows == "method" else "variant", *(column.heading for column in columns)]
    several = any(row.num_runs > 1 for row in rows)
    names = [f"{_title(row, rows, about)} ({row.num_runs})" if several else _title(row, rows, about) for row in rows]
    table = [[name, *(row.cell(column) for column in columns)] for name, row in zip(names, rows, strict=True)]
    compared = _compared(about, columns)
    if options.rows == "variant":
        table = _with_column([heading, *table], f"against {DEFAULT}", _against_default(rows, compared))
        return _with_ratios(table, "", [_ratio(row, _default_of(row, rows), compared) for row in rows])
    against = _reference(rows, about, options)
    [heading, *table] = _with_ratios(
        [heading, *table], against, [_ratio(row, _other_method(row, rows, against), compared) for row in rows]
    )
    if about.paper == "column" and about.published and options.over == "seeds" and about.main in heading:
        keys = [(row.dataset, row.split, row.method) for row in rows]
        shown = [heading, *table]
        for name in about.paper_columns or (about.main,):
            shown = _with_column(shown, f"paper, {name}", [_published(about, key, name) for key in keys])
        return shown
    datasets = {entry.dataset for row in rows for entry in row.entries}
    paper = _paper_rows(about, datasets.pop(), heading[1:]) if about.paper == "rows" and len(datasets) == 1 else []
    return [heading, *table, *paper]


def same_seed(stages: Sequence[Stage], about: ResultTable) -> list[str]:
    """Runs of one method, data set and split that share a seed, a line each: variants rather than repetitions."""
    found: dict[tuple, set[str]] = {}
    for stage in stages:
        method, split = about.method(stage), about.split(stage.config)
        if method:
            key = (method, stage.name, stage.dataset, split, stage.seed)
            found.setdefault(key, set()).add(str(stage.output_dir(split)))
    folders = {tuple(sorted(folders)): key[-1] for key, folders in found.items() if len(folders) > 1}
    return [f"{' and '.join(names)} have the same seed, {seed}" for names, seed in folders.items()]


# ---- rows


def _rows(entries: Sequence[Entry], about: ResultTable, options: Options) -> list[Row]:
    """By data set and split, then in the order of `methods`, then as found; the default before other variants."""
    whole_run = _whole_run(about, options)
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        if not whole_run and entry.method is None:
            continue
        dataset = "" if options.over == "datasets" else entry.dataset
        split = "" if options.over != "seeds" or options.columns == "split" else entry.split
        variant = entry.variant if options.rows == "variant" else ""
        groups.setdefault((dataset, split, variant, "" if whole_run else entry.method or ""), []).append(entry)
    known = {method: place for place, method in enumerate(about.methods)}

    def order(key: tuple[str, str, str, str]) -> tuple[str, str, bool, int]:
        dataset, split, variant, method = key
        return dataset, split, variant != DEFAULT, known.get(method, len(known))

    scored = options.columns == "metrics" and options.over == "seeds" and not whole_run
    found = ((key, part) for key in sorted(groups, key=order) for part in _by_data(groups[key], options, scored))
    return [Row(*key, tuple(entries), data) for key, (data, entries) in found]


def _by_data(entries: list[Entry], options: Options, scored: bool) -> list[tuple[str, list[Entry]]]:
    """(what tells them apart, entries) of each data that the entries are of; the first is empty if it is one."""
    if options.over == "datasets":
        return [("", entries)]
    parts: dict[tuple, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(tuple(sorted(entry.data(scored).items())), []).append(entry)
    shared = set.intersection(*map(set, parts))
    return [(", ".join(f"{k} {v}" for k, v in data if (k, v) not in shared), part) for data, part in parts.items()]


def _whole_run(about: ResultTable, options: Options) -> bool:
    """Whether a row takes its columns from all stages of a run, so that it has no method."""
    asked = not options.metric or options.metric in {column.heading for column in about.variants}
    return options.rows == "variant" and bool(about.variants) and asked


def _title(row: Row, rows: Sequence[Row], about: ResultTable) -> str:
    """What tells a row from the others."""
    dataset = row.dataset if len({r.dataset for r in rows}) > 1 else ""
    split = row.split if about.names_split or len({(r.dataset, r.split) for r in rows}) > 1 else ""
    return ", ".join(part for part in (dataset, split, row.variant, row.method, row.data) if part)


# ---- columns


def _columns(entries: Sequence[Entry], about: ResultTable, options: Options) -> list[Column]:
    """All of the table, or the one that is asked for; where splits are the columns, the one to show of each."""
    columns = about.variants if _whole_run(about, options) else about.columns
    if options.metric:
        return [_find(entries, columns, options.metric)]
    return [_compared(about, columns)] if options.columns == "split" else list(columns)


def _find(entries: Sequence[Entry], columns: Sequence[Column], metric: str) -> Column:
    """A column by its heading, or by a key of metrics.json."""
    for column in columns:
        if metric in (column.heading, column.metric):
            return column
    numbers = {key for e in entries for key, value in e.scores.items() if isinstance(value, float)}
    if metric not in numbers:
        raise UserError(f"--metric {metric}: no stage has it; there are {', '.join(sorted(numbers)) or 'none'}")
    return Column(metric, metric)


def _compared(about: ResultTable, columns: Sequence[Column]) -> Column:
    return next((column for column in columns if column.heading in (about.compared, about.main)), columns[0])


def _with_column(table: list[list[str]], heading: str, cells: Iterable[str]) -> list[list[str]]:
    return [[*row, cell] for row, cell in zip(table, [heading, *cells], strict=True)]


def _by_split(rows: Sequence[Row], about: ResultTable, column: Column, options: Options) -> list[list[str]]:
    """A column per split; the mean of every run that has all of them; the published mean over the paper's splits.

    Methods are compared by those means, of the same seed where there is one.
    """
    splits = sorted({entry.split for row in rows for entry in row.entries if entry.values(column)})
    if splits == [""]:
        raise UserError("--columns split: these stages have no splits; leave it out")
    table = [[column.heading, *splits, "mean", *(["paper"] if about.whole else [])]]
    means: list[dict[Hashable, float]] = []  # of each row, by seed
    for row in rows:
        runs: dict[Path, dict[str, float]] = {}
        for entry in row.entries:
            for value in entry.values(column):
                runs.setdefault(entry.output_dir, {})[entry.split] = value
        cells = [spread(run.get(split) for run in runs.values()) for split in splits]
        complete = {place: statistics.mean(run.values()) for place, run in runs.items() if len(run) == len(splits)}
        paper = [_paper_mean(row, about, splits, column)] if about.whole else []
        table.append([_title(row, rows, about), *cells, spread(complete.values()), *paper])
        seeds = {entry.output_dir: entry.stage.seed for entry in row.entries}
        means.append({seeds[place]: mean for place, mean in complete.items()})
    if options.rows == "variant":
        return table
    against = _reference(rows, about, options)
    others = [_other_method(row, rows, against) for row in rows]
    ratios = [
        None if other is None else t_test(mean, means[rows.index(other)])
        for mean, other in zip(means, others, strict=True)
    ]
    return _with_ratios(table, against, ratios)


def _against_default(rows: Sequence[Row], column: Column) -> list[str]:
    """The column of each row less that of the default variant with the same seed, split and data set."""
    default = {
        (entry.draw, row.method): value
        for row in rows
        if row.variant == DEFAULT
        for entry in row.entries
        for value in entry.values(column)
    }
    cells = []
    for row in rows:
        pairs = [(value, default.get((e.draw, row.method))) for e in row.entries for value in e.values(column)]
        gains = [ours - theirs for ours, theirs in pairs if theirs is not None]
        cells.append("-" if row.variant == DEFAULT else spread(gains, "+"))
    return cells


# ---- is a difference more than noise?


def _with_ratios(table: list[list[str]], against: str, ratios: Sequence[TTest | None]) -> list[list[str]]:
    """Appends the column "difference / s.e.", * where the difference is significant, if any row has a test."""
    if all(ratio is None for ratio in ratios):
        return table
    cells = ["-" if test is None else f"{test.t:+.1f}{' *' if test.is_significant else ''}" for test in ratios]
    return _with_column(table, f"{RATIO} to {against}" if against else RATIO, cells)


def _ratio(row: Row, other: Row | None, column: Column) -> TTest | None:
    return None if other is None else t_test(row.by_draw(column), other.by_draw(column))


def _default_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of the default variant that a variant is compared with."""
    like = replace(row, variant=DEFAULT, entries=())
    return next((r for r in rows if replace(r, entries=()) == like and row.variant != DEFAULT), None)


def _reference(rows: Sequence[Row], about: ResultTable, options: Options) -> str:
    """The method that others are compared with; UserError for one that is not there but was asked for."""
    methods = [row.method for row in rows]
    if options.against and options.against not in methods:
        raise UserError(f"--against {options.against}: no such row; there are {', '.join(dict.fromkeys(methods))}")
    return next(method for method in (options.against, about.against, methods[0]) if method in methods)


def _other_method(row: Row, rows: Sequence[Row], method: str) -> Row | None:
    """The row of a method on the same data set and split."""
    like = replace(row, method=method, entries=())
    return next((r for r in rows if replace(r, entries=()) == like and row.method != method), None)


# ---- published values


def _published(about: ResultTable, key: tuple[str, str, str], heading: str) -> str:
    value = about.published.get(key, {}).get(heading)
    if value is None:
        unknown = about.paper_columns and key[:2] in {known[:2] for known in about.published}
        return "not known" if unknown else "-"
    return f"{value:.1f}" + ("*" if (*key, heading) in about.from_memory else "")


def _paper_mean(row: Row, about: ResultTable, splits: Sequence[str], column: Column) -> str:
    """The published mean, where it is over these splits; "not known" where the paper has it for other data only."""
    if set(splits) != set(about.whole):
        return "-"
    value = _published(about, (row.dataset, MEAN, row.method), column.heading)
    elsewhere = any(method == row.method and column.heading in v for (*_, method), v in about.published.items())
    return "not known" if value == "-" and row.dataset and elsewhere else value


def _paper_rows(about: ResultTable, dataset: str, headings: Sequence[str]) -> list[list[str]]:
    """The published rows that share a column with ours."""
    rows = [
        [name, *("-" if heading not in values else f"{values[heading]:.1f}" for heading in headings)]
        for (data, _, name), values in about.published.items()
        if data == dataset
    ]
    return [row for row in rows if set(row[1:]) != {"-"}]
