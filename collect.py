"""Many runs as one table: mean ± standard deviation over runs that differ in the seed, beside the papers' values.

reads   every finished stage (metrics.json, config.yaml) in or below the folders given: a stage, <output_dir>/<split>,
        an output_dir, or globs of them. Each system has a table of its own.

    python collect.py output/demo/seed*
    python collect.py output/pascal/seed* --columns split --style latex
    python collect.py output/pascal --columns split --metric base_miou
    python collect.py output/ablations/seed* --rows variant
    python collect.py output/incremental_voc*
    python collect.py output/class_orders --over splits
    python collect.py output/probe_voc
    python collect.py output/pascal/fold0 --cost
    python collect.py output --list                          # every run: running, finished, stopped or failed
    python collect.py output/demo/seed1 output/demo/seed2 --diff     # their keys and figures that differ
    python collect.py output/demo/seed* --save demo.json     # the figures in one file, for collect.py demo.json
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import argparse
import sys
from pathlib import Path
from typing import get_args

from utils.report.aggregate import RATIO, Options, Over, ResultTable, result_table, same_seed
from utils.report.tables import STYLES, table
from utils.systems import SYSTEMS


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="stages, or folders and globs of folders that hold some")
    parser.add_argument("--system", choices=SYSTEMS, help="stages of this system only; default: a table for each")
    parser.add_argument(
        "--rows", choices=("method", "variant"), default="method", help="variant: a row per output_dir, by its name"
    )
    parser.add_argument(
        "--columns", choices=("metrics", "split"), default="metrics", help="split: one metric, a column per split"
    )
    parser.add_argument("--metric", default="", help="one column: its heading, or a key of metrics.json")
    parser.add_argument(
        "--over", choices=get_args(Over), default="seeds", help="average splits, or even data sets, as well as seeds"
    )
    parser.add_argument("--against", default="", metavar="ROW", help="method that others are compared with")
    parser.add_argument("--cost", action="store_true", help="time, speed and memory of every stage instead")
    parser.add_argument("--list", action="store_true", help="every run with state, best score and age instead")
    parser.add_argument("--diff", action="store_true", help="of two folders the keys and figures that differ instead")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write what was read to one file, to collect again")
    parser.add_argument("--style", choices=STYLES, default="text")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":  # before the imports below, which take seconds
    parse()

from reports import result_table_of
from utils.entry import entry
from utils.errors import UserError
from utils.report.cost import cost_table
from utils.report.results import Stage, find_stages, save_stages
from utils.report.runs import differences, find_runs, list_table


def result_tables(stages: list[Stage], options: Options) -> dict[str, list[list[str]]]:
    """System -> its table, of those that have results."""
    found = {system: [stage for stage in stages if stage.system == system] for system in SYSTEMS}
    tables = {system: result_table(own, result_table_of(system), options) for system, own in found.items() if own}
    return {system: rows for system, rows in tables.items() if len(rows) > 1}


def explain(stages: list[Stage], heading: list[str], about: ResultTable, options: Options) -> None:
    """What the numbers are, on the error stream, so that a table can be piped on."""
    over = {"seeds": "seeds", "splits": "splits and seeds", "datasets": "data sets, splits and seeds"}[options.over]
    notes = [f"mean ± standard deviation over {over} in per cent"]
    notes += ["number of runs in brackets, if any row has several"] if options.columns == "metrics" else []
    notes += [f"of one run ± is over {about.deviation}"] if about.deviation else []
    notes += [f"the paper's value is {about.paper_is}"] if options.columns == "split" and about.paper_is else []
    if any(name.startswith(RATIO) for name in heading):
        of = options.metric or about.main if options.rows == "method" else about.compared or about.main
        notes += [f"{RATIO}: of {of}, paired by seed where seeds match, * by a two-sided t-test at 5 %"]
    print(f"\n{'; '.join(notes)}", file=sys.stderr)
    if options.rows == "method":
        for line in same_seed(stages, about):
            print(f"warning: {line}: if they are variants, --rows variant keeps them apart", file=sys.stderr)


def print_list(given: argparse.Namespace) -> int:
    """Every run that was started in the folders."""
    runs = [run for run in find_runs(given.folders) if given.system in (None, run.system)]
    if not runs:
        raise UserError(f"{given.folders[0]}: no run there; start one first")
    tables = {system: result_table_of(system) for system in SYSTEMS}
    mains = {system: (about.main, _main_metric(about)) for system, about in tables.items()}
    print(table(list_table(runs, {system: about.split for system, about in tables.items()}, mains), given.style))
    return 0


def _main_metric(about: ResultTable) -> str:
    return next((column.metric for column in about.columns if column.heading == about.main), about.columns[0].metric)


def print_differences(given: argparse.Namespace) -> int:
    """What tells two runs apart."""
    if len(given.folders) != 2:
        raise UserError(f"--diff: {len(given.folders)} folders; give two")
    keys, figures = differences(*(find_stages([folder]) for folder in given.folders))
    print(table(keys, given.style) if len(keys) > 1 else "no key differs")
    print(f"\n{table(figures, given.style)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    given = parse(argv)
    if given.list or given.diff:
        return print_list(given) if given.list else print_differences(given)
    stages = [stage for stage in find_stages(given.folders) if given.system in (None, stage.system)]
    if given.save and stages:
        save_stages(stages, given.save)
    if given.cost:
        rows = cost_table((stage, result_table_of(stage.system).split(stage.config)) for stage in stages)
        if len(rows) == 1:
            raise UserError(f"{given.folders[0]}: no finished stage there; run one first")
        print(table(rows, given.style))
        return 0
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
        explain([stage for stage in stages if stage.system == system], rows[0], result_table_of(system), options)
    return 0


if __name__ == "__main__":
    entry(main)
