"""Mean and standard deviation over runs: several seeds of a chain, or several folds.

reads   <folder>/eval_*/metrics.json of every folder given (a folder is <output_dir>/<split>)

    python collect.py output/demo/seed*/fold0
    python collect.py output/pascal_subset/seed*/fold1 --markdown
"""

import argparse
import statistics
import sys
from pathlib import Path

from utils.checkpoint import read_json
from utils.errors import UserError
from utils.reports import METHODS, group_means, results_table
from utils.run import entry


def collect(folders: list[Path]) -> list[tuple[str, list[dict[str, float | None]]]]:
    """(method and number of runs, group means of each) in the order of METHODS, from the folders that have it."""
    rows = []
    for title, stage in METHODS.items():
        files = [folder / stage / "metrics.json" for folder in folders]
        found = [group_means(read_json(file)) for file in files if file.exists()]
        if found:
            rows.append((f"{title} ({len(found)})", found))
    if not rows:
        raise UserError(f"{folders[0]}: no evaluated stage in {len(folders)} folders; run eval.py first")
    return rows


def spread(values: list[float | None]) -> str:
    """Mean ± sample standard deviation of fractions, in per cent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{deviation}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="<output_dir>/<split> of each run")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    rows = [
        [title, *(spread([means.get(group) for means in runs]) for group in ("base", "novel", "all"))]
        for title, runs in collect(options.folders)
    ]
    print(results_table(rows, options.markdown))
    print("\nmean ± standard deviation in per cent; number of runs in brackets")
    return 0


if __name__ == "__main__":
    entry(main)
