"""Probes of frozen features: the page of all networks that are evaluated in an output_dir."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.io import read_array
from reports.contrast.tables import PROBES
from reports.page import Page, arrange_confusion, class_bars, cluster_order, results, training
from utils.config.probe import ProbeConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.aggregate import result_table
from utils.report.published import PROBE_IOU
from utils.report.results import Stage, find_stages
from utils.report.tables import Rows
from utils.run_folder import stage_dir

PAPER_CLASSES = {"eval_linear": "linear", "kmeans": "kmeans"}  # stage -> mode in PROBE_IOU
MODES = {"linear": "linear", "linear, CRF": "linear evaluation.crf=true", "k-means": "kmeans", "retrieval": "retrieval"}
PROBE = "python probe_features.py CONFIG mode={}"


def page(cfg: ProbeConfig) -> Page:
    """Every evaluated network by every mode, class by class. Raises UserError if no network is evaluated."""
    folder = stage_dir(cfg, "report").parents[len(cfg.folder.parts)]
    found = find_stages([folder]) if folder.is_dir() else []
    stages = [stage for stage in found if stage.system == "probe" and stage.dry == cfg.run.dry]
    rows = result_table(stages, PROBES)
    if len(rows) == 1:
        raise UserError(f"{folder}: no evaluated network to report on; run first: {PROBE.format(cfg.mode)}")
    networks = list(dict.fromkeys(network(stage) for stage in stages))
    lead = html.chips(f"{len(networks)} networks, frozen:", networks)
    probes = {network(stage): stage.folder for stage in stages if stage.name == "linear"}
    learning = training(probes, "Cross-entropy of the linear probes.")
    sections = [scores(rows), classes(stages), prototypes(stages), confusion(stages), learning]
    return Page(f"What features know: {Path(cfg.data.dataset).name}", lead, sections, {"": rows}, folder)


def network(stage: Stage) -> str:
    return stage.folder.parent.name


def scores(rows: Rows) -> str:
    """The table of networks and modes, and the commands of the modes that nobody ran."""
    heading, *lines = rows
    intro = (
        "mIoU in per cent. Linear: a 1x1 convolution learns the classes. K-means: a cluster takes the class it fits "
        "best; ± over its seeds. Retrieval: an object takes the class of its nearest labelled neighbour."
    )
    runs = [PROBE.format(mode) for name, mode in MODES.items() if name not in heading]
    styles = {line[0]: "reference" for line in lines if line[0].startswith("paper: ")}
    return results(intro, (), rows, styles=styles, notes=[f"Not there yet: {'; '.join(runs)}."] if runs else [])


def classes(stages: Sequence[Stage]) -> str:
    """IoU of every class by mode, networks side by side."""
    parts, colors = [], charts.series_colors(dict.fromkeys(network(stage) for stage in stages))
    for column in PROBES.columns:
        of_mode = [stage for stage in stages if stage.name == column.stage]
        found = {network(stage): stage.metrics for stage in of_mode if "per_class" in stage.metrics}
        if column.metric != "miou" or not found:
            continue
        shown = {name: colors[name] for name in found}
        paper = _paper_classes(of_mode)
        if paper:
            found, shown = found | {"paper": paper}, shown | {"paper": "#c3cad3"}
        names = list(next(iter(found.values()))["per_class"])
        parts.append((column.heading, charts.legend(shown) + class_bars(found, names, shown, "miou")))
    return html.section("IoU of every class", "In per cent.", html.side_by_side(parts))


def _paper_classes(stages: Sequence[Stage]) -> dict | None:
    """Published IoU of each class, if one of the stages has the paper's network and data set."""
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
    found = {network(stage): stage.folder / "prototypes.svg" for stage in stages if stage.name == "kmeans"}
    drawn = [(name, html.drawing(path)) for name, path in found.items() if path.exists()]
    if not drawn:
        return html.absent(title, "Nothing is clustered yet", PROBE.format("kmeans"))
    intro = "The mean feature of the object in every validation image. Colours are true classes."
    return html.section(title, intro, html.side_by_side(drawn))


def confusion(stages: Sequence[Stage]) -> str:
    """Pixels of each class in each cluster, for the first seed of k-means, where the matrix is saved."""
    parts = []
    for stage in stages:
        path, match = stage.folder / "confusion.npy", stage.metrics.get("match")
        if not (stage.name.startswith("kmeans") and path.exists() and match):
            continue
        matrix, names = read_array(path), list(stage.metrics["per_class"])
        order = cluster_order(match, matrix.shape[1])
        outputs = [f"{cluster} → {names[number] if number >= 0 else 'none'}" for cluster, number in order]
        shares = arrange_confusion(matrix, 0, [cluster for cluster, _ in order])
        framed = {(number, place) for place, (_, number) in enumerate(order) if number >= 0}
        parts.append((f"{network(stage)}, {stage.name}", charts.heat_map(shares, names, outputs, framed)))
    intro = "Rows are true classes, columns clusters, 0 background; shares of the class's pixels in per cent."
    return html.section("Clusters and classes", intro, html.side_by_side(parts)) if parts else ""
