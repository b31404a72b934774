"""Tables over many finished stages: a row per method or variant, mean ± deviation over runs, published values.

A run is everything in one output_dir that belongs to one split. Runs of different data sets or splits are averaged
only on request (`Options.over`). The `ResultTable` of each system is in reports/<setting>/.
"""

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from utils.errors import UserError
from utils.report.results import Stage
from utils.report.t_test import TTest, t_test
from utils.report.tables import Rows, percent, spread

DEFAULT = "default"  # the variant that others are compared with
RATIO = "difference / s.e."  # heading of mean differences in standard errors
Over = Literal["seeds", "splits", "datasets"]
Published = Mapping[tuple[str, str, str], Mapping[str, str]]  # (data set, split, row) -> {heading: per cent, as shown}
MEAN = "mean"  # instead of a split, in Published: the mean over the paper's splits


@dataclass(frozen=True)
class Column:
    """A metric and its heading."""

    heading: str
    metric: str  # key of metrics.json
    stage: str = ""  # stage that has it; "" for the stage that names the row
    optional: bool = False  # left out if no row has a value, like the columns that name a stage
    main: bool = False  # methods, variants and splits are compared by it; without one, by the first column


@dataclass(frozen=True)
class Paper:
    """Published values and their place in the table."""

    values: Published
    columns: tuple[str, ...]  # headings with a published column
    place: Literal["beside", "below", "mean"] = "beside"  # mean: only if splits are the columns
    splits: tuple[str, ...] = ()  # those of the published mean
    about: str = ""  # a note for place="mean"


@dataclass(frozen=True)
class ResultTable:
    """Content of the table of a system, and how stages become its rows."""

    columns: tuple[Column, ...]
    evaluated_by: str  # script that writes the stages
    method: Callable[[Stage], str | None]  # row of a stage; None: no row
    scores: Callable[[Stage], Mapping[str, Any]] = lambda stage: stage.metrics
    split: Callable[[Mapping[str, Any]], str] = lambda config: Path(config.get("split", "")).stem  # of a configuration
    names: tuple[str, ...] = ("method",)  # parts of a row's name; two: the split (or task) is in every name
    methods: tuple[str, ...] = ()  # rows that come first, in this order
    variants: tuple[Column, ...] = ()  # columns if rows are variants; (): `columns`, and a row per method, too
    against: str = ""  # method that others are compared with; if there is none, the first row
    paper: Paper | None = None
    about: str = ""  # note below the table

    @property
    def main(self) -> Column:
        return main_column(self.columns)


@dataclass(frozen=True)
class Options:
    """The options of collect.py."""

    rows: Literal["method", "variant"] = "method"
    columns: Literal["metrics", "split"] = "metrics"
    metric: str = ""  # a single column, by heading or key; "": all columns, or the main one per split
    over: Over = "seeds"
    against: str = ""  # method that others are compared with; "": ResultTable.against


DEFAULTS = Options()


@dataclass(frozen=True)
class Entry:
    """A stage with its split, its row and its scores."""

    stage: Stage
    split: str
    method: str | None
    scores: Mapping[str, Any]

    @property
    def output_dir(self) -> Path:
        return self.stage.output_dir(self.split)

    @property
    def draw(self) -> tuple[str, str, int | None]:
        """Data set, split and seed: values of two rows with the same draw are a pair."""
        return self.stage.dataset, self.split, self.stage.seed

    def data(self, scored: bool) -> dict[str, Any]:
        """The data that it was trained and, if `scored`, evaluated on. Runs that differ in it are not averaged."""
        data = self.stage.config.get("data", {})
        found = {name: data.get(name) for name in ("dataset", "train_list", "val_list", "lists")}
        images = self.stage.metrics.get("images") if scored else None
        return found | ({} if images is None else {"images": images})

    def values(self, column: Column) -> list[float]:
        """Its value in a column, or none."""
        value = self.scores.get(column.metric) if column.stage in ("", self.stage.name) else None
        return [] if value is None else [value]


@dataclass(frozen=True)
class Row:
    """The entries of a row. Parts of its name are empty where rows are not separated by them."""

    dataset: str
    split: str
    variant: str
    method: str
    data: str  # how its data differs from that of a row with the same name
    entries: tuple[Entry, ...]

    @property
    def runs(self) -> int:
        return len({(entry.output_dir, entry.split) for entry in self.entries})

    def like(self, **parts: str) -> "Row":
        """Its name alone, some parts replaced: what two rows are compared by."""
        return replace(self, entries=(), **parts)

    def values(self, column: Column) -> list[float]:
        return [value for entry in self.entries for value in entry.values(column)]

    def by_draw(self, column: Column) -> dict[Hashable, float]:
        """Mean value of each draw."""
        found: dict[Hashable, list[float]] = {}
        for entry in self.entries:
            found.setdefault(entry.draw, []).extend(entry.values(column))
        return {draw: statistics.mean(values) for draw, values in found.items() if values}

    def cell(self, column: Column) -> str:
        """Mean ± deviation over runs; for a single run the deviation <metric>_std that it reports itself."""
        values = self.values(column)
        own = self.values(replace(column, metric=f"{column.metric}_std"))
        return f"{spread(values)} ± {percent(own[0])}" if len(values) == len(own) == 1 else spread(values)


def main_column(columns: Sequence[Column]) -> Column:
    return next((column for column in columns if column.main), columns[0])


def result_table(stages: Sequence[Stage], about: ResultTable, options: Options = DEFAULTS) -> Rows:
    """Rows of text, the heading first; only the heading if no stage has results.

    Raises UserError for an unknown metric or method, and for columns per split of stages without splits.
    """
    entries = [Entry(s, about.split(s.config), about.method(s), about.scores(s)) for s in stages]
    columns = _columns(entries, about, options)
    rows = [row for row in _rows(entries, about, options) if any(row.values(column) for column in columns)]
    if not rows:
        return [[", ".join(about.names)]]
    if options.columns == "split":
        return _by_split(rows, about, columns[0], options)
    columns = [c for c in columns if not (c.stage or c.optional) or any(row.values(c) for row in rows)]
    first = ", ".join(about.names) if options.rows == "method" else "variant"
    table = [[first, *(column.heading for column in columns)]]
    several = any(row.runs > 1 for row in rows)
    for row in rows:
        title = _title(row, rows, about) + (f" ({row.runs})" if several else "")
        table.append([title, *(row.cell(column) for column in columns)])
    main = main_column(columns)
    if options.rows == "variant":
        table = _append(table, f"against {DEFAULT}", _against_default(rows, main))
    against = "" if options.rows == "variant" else _reference(rows, about, options)
    others = [_compared_with(row, rows, against) for row in rows]
    tests = [
        None if other is None else t_test(row.by_draw(main), other.by_draw(main))
        for row, other in zip(rows, others, strict=True)
    ]
    return _with_paper(_with_tests(table, against, tests), rows, about, options)


def same_seed(stages: Sequence[Stage], about: ResultTable) -> list[str]:
    """A line for each group of runs with one method, data set, split and seed: they are variants, not repetitions."""
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
        if whole_run or entry.method is not None:
            dataset = "" if options.over == "datasets" else entry.stage.dataset
            split = "" if options.over != "seeds" or options.columns == "split" else entry.split
            variant = entry.output_dir.name if options.rows == "variant" else ""
            method = "" if whole_run or entry.method is None else entry.method
            groups.setdefault((dataset, split, variant, method), []).append(entry)
    known = {method: place for place, method in enumerate(about.methods)}

    def order(key: tuple[str, str, str, str]) -> tuple[str, str, bool, int]:
        dataset, split, variant, method = key
        return dataset, split, variant != DEFAULT, known.get(method, len(known))

    scored = options.columns == "metrics" and options.over == "seeds" and not whole_run
    return [
        Row(*key, data, tuple(part))
        for key in sorted(groups, key=order)
        for data, part in _by_data(groups[key], options, scored)
    ]


def _by_data(entries: list[Entry], options: Options, scored: bool) -> list[tuple[str, list[Entry]]]:
    """(difference to the others, entries) of each data that the entries are from; no difference if it is one."""
    if options.over == "datasets":
        return [("", entries)]
    parts: dict[tuple, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(tuple(sorted(entry.data(scored).items())), []).append(entry)
    shared = set.intersection(*map(set, parts))
    return [(", ".join(f"{k} {v}" for k, v in data if (k, v) not in shared), part) for data, part in parts.items()]


def _whole_run(about: ResultTable, options: Options) -> bool:
    """Whether rows are variants whose columns come from several stages of a run."""
    asked = not options.metric or options.metric in {column.heading for column in about.variants}
    return options.rows == "variant" and bool(about.variants) and asked


def _title(row: Row, rows: Sequence[Row], about: ResultTable) -> str:
    """The parts of its name that separate it from other rows."""
    dataset = row.dataset if len({r.dataset for r in rows}) > 1 else ""
    split = row.split if len(about.names) > 1 or len({(r.dataset, r.split) for r in rows}) > 1 else ""
    return ", ".join(part for part in (dataset, split, row.variant, row.method, row.data) if part)


# ---- columns


def _columns(entries: Sequence[Entry], about: ResultTable, options: Options) -> list[Column]:
    """All columns; the main one if splits are the columns; the one that was asked for."""
    columns = about.variants if _whole_run(about, options) else about.columns
    if not options.metric:
        return [main_column(columns)] if options.columns == "split" else list(columns)
    numbers = {key for entry in entries for key, value in entry.scores.items() if isinstance(value, float)}
    found = next((c for c in columns if options.metric in (c.heading, c.metric)), None)
    if not found and options.metric not in numbers:
        there = ", ".join(sorted(numbers)) or "none"
        raise UserError(f"--metric {options.metric}: no stage has it; there are {there}")
    return [found or Column(options.metric, options.metric)]


def _append(table: Rows, heading: str, cells: Iterable[str]) -> list[list[str]]:
    return [[*row, cell] for row, cell in zip(table, [heading, *cells], strict=True)]


def _by_split(rows: Sequence[Row], about: ResultTable, column: Column, options: Options) -> Rows:
    """A column per split, the mean over the splits of every run that has all of them, the published mean.

    Methods are compared by these means, paired by seed.
    """
    splits = sorted({entry.split for row in rows for entry in row.entries if entry.values(column)})
    if splits == [""]:
        raise UserError("--columns split: these stages have no splits; leave it out")
    published = about.paper and about.paper.place == "mean"
    table = [[column.heading, *splits, "mean", *(["paper"] if published else [])]]
    means: list[dict[Hashable, float]] = []  # of each row, by seed
    for row in rows:
        runs: dict[tuple[Path, int | None], dict[str, float]] = {}
        for entry in row.entries:
            for value in entry.values(column):
                runs.setdefault((entry.output_dir, entry.stage.seed), {})[entry.split] = value
        complete = {key: statistics.mean(run.values()) for key, run in runs.items() if len(run) == len(splits)}
        means.append({seed: mean for (_, seed), mean in complete.items()})
        cells = [*(spread(run.get(split) for run in runs.values()) for split in splits), spread(complete.values())]
        paper = [_published_mean(row, about.paper, splits, column)] if about.paper and published else []
        table.append([_title(row, rows, about), *cells, *paper])
    if options.rows == "variant":
        return table
    against = _reference(rows, about, options)
    others = [_compared_with(row, rows, against) for row in rows]
    tests = [
        None if other is None else t_test(mean, means[rows.index(other)])
        for mean, other in zip(means, others, strict=True)
    ]
    return _with_tests(table, against, tests)


# ---- comparisons


def _against_default(rows: Sequence[Row], column: Column) -> list[str]:
    """Mean difference of each row to the default variant, paired by draw."""
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


def _with_tests(table: Rows, against: str, tests: Sequence[TTest | None]) -> Rows:
    """Appends differences in standard errors, * if significant; no column if no row has a test."""
    if not any(tests):
        return table
    cells = ["-" if test is None else f"{test.t:+.1f}{' *' if test.is_significant else ''}" for test in tests]
    return _append(table, f"{RATIO} to {against}" if against else RATIO, cells)


def _reference(rows: Sequence[Row], about: ResultTable, options: Options) -> str:
    """The method that others are compared with. Raises UserError if the one that was asked for has no row."""
    methods = [row.method for row in rows]
    if options.against and options.against not in methods:
        raise UserError(f"--against {options.against}: no such row; there are {', '.join(dict.fromkeys(methods))}")
    return next(method for method in (options.against, about.against, methods[0]) if method in methods)


def _compared_with(row: Row, rows: Sequence[Row], against: str) -> Row | None:
    """The row of the method `against`, or if "" of the default variant, on the same data."""
    like = row.like(method=against) if against else row.like(variant=DEFAULT)
    return next((other for other in rows if other.like() == like and other is not row), None)


# ---- published values


def _with_paper(table: Rows, rows: Sequence[Row], about: ResultTable, options: Options) -> Rows:
    """Adds published values as columns next to ours, or as rows below."""
    paper, headings = about.paper, table[0]
    if paper is None or options.rows == "variant":
        return table
    if paper.place == "beside" and options.over == "seeds" and about.main.heading in headings:
        for heading in paper.columns:
            cells = [published(paper, (row.dataset, row.split, row.method), heading) for row in rows]
            table = _append(table, f"paper, {heading}", cells)
    datasets = {entry.stage.dataset for row in rows for entry in row.entries}
    if paper.place == "below" and len(datasets) == 1:
        [dataset] = datasets
        ours = {name: values for (data, _, name), values in paper.values.items() if data == dataset}
        lines = [[name, *(values.get(heading, "-") for heading in headings[1:])] for name, values in ours.items()]
        table = [*table, *(line for line in lines if set(line[1:]) != {"-"})]
    return table


def published(paper: Paper, key: tuple[str, str, str], heading: str) -> str:
    """A published value; "not known" if other rows of the same data set and split have values, "-" if none has."""
    others = key[:2] in {known[:2] for known in paper.values}
    return paper.values.get(key, {}).get(heading) or ("not known" if others else "-")


def _published_mean(row: Row, paper: Paper, splits: Sequence[str], column: Column) -> str:
    """The published mean over these splits; "not known" if the paper gives it for other data only."""
    if set(splits) != set(paper.splits):
        return "-"
    value = paper.values.get((row.dataset, MEAN, row.method), {}).get(column.heading)
    elsewhere = any(method == row.method and column.heading in v for (*_, method), v in paper.values.items())
    return value or ("not known" if row.dataset and elsewhere else "-")
