"""Mean and standard deviation over seeds: one table of all groups; with --folds the paper's table of novel mIoU; with
--variants one row per variant of scripts/ncdss/ablations.sh; with --tasks class-incremental methods beside the paper's
figures, with --orders their mean over class orders; with --probes evaluations of features beside MaskContrast's; with
--cost the time and memory of every stage.

reads   <folder>/eval_*/metrics.json of every folder given (a folder is <output_dir>/<split>)

    python collect.py output/demo/seed*/fold0
    python collect.py --folds output/pascal/seed*/fold[0-3] --style latex
    python collect.py --variants output/ablations/seed*/*/fold0
    python collect.py --tasks output/ssul_voc*/*-overlap
    python collect.py --probes output/probe_voc/*
"""

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from utils.checkpoint import read_json
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.report.published import NOVEL_MIOU, PROBE_MIOU, TASK_MIOU
from utils.report.tables import HEADING, METHODS, STYLES, percent, table, table_means
from utils.run import entry

FOLDS = {"fold0", "fold1", "fold2", "fold3"}
INCREMENTAL_METHODS = ("finetune", "mib", "plop", "ssul", "ssul_m", "joint")
PROBES = {  # column -> (stage, figure)
    "linear": ("eval_linear", "miou"),
    "linear, CRF": ("eval_linear_crf", "miou"),
    "k-means": ("kmeans", "miou"),
    "retrieval": ("retrieval", "miou"),
    "kept classes": ("retrieval", "kept_miou"),
    "k-means, patches": ("kmeans_patch", "miou"),
    "retrieval, patches": ("retrieval_patch", "miou"),
}


def read_means(folder: Path, stage: str) -> dict[str, float | None] | None:
    """Group means of an evaluated stage, None where it was not evaluated."""
    file = folder / stage / "metrics.json"
    return table_means(read_json(file)) if file.exists() else None


def by_group(folders: list[Path]) -> list[list[str]]:
    """Rows of base, novel and all mIoU over the folders that have the method."""
    rows = [HEADING]
    for title, stage in METHODS.items():
        found = [means for means in (read_means(folder, stage) for folder in folders) if means]
        if found:
            figures = [spread([means.get(group) for means in found]) for group in ("base", "novel", "all")]
            rows.append([f"{title} ({len(found)})", *figures])
    return rows


def by_fold(folders: list[Path]) -> list[list[str]]:
    """Rows of novel mIoU per split over seeds; their mean, of every run that has all of them; the published value."""
    splits = sorted({folder.name for folder in folders})
    rows = [["novel mIoU", *splits, "mean", "paper"]]
    for title, stage in METHODS.items():
        runs: dict[Path, dict[str, float]] = defaultdict(dict)  # by output_dir
        datasets = set()
        for folder in folders:
            novel = (read_means(folder, stage) or {}).get("novel")
            if novel is not None:
                runs[folder.parent][folder.name] = novel
                datasets.add(dataset(folder / stage))
        if runs:
            cells = [spread([run[split] for run in runs.values() if split in run]) for split in splits]
            whole = [statistics.mean(run.values()) for run in runs.values() if len(run) == len(splits)]
            comparable = set(splits) == FOLDS and len(datasets) == 1
            paper = NOVEL_MIOU.get((datasets.pop(), title)) if comparable else None
            unknown = "not known" if comparable and title in ("basic", "EUMS") else "-"
            rows.append([title, *cells, spread(whole), unknown if paper is None else f"{paper:.1f}"])
    return rows


def by_variant(folders: list[Path]) -> list[list[str]]:
    """Rows of variants, named by <variant>/<split>, `default` first: purity of the clusters, novel mIoU of basic and
    EUMS, base mIoU of EUMS, and the novel mIoU of EUMS less that of the default with the same seed."""
    rows = [["variant", "purity", "basic novel", "EUMS novel", "EUMS base", "against default"]]
    default = {f.parent.parent: read_means(f, "eval_eums") for f in folders if f.parent.name == "default"}
    names = dict.fromkeys(folder.parent.name for folder in folders)
    for name in sorted(names, key=lambda name: name != "default"):
        runs = [folder for folder in folders if folder.parent.name == name]
        eums = {folder.parent.parent: read_means(folder, "eval_eums") or {} for folder in runs}
        basic = [read_means(folder, "eval_basic") or {} for folder in runs]
        pairs = [(means.get("novel"), (default.get(seed) or {}).get("novel")) for seed, means in eums.items()]
        gains = [ours - theirs for ours, theirs in pairs if None not in (ours, theirs)]
        rows.append(
            [
                f"{name} ({len(runs)})",
                spread([purity(folder) for folder in runs]),
                spread([means.get("novel") for means in basic]),
                *(spread([means.get(group) for means in eums.values()]) for group in ("novel", "base")),
                "-" if name == "default" else spread(gains, "+"),
            ]
        )
    return rows


TASK_HEADING = ["old", "new", "all", "foreground", "mean over steps"]


def by_task(folders: list[Path]) -> list[list[str]]:
    """Rows of method and task over <task>-<setting> folders: old, new, all, and all but background after the last step,
    the mean of all over the steps, and the published all."""
    rows = [["task, method", *TASK_HEADING, "paper, all"]]
    for task in dict.fromkeys(folder.name for folder in folders):
        for method in INCREMENTAL_METHODS:
            files = summaries([folder for folder in folders if folder.name == task], method)
            if files:
                data = read_yaml(next(files[0].parents[1].glob("*/step*/config.yaml")))["data"]["dataset"]
                paper = TASK_MIOU.get((data, task), {}).get(method)
                cell = "-" if paper is None else f"{paper:.1f}"
                rows.append([f"{task}, {method} ({len(files)})", *task_figures(files), cell])
    return rows


def by_order(folders: list[Path]) -> list[list[str]]:
    """A row per method: its figures over tasks that differ in the order of the classes, one folder each."""
    found = {method: summaries(folders, method) for method in INCREMENTAL_METHODS}
    rows = [[f"{method} ({len(files)})", *task_figures(files)] for method, files in found.items() if files]
    return [["method (class orders)", *TASK_HEADING], *rows]


def summaries(folders: list[Path], method: str) -> list[Path]:
    """summary.json of a method in those of the <task>-<setting> folders that have it."""
    return [file for folder in folders if (file := folder / method / "summary.json").exists()]


def task_figures(files: list[Path]) -> list[str]:
    """Old, new, all and foreground mIoU after the last step, and the mean of all over the steps."""
    found, keys = [read_json(file) for file in files], ("old_miou", "new_miou", "miou", "foreground_miou")
    last = [spread([run["last"].get(key) for run in found]) for key in keys]
    return [*last, spread([run["mean_over_steps"]["miou"] for run in found])]


def by_probe(folders: list[Path]) -> list[list[str]]:
    """A row per evaluated network, <output_dir>/<name>, then, on VOC, the published ones; empty columns are left out.

    Deviations are those over the seeds of k-means.
    """
    found: dict[str, dict[str, str]] = {}
    datasets = set()
    for folder in folders:
        for column, (stage, figure) in PROBES.items():
            file = folder / stage / "metrics.json"
            metrics = read_json(file) if file.exists() else {}
            if metrics.get(figure) is not None:
                deviation = f" ± {percent(metrics['miou_std'])}" if metrics.get("miou_std") is not None else ""
                found.setdefault(folder.name, {})[column] = percent(metrics[figure]) + deviation
                datasets.add(dataset(file.parent))
    if not found:
        return [["features"]]
    paper = {
        f"paper: {name}": {column: f"{value:.1f}" for column, value in figures.items()}
        for name, figures in PROBE_MIOU.items()
        if datasets == {"pascal"}
    }
    columns = [column for column in PROBES if any(column in figures for figures in found.values())]
    rows = [[name, *(figures.get(column, "-") for column in columns)] for name, figures in (found | paper).items()]
    return [["features", *columns], *(row for row in rows if set(row[1:]) != {"-"})]


def by_stage(folders: list[Path]) -> list[list[str]]:
    """Rows of finished stages: seconds, milliseconds of a training step, images per second, GPU memory, device."""
    rows = [["stage", "seconds", "ms/step", "images/s", "peak GiB", "precision", "device"]]
    for folder in folders:
        for file in sorted(folder.glob("*/cost.json"), key=lambda file: file.stat().st_mtime):
            cost, metrics = read_json(file), read_json(file.with_name("metrics.json"))
            speed = cost.get("images_per_second") or metrics.get("images", 0) / cost["seconds"]
            cells = [cost["seconds"], cost.get("ms_per_step"), speed, cost["peak_gpu_gib"]]
            shown = ["-" if value is None else f"{value:.1f}" for value in cells]
            rows.append([f"{folder.parent.name}/{file.parent.name}", *shown, cost["amp"], cost["device"]])
    return rows


def purity(folder: Path) -> float | None:
    """Share of objects whose cluster's majority class is theirs; None where nothing was clustered."""
    file = folder / "pseudo" / "metrics.json"
    return read_json(file).get("purity") if file.exists() else None


def dataset(stage: Path) -> str:
    """The data set that a stage's configuration names."""
    return read_yaml(stage / "config.yaml")["data"]["dataset"]


def spread(values: list[float | None], sign: str = "") -> str:
    """Mean ± sample standard deviation of fractions, in per cent; `sign="+"` shows the sign of the mean always."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):{sign}.1f}{deviation}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="<output_dir>/<split> of each run")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--folds", action="store_true", help="a column per split, their mean, the paper's value")
    shape.add_argument("--variants", action="store_true", help="a row per variant of an ablation")
    shape.add_argument("--tasks", action="store_true", help="a row per class-incremental task and method")
    shape.add_argument("--orders", action="store_true", help="a row per method over tasks that differ in class order")
    shape.add_argument("--probes", action="store_true", help="a row per network whose features were evaluated")
    shape.add_argument("--cost", action="store_true", help="a row per stage of the runs: time, speed, memory")
    parser.add_argument("--style", choices=STYLES, default="text")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    folders = [folder.resolve() for folder in options.folders]
    shapes = {"folds": by_fold, "variants": by_variant, "tasks": by_task, "orders": by_order}
    shapes |= {"probes": by_probe, "cost": by_stage}
    rows = next((make for name, make in shapes.items() if getattr(options, name)), by_group)(folders)
    if len(rows) == 1:
        script = "probe_features.py" if options.probes else "eval.py"
        raise UserError(f"{options.folders[0]}: no evaluated stage in {len(folders)} folders; run {script} first")
    print(table(rows, options.style))
    if not options.cost:
        known = "the paper's value is known for the mean of folds 0-3 only"
        note = known if options.folds else "number of runs in brackets"
        note = "of k-means" if options.probes else note
        over = "class orders" if options.orders else "seeds"
        print(f"\nmean ± standard deviation over {over} in per cent; {note}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    entry(main)
