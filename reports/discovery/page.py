"""Novel class discovery: what report.py shows of a chain, and what collect.py reads of many."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.classes import is_shipped
from data.io import read_image, voc_palette
from reports.common import Page, class_bars, loss_charts, pick_images, predicted, prediction_columns, score_curves
from reports.discovery.chain import (
    BASELINES,
    HEADING,
    KIND_COLORS,
    METHODS,
    REFERENCES,
    Chain,
    table_cells,
    table_means,
)
from reports.discovery.clusters import cluster_rows, clusters, confusion, ranking, training_gallery
from reports.discovery.unknown import how_many, labelled_gallery, naming
from utils.checkpoint import atomic
from utils.cluster_names import DROP
from utils.config.discovery import DiscoveryConfig
from utils.report import charts, html, pictures
from utils.report.aggregate import Column, ResultTable
from utils.report.published import DISCOVERY
from utils.report.results import Stage
from utils.report.tables import percent

GALLERY = "gallery.png"
PAPER = (
    "For orientation: on PASCAL-5i (ResNet-50, 512 × 512 pixels, mean of four folds) the paper reports a novel mIoU of "
    "49.81 for the basic framework and 59.09 for EUMS. That is another scale, which this run is not meant to reach."
)


def page(cfg: DiscoveryConfig) -> Page:
    """One split: its results, what the networks see, how the clusters came about, how training went."""
    chain = Chain.open(cfg)
    parts = [headline, validation_gallery, class_scores, training_gallery, clusters, confusion, choices]
    facts = f"{cfg.model.backbone}, {chain.num_known - 1} labelled base classes; never labelled:"
    names = chain.novel_names
    if chain.data.is_unknown:
        parts = [headline, naming, how_many, labelled_gallery, class_scores, training_gallery, confusion]
        names = sorted(set((chain.data.cluster_names or {}).values()) - {DROP}) or ["not named yet"]
    rows = [[name, *table_cells(chain.metrics.get(stage))] for name, stage in chain.shown_rows.items()]
    sections = [part(chain) for part in (*parts, ranking, learning)]
    return Page(
        title=f"Novel class discovery: {Path(cfg.data.dataset).name}, {Path(cfg.split).stem}",
        lead=html.chips(facts, names),
        sections=sections,
        tables={"": [HEADING, *rows]},
        folder=chain.folder,
        pictures=board_pictures(chain),
    )


def board_pictures(chain: Chain) -> dict[str, np.ndarray]:
    """Some objects of each cluster in a row, and the gallery of predictions, where there are such."""
    gallery = chain.folder / GALLERY
    found = {"predictions": read_image(gallery)} if gallery.is_file() else {}
    return found | (cluster_rows(chain) if "pseudo" in chain.metrics else {})


def headline(chain: Chain) -> str:
    """Results first: tiles, then the table of all methods."""
    metrics, rows = chain.metrics, chain.shown_rows
    numbers = [
        (percent(metrics[stage].get("novel_miou")), f"novel mIoU, {name}") for name, stage in chain.methods.items()
    ]
    numbers += [(percent(metrics[stage]["base_miou"]), f"base mIoU, {name}") for name, stage in chain.methods.items()]
    if "purity" in metrics.get("pseudo", {}):
        numbers.append((percent(metrics["pseudo"]["purity"]), "cluster purity"))
    styles = dict.fromkeys(REFERENCES, "reference") | {"EUMS": "best"}
    lines = [([name, *table_cells(metrics.get(stage))], styles.get(name, "")) for name, stage in rows.items()]
    table = html.table(HEADING, lines)
    groups = ("base",) if chain.data.is_unknown else ("novel", "base")
    bars = [
        (name, {group: metrics[stage].get(f"{group}_miou") for group in groups})
        for name, stage in rows.items()
        if stage in metrics
    ]
    colors = {group: KIND_COLORS[group] for group in groups}
    chart = charts.legend(colors) + charts.bars(bars, colors) if bars else ""
    body = html.side_by_side([("", table), ("", chart)])
    missing = [name for name, stage in rows.items() if stage not in metrics]
    body += html.note(f"Not evaluated yet: {'; '.join(missing)}.") if missing else ""
    intro = (
        "Mean intersection over union in per cent, at the images' own size. Random and oracle labels are reference "
        "runs of the basic framework: clusters drawn at random, and every object in its true class."
    )
    if chain.data.is_unknown:
        pseudo = metrics.get("pseudo", {})
        numbers += [(str(pseudo.get("k", "-")), "clusters"), (str(pseudo.get("kept", "-")), "objects clustered")]
        intro = (
            "Mean intersection over union of the labelled classes in per cent, at the images' own size. Nothing scores "
            "the unknown ones: look at them below. The last epoch is taken, as labelled classes cannot choose one."
        )
    paper = html.note(PAPER) if is_shipped(chain.data.cfg.data.dataset) else ""
    return html.tiles(numbers) + html.section("Results", intro, body + paper)


def choices(chain: Chain) -> str:
    """What validation labels decide: the epoch of the best model, and the matching of clusters to classes."""
    rows = []
    for method, stage in chain.methods.items():
        for row in chain.metrics[stage].get("compared", []):
            chosen = row["model"].startswith("best") and row["matching"] == "official"
            name = f"{method}, {row['model']}, {row['matching'].replace('_', ' ')} matching"
            rows.append(([name, *table_cells(row)], "" if chosen else "reference"))
    if not rows:
        return ""
    intro = (
        "The published protocol takes the epoch with the best novel mIoU on the validation images, and matches each "
        "cluster to the class with the largest IoU there. In grey: the last epoch, and one cluster per class."
    )
    return html.section("What validation labels decide", intro, html.table(HEADING, rows))


def validation_gallery(chain: Chain) -> str:
    """Truth and predictions side by side, also as gallery.png."""
    title, novel = "What the networks see", chain.novel_numbers
    folders = {name: chain.folder / stage / "predictions" for name, stage in chain.methods.items()}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        command = "python eval.py CONFIG method=eums save_predictions=true resume=false"
        return html.absent(title, "No predictions are saved", command)
    masks = chain.data.cfg.evaluation.label_folder
    samples = pick_images(predicted(chain.samples(chain.data.lists.val, "label", label_folder=masks), folders), novel)
    columns, rows = prediction_columns(samples, folders, chain.classes, novel)
    legend = [(chain.classes[value], voc_palette()[value]) for value in novel[:8]]
    with atomic(chain.folder / GALLERY) as temporary:
        sheet = pictures.sheet(columns, rows, "novel, never labelled:", legend)
        Image.fromarray(sheet).save(temporary, "PNG", compress_level=4)
    intro = (
        "Validation images: the first of the list that show the novel classes in turn. White outlines and filled tags "
        "mark novel classes, which the network finds as clusters; a cluster takes the name of its matched class."
    )
    return html.section(title, intro, html.gallery(columns, rows, [sample.id for sample in samples]))


def class_scores(chain: Chain) -> str:
    """IoU of every class, methods side by side, novel and base classes apart."""
    title = "IoU of every class"
    if not chain.methods:
        return html.absent(title, "No model is evaluated", "python eval.py CONFIG method=basic")
    metrics = {name: chain.metrics[stage] for name, stage in chain.methods.items()}
    colors = {name: chain.colors[name] for name in metrics}
    base = class_bars(metrics, chain.names[1 : chain.num_known], colors, "base_miou")
    sides = [("Base classes", base)]
    if not chain.data.is_unknown:
        novel = class_bars(metrics, chain.novel_names, colors, "novel_miou")
        sides.insert(0, ("Novel classes, never labelled", novel))
    parts = html.side_by_side(sides)
    return html.section(title, "In per cent.", charts.legend(colors) + parts)


def learning(chain: Chain) -> str:
    """Losses of the trainings, and validation scores as they went."""
    title = "Training"
    stages = {"base model": "base", "basic": "basic", "EUMS": "eums"}
    stages |= {name: stage.removeprefix("eval_") for name, stage in chain.methods.items() if name not in METHODS}
    folders = {name: chain.folder / stage for name, stage in stages.items() if stage in chain.metrics}
    if not folders:
        return html.absent(title, "No model is trained", "python train_base.py CONFIG")
    called = {"easy": "clean", "consistency": "unclean"}
    losses = loss_charts(folders, KIND_COLORS, called)
    scores = []
    for group in ("novel", "base"):
        series = score_curves(folders, f"{group}_miou")
        drawn = charts.curves(series, chain.colors, "epoch", percent=True, width=540)
        scores += [(f"Validation mIoU, {group} classes", drawn)] if series else []
    parts = charts.legend({f"{kind} images": color for kind, color in KIND_COLORS.items()})
    parts += html.side_by_side([(f"Loss, {name}", chart) for name, chart in losses])
    parts += charts.legend({name: chain.colors[name] for name in folders})
    intro = "Losses as they enter the sum; on unclean images the teacher is the target. Scores in per cent."
    return html.section(title, intro, parts + html.side_by_side(scores))


# ---- many chains


def _row(stage: Stage) -> str | None:
    names = {folder: row for row, folder in (METHODS | BASELINES).items()}
    found = stage.name.startswith("eval_")
    return names.get(stage.name, stage.name.removeprefix("eval_")) if found else None


def _scores(stage: Stage) -> dict[str, float | None]:
    """All numbers of metrics.json but the mean that `table_means` leaves out, novel mIoU by epoch and, of generalised
    discovery, the harmonic mean and novel mIoU with many clusters to a class.
    """
    kept, mixed = {"miou"} if "all" in table_means(stage.metrics) else set(), _is_mixed(stage)
    found = {key: value for key, value in stage.metrics.items() if key != "miou" or key in kept} | _by_epoch(stage)
    if mixed and "novel_miou" in found:
        rows = [row for row in stage.metrics.get("compared", []) if row["matching"] == "official"]
        found |= {"harmonic": found["harmonic_miou"], "novel_many": rows[0]["novel_miou"] if rows else None}
    return found


def _is_mixed(stage: Stage) -> bool:
    return stage.config.get("data", {}).get("images") == "mixed"


def _by_epoch(stage: Stage) -> dict[str, float | None]:
    """novel_last, of the last epoch, and novel_best, of the epoch that validation labels chose; official matching."""
    rows = [row for row in stage.metrics.get("compared", []) if row["matching"] == "official"]
    novel = {row["model"]: row.get("novel_miou") for row in rows}
    if len(novel) == 1 and "given file" not in novel:  # they are one and the same epoch, or only one was asked for
        config = stage.config.get("evaluation", {})
        novel = dict.fromkeys(("last epoch", "best epoch"), *novel.values()) if config.get("compare", True) else novel
    return {f"novel_{name}": novel[f"{name} epoch"] for name in ("last", "best") if f"{name} epoch" in novel}


TABLE = ResultTable(
    columns=(
        Column("base mIoU", "base_miou"),
        Column("novel mIoU", "novel_miou"),
        Column("all mIoU", "miou"),
        Column("harmonic", "harmonic", optional=True),
        Column("novel, many to one", "novel_many", optional=True),
        Column("novel, last epoch", "novel_last", optional=True),
        Column("novel, best epoch", "novel_best", optional=True),
    ),
    main="novel mIoU",
    evaluated_by="eval.py",
    method=_row,
    scores=_scores,
    split=lambda config: Path(config.get("split", "")).stem,
    methods=(*METHODS, *BASELINES),
    variants=(  # of an ablation (scripts/discovery/ablations.sh)
        Column("purity", "purity", "pseudo"),
        Column("basic novel", "novel_miou", "eval_basic"),
        Column("EUMS novel", "novel_miou", "eval_eums"),
        Column("EUMS base", "base_miou", "eval_eums"),
    ),
    compared="EUMS novel",
    against="basic",
    published=DISCOVERY,
    paper="mean",
    whole=("fold0", "fold1", "fold2", "fold3"),
    paper_is="known for the mean of folds 0-3 only",
)
