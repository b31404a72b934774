"""How good features are: what report.py shows of the networks of an output_dir; collect.py's table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.io import read_array
from reports.common import Page, class_bars, loss_charts
from utils.config.probe import ProbeConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable, result_table
from utils.report.published import PROBE_IOU, PROBES
from utils.report.results import Stage, find_stages
from utils.run_folder import stage_dir

COLUMNS = (
    Column("linear", "miou", "eval_linear"),
    Column("linear, CRF", "miou", "eval_linear_crf"),
    Column("k-means", "miou", "kmeans"),
    Column("retrieval", "miou", "retrieval"),
    Column("kept classes", "kept_miou", "retrieval"),
    Column("k-means, patches", "miou", "kmeans_patch"),
    Column("retrieval, patches", "miou", "retrieval_patch"),
)
PAPER_CLASSES = {"eval_linear": "linear", "kmeans": "kmeans"}  # stage -> mode of the published IoU of each class
PROBE = "python probe_features.py CONFIG mode={}"

TABLE = ResultTable(
    columns=COLUMNS,
    main="k-means",
    evaluated_by="probe_features.py",
    method=lambda stage: stage.folder.parent.name if stage.name != "linear" else None,  # its score is eval_linear's
    heading="features",
    published=PROBES,
    paper="rows",
    deviation="the seeds of k-means",
)


def page(cfg: ProbeConfig) -> Page:
    """Every evaluated network by every mode, class by class, and where the prototypes lie."""
    folder = stage_dir(cfg, "report").parents[len(cfg.folder.parts)]
    stages = [stage for stage in _stages(folder) if stage.system == "probe" and stage.dry == cfg.run.dry]
    rows = result_table(stages, TABLE)
    if len(rows) == 1:
        raise UserError(f"{folder}: no evaluated network to report on; run first: {PROBE.format(cfg.mode)}")
    networks = list(dict.fromkeys(stage.folder.parent.name for stage in stages))
    lead = html.chips(f"{len(networks)} networks, which stay as they are:", networks)
    parts = [headline(rows), classes(stages), prototypes(stages), confusion(stages), learning(stages)]
    title = f"What features know: {Path(cfg.data.dataset).name}"
    return Page(title, lead, parts, {"": rows}, folder)


def headline(rows: list[list[str]]) -> str:
    heading, *lines = rows
    styled = [(line, "reference" if line[0].startswith("paper: ") else "") for line in lines]
    missing = [column.heading for column in COLUMNS[:4] if column.heading not in heading]
    intro = (
        "mIoU in per cent. Linear: a 1x1 convolution learns the classes. K-means: clusters take the class they fit "
        "best; ± over its seeds. Retrieval: an object takes the class of its nearest labelled neighbour."
    )
    commands = {"linear": "linear", "linear, CRF": "linear evaluation.crf=true", "k-means": "kmeans"}
    runs = [PROBE.format(commands.get(name, name)) for name in missing]
    body = html.table(heading, styled) + (html.note(f"Not there yet: {'; '.join(runs)}.") if runs else "")
    return html.section("Results", intro, body)


def classes(stages: Sequence[Stage]) -> str:
    """IoU of every class by mode, networks side by side."""
    parts, colors = [], charts.series_colors(dict.fromkeys(stage.folder.parent.name for stage in stages))
    for column in COLUMNS:
        if column.metric != "miou":
            continue
        found = {s.folder.parent.name: s.metrics for s in stages if s.name == column.stage and "per_class" in s.metrics}
        if not found:
            continue
        shown = {name: colors[name] for name in found}
        paper = _paper_classes([stage for stage in stages if stage.name == column.stage])
        if paper:
            found, shown = found | {"paper": paper}, shown | {"paper": "#c3cad3"}
        names = list(next(iter(found.values()))["per_class"])
        parts.append((column.heading, charts.legend(shown) + class_bars(found, names, shown, "miou")))
    return html.section("IoU of every class", "In per cent.", html.side_by_side(parts))


def _paper_classes(stages: Sequence[Stage]) -> dict | None:
    """Published IoU of the classes, where one of the networks is the paper's on the paper's data."""
    for stage in stages:
        model = stage.config.get("model", {})
        ours = (model.get("kind"), model.get("backbone"), stage.dataset) == ("maskcontrast", "resnet50", "pascal")
        values = PROBE_IOU.get((PAPER_CLASSES.get(stage.name, ""), stage.metrics.get("protocol", "")))
        if ours and values:
            mean = float(np.mean(list(values.values()))) / 100
            return {"per_class": {name: value / 100 for name, value in values.items()}, "miou": mean}
    return None


def prototypes(stages: Sequence[Stage]) -> str:
    """One vector per image, in two dimensions."""
    title = "Prototypes by class"
    found = {s.folder.parent.name: s.folder / "prototypes.svg" for s in stages if s.name == "kmeans"}
    drawn = [(name, html.drawing(path)) for name, path in found.items() if path.exists()]
    if not drawn:
        return html.absent(title, "Nothing is clustered yet", PROBE.format("kmeans"))
    intro = "The mean feature of the object of every validation image. Colours are true classes."
    return html.section(title, intro, html.side_by_side(drawn))


def confusion(stages: Sequence[Stage]) -> str:
    """Which cluster covers which class, of the first seed, where the matrix was saved."""
    parts = []
    for stage in stages:
        path, match = stage.folder / "confusion.npy", stage.metrics.get("match")
        if not (stage.name.startswith("kmeans") and path.exists() and match):
            continue
        matrix, names = read_array(path), list(stage.metrics["per_class"])
        order = sorted(match, key=lambda pair: (pair[1] < 0, pair[1], pair[0]))
        outputs = [f"{cluster} → {names[number] if number >= 0 else 'none'}" for cluster, number in order]
        counts = matrix[:, [cluster for cluster, _ in order]]
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        framed = {(number, place) for place, (_, number) in enumerate(order) if number >= 0}
        parts.append((f"{stage.folder.parent.name}, {stage.name}", charts.heat_map(shares, names, outputs, framed)))
    intro = "Rows are true classes, columns clusters, 0 background; shares of the class's pixels in per cent."
    return html.section("Clusters and classes", intro, html.side_by_side(parts)) if parts else ""


def learning(stages: Sequence[Stage]) -> str:
    """The linear probes, as they were trained."""
    folders = {stage.folder.parent.name: stage.folder for stage in stages if stage.name == "linear"}
    parts = loss_charts(folders)
    return html.section("Training", "Cross-entropy of the linear probes.", html.side_by_side(parts)) if parts else ""


def _stages(folder: Path) -> list[Stage]:
    return find_stages([folder]) if folder.is_dir() else []
