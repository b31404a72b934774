"""Many runs in one table: mean ± standard deviation over seeds, with the published values.

reads   every finished stage (metrics.json, config.yaml) in or below the given folders: a stage, <output_dir>/<split>,
        an output_dir, or globs of them. Each system has its own table; your own methods have rows in it.

    python collect.py output/demo/seed*
    python collect.py output/pascal/seed* --columns split --style latex
    python collect.py output/pascal --columns split --metric base_miou
    python collect.py output/ablations/seed* --rows variant
    python collect.py output/incremental_voc*
    python collect.py output/class_orders --over splits
    python collect.py output/probe_voc
    python collect.py output/pascal/fold0 --cost
    python collect.py output --list                          # every run: running, finished, stopped or failed
    python collect.py output/demo/seed1 output/demo/seed2 --diff     # keys and figures that differ
    python collect.py output/demo/seed* --save demo.json     # the figures in one file, for collect.py demo.json
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import argparse
import sys
from pathlib import Path
from typing import get_args

from reports import result_table_of
from utils.entry import entry
from utils.errors import UserError
from utils.report.aggregate import RATIO, Options, Over, ResultTable, main_column, result_table, same_seed
from utils.report.cost import cost_table
from utils.report.results import Stage, find_stages, save_stages
from utils.report.runs import differences, find_runs, list_table
from utils.report.tables import STYLES, Rows, table
from utils.systems import SYSTEMS


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="stages, folders that hold stages, or globs of folders")
    parser.add_argument("--system", choices=SYSTEMS, help="only stages of this system; default: a table for each")
    parser.add_argument(
        "--rows", choices=("method", "variant"), default="method", help="variant: a row per output_dir, by its name"
    )
    parser.add_argument(
        "--columns", choices=("metrics", "split"), default="metrics", help="split: one metric, a column per split"
    )
    parser.add_argument("--metric", default="", help="a single column: its heading, or a key of metrics.json")
    parser.add_argument(
        "--over",
        choices=get_args(Over),
        default="seeds",
        help="average over splits, or over data sets, in addition to seeds",
    )
    parser.add_argument("--against", default="", metavar="ROW", help="method that the others are compared with")
    parser.add_argument("--cost", action="store_true", help="show time, speed and memory of every stage instead")
    parser.add_argument("--list", action="store_true", help="show every run with state, best score and age instead")
    parser.add_argument(
        "--diff", action="store_true", help="show keys and figures that differ between two folders instead"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the figures to one file that can be collected again"
    )
    parser.add_argument("--style", choices=STYLES, default="text")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


def result_tables(stages: list[Stage], options: Options) -> dict[str, Rows]:
    """The table of each system that has results."""
    found = {system: [stage for stage in stages if stage.system == system] for system in SYSTEMS}
    tables = {system: result_table(own, result_table_of(system), options) for system, own in found.items() if own}
    return {system: rows for system, rows in tables.items() if len(rows) > 1}


def explain(stages: list[Stage], rows: Rows, about: ResultTable, options: Options) -> None:
    """Explain the numbers on stderr, so that the table on stdout can be piped."""
    over = {"seeds": "seeds", "splits": "splits and seeds", "datasets": "data sets, splits and seeds"}[options.over]
    notes = [f"mean ± standard deviation over {over} in per cent"]
    notes += ["number of runs in brackets, if any row has several"] if options.columns == "metrics" else []
    notes += [about.about] if about.about else []
    notes += [about.paper.about] if options.columns == "split" and about.paper and about.paper.about else []
    if any(name.startswith(RATIO) for name in rows[0]):
        main = main_column(about.variants) if options.rows == "variant" and about.variants else about.main
        of = main.heading if options.rows == "variant" else options.metric or main.heading
        notes += [
            f"{RATIO}: of {of}, paired by seed where runs share seeds, * significant by a two-sided t-test at 5 %"
        ]
    print(f"\n{'; '.join(notes)}", file=sys.stderr)
    if options.rows == "method":
        for line in same_seed(stages, about):
            print(f"warning: {line}: if they are variants, --rows variant keeps them apart", file=sys.stderr)


def print_list(given: argparse.Namespace) -> int:
    """Every run that was started in the folders."""
    runs = [run for run in find_runs(given.folders) if given.system in (None, run.system)]
    if not runs:
        raise UserError(f"{given.folders[0]}: no run there; start one first")
    print(table(list_table(runs, {system: result_table_of(system) for system in SYSTEMS}), given.style))
    return 0


def print_differences(given: argparse.Namespace) -> int:
    """The keys and figures that differ between two runs."""
    if len(given.folders) != 2:
        raise UserError(f"--diff: {len(given.folders)} folders; give two")
    keys, figures = differences(*(find_stages([folder]) for folder in given.folders))
    print(table(keys, given.style) if len(keys) > 1 else "no key differs")
    print(f"\n{table(figures, given.style)}")
    return 0


def print_cost(given: argparse.Namespace, stages: list[Stage]) -> int:
    """Time, speed and memory of the finished stages."""
    rows = cost_table((stage, result_table_of(stage.system).split(stage.config)) for stage in stages)
    if len(rows) == 1:
        raise UserError(f"{given.folders[0]}: no finished stage there; run one first")
    print(table(rows, given.style))
    return 0


def main(argv: list[str] | None = None) -> int:
    given = parse(argv)
    if given.list or given.diff:
        return print_list(given) if given.list else print_differences(given)
    stages = [stage for stage in find_stages(given.folders) if given.system in (None, stage.system)]
    if given.save and stages:
        save_stages(stages, given.save)
    if given.cost:
        return print_cost(given, stages)
    options = Options(given.rows, given.columns, given.metric, given.over, given.against)
    tables = result_tables(stages, options)
    if not tables:
        wanted = [result_table_of(system) for system in ([given.system] if given.system else SYSTEMS)]
        *most, last = dict.fromkeys(about.evaluated_by for about in wanted)
        scripts = f"{', '.join(most)} or {last}" if most else last
        raise UserError(f"{given.folders[0]}: no evaluated stage in {len(given.folders)} folders; run {scripts} first")
    for place, (system, rows) in enumerate(tables.items()):
        if len(tables) > 1:
            print(f"{'' if not place else chr(10)}{system}\n")
        print(table(rows, given.style))
        explain([stage for stage in stages if stage.system == system], rows, result_table_of(system), options)
    return 0


if __name__ == "__main__":
    entry(main)
