"""Every CPU benchmark in one table: the way of the released programs, ours, and the ratio of their times.

One thread, in processor time of this process; both ways in turn, the least time of the repeats counts. Repeats on a
shared machine vary by a fifth. Two more tables: memory of the losses, and growth with the number of images
(benchmarks/growth.py). Less than ten minutes in all.

    python -m benchmarks
    python -m benchmarks --only SSUL --repeats 5
    python -m benchmarks --save docs/performance.json    # also writes the tables into docs/performance.md
"""

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch

from benchmarks import growth
from benchmarks.rows import memory, rows
from benchmarks.rows.row import Row, cpu_seconds
from utils.checkpoint import write_json, write_text
from utils.report.tables import table

LIMIT = 30.0  # seconds after which a row is not repeated
HEADING = ["work", "released way, ms", "ours, ms", "ratio", ""]
SPACE = ["memory of a loss, per image", "released way, MiB", "ours, MiB"]
BEGIN, END = "<!-- tables of python -m benchmarks --save -->\n\n", "\n\n<!-- end of the tables -->"


def measure(row: Row, repeats: int) -> dict[str, Any]:
    """Milliseconds of both ways for one image, and their ratio."""
    if row.same:
        row.same()
    else:
        row.theirs(), row.ours()  # warm-up
    begun, pairs = time.perf_counter(), []
    while len(pairs) < repeats and (not pairs or time.perf_counter() - begun < LIMIT):
        pairs.append((cpu_seconds(row.theirs), cpu_seconds(row.ours)))
    theirs, ours = (1e3 * min(times) / row.count for times in zip(*pairs, strict=True))
    return {"name": row.name, "theirs_ms": theirs, "ours_ms": ours, "ratio": theirs / ours, "note": row.note}


def machine() -> str:
    """Processor and versions in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}, NumPy {np.__version__}"
    python, vectors = platform.python_version(), torch.backends.cpu.get_cpu_capability()
    return f"{model}, one thread, {vectors}; Python {python}, {versions}"


def markdown(found: dict[str, Any]) -> str:
    """The tables of a run in markdown."""
    speed = [
        [row["name"], f"{row['theirs_ms']:.2f}", f"{row['ours_ms']:.2f}", f"{row['ratio']:.1f}", row["note"]]
        for row in found["rows"]
    ]
    space = [[m["name"], f"{m['theirs_mib']:.0f}", f"{m['ours_mib']:.1f}"] for m in found["memory"]]
    items = tuple(found["items"])
    listed = [HEADING, *speed], [SPACE, *space], growth.rows(found["growth"], items)
    return "\n\n".join((found["machine"], *(table(rows, "markdown") for rows in listed)))


def write_page(page: Path, tables: str) -> None:
    """Replaces the tables between the two marks of a page; does nothing if the page or a mark is missing."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN in text and END in text:
        head, rest = text.split(BEGIN, 1)
        write_text(page, f"{head}{BEGIN}{tables}{END}{rest.split(END, 1)[1]}")


def run(only: str, repeats: int, quick: bool = False) -> dict[str, Any]:
    """Measures the rows whose name contains `only`."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        chosen = (row for row in rows(Path(folder), quick) if only.lower() in row.name.lower())
        measured = []
        for row in chosen:
            measured.append(measure(row, repeats))
            print(f"{row.name}: {measured[-1]['ratio']:.1f}", file=sys.stderr, flush=True)
    space = [{"name": m.name, "theirs_mib": m.theirs, "ours_mib": m.ours} for m in memory(quick)]
    items = (100, 200) if quick else growth.ITEMS
    grown = [] if only else growth.measure(items)
    about = {"machine": machine(), "repeats": repeats, "items": list(items)}
    return {**about, "rows": measured, "memory": space, "growth": grown}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--save", type=Path, help="JSON file of the figures; the tables go to the .md file of the same name"
    )
    options = parser.parse_args(argv)
    found = run(options.only, options.repeats)
    print(markdown(found))
    if options.save:
        write_json(options.save, found)
        write_page(options.save.with_suffix(".md"), markdown(found))


if __name__ == "__main__":
    main()
