"""Novel class discovery: the page of a chain."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.classes import is_shipped
from data.io import read_image, voc_palette
from reports.discovery.chain import KIND_COLORS, REFERENCES, Chain
from reports.discovery.clusters import cluster_rows, clusters, confusion, ranking, training_gallery
from reports.discovery.table import HEADING, METHODS, table_cells
from reports.discovery.unknown import how_many, labelled_gallery, naming
from reports.page import PICTURES, Page, Shown, class_scores, loss_charts, results, saved_predictions, score_curves
from utils.checkpoint import atomic
from utils.cluster_names import DROP
from utils.config.discovery import DiscoveryConfig
from utils.report import charts, html, pictures
from utils.report.tables import Rows, percent

GALLERY = "gallery.png"
PAPER = (
    "For orientation: on PASCAL-5i (ResNet-50, 512 × 512 pixels, mean of four folds) the paper reports a novel mIoU of "
    "49.81 for the basic framework and 59.09 for EUMS. That is another scale, which this run is not meant to reach."
)
KNOWN = (
    "Mean intersection over union in per cent, at the images' own size. Random and oracle labels are reference runs of "
    "the basic framework: clusters drawn at random, and every object in its true class."
)
UNKNOWN = (
    "Mean intersection over union of the labelled classes in per cent, at the images' own size. Unknown classes have "
    "no score: see them below. The last epoch is taken, because labelled classes cannot choose one."
)


def page(cfg: DiscoveryConfig) -> Page:
    """Results, predictions, clusters and training of one split.

    Raises UserError if no stage is finished, or if the data set cannot be read.
    """
    chain = Chain.open(cfg)
    parts = [headline, validation_gallery, classes, training_gallery, clusters, confusion, choices]
    facts = f"{cfg.model.backbone}, {chain.num_known - 1} labelled base classes; never labelled:"
    names = chain.novel_names
    if chain.data.is_unknown:
        parts = [headline, naming, how_many, labelled_gallery, classes, training_gallery, confusion]
        names = sorted(set((chain.data.cluster_names or {}).values()) - {DROP}) or ["not named yet"]
    return Page(
        title=f"Novel class discovery: {Path(cfg.data.dataset).name}, {Path(cfg.split).stem}",
        lead=html.chips(facts, names),
        sections=[part(chain) for part in (*parts, ranking, learning)],
        tables={"": methods_table(chain)},
        folder=chain.folder,
        pictures=board_pictures(chain),
    )


def methods_table(chain: Chain) -> Rows:
    """Base, novel and all mIoU of every row, "-" for a stage that is not evaluated yet."""
    return [HEADING, *([name, *table_cells(chain.metrics.get(stage))] for name, stage in chain.shown_rows.items())]


def board_pictures(chain: Chain) -> dict[str, np.ndarray]:
    """For TensorBoard: objects of each cluster, and the gallery of predictions if there is one."""
    gallery = chain.folder / GALLERY
    found = {"predictions": read_image(gallery)} if gallery.is_file() else {}
    return found | (cluster_rows(chain) if "pseudo" in chain.metrics else {})


def headline(chain: Chain) -> str:
    """Results first: tiles, the table of all methods, bars of novel and base classes."""
    metrics, rows, unknown = chain.metrics, chain.shown_rows, chain.data.is_unknown
    pseudo = metrics.get("pseudo", {})
    novel = [
        (percent(metrics[stage].get("novel_miou")), f"novel mIoU, {name}") for name, stage in chain.methods.items()
    ]
    base = [(percent(metrics[stage]["base_miou"]), f"base mIoU, {name}") for name, stage in chain.methods.items()]
    purity = [(percent(pseudo["purity"]), "cluster purity")] if "purity" in pseudo else []
    counts = [(str(pseudo.get("k", "-")), "clusters"), (str(pseudo.get("kept", "-")), "objects clustered")]
    groups = ("base",) if unknown else ("novel", "base")
    evaluated = {name: metrics[stage] for name, stage in rows.items() if stage in metrics}
    missing = [name for name in rows if name not in evaluated]
    return results(
        UNKNOWN if unknown else KNOWN,
        [*novel, *base, *purity, *(counts if unknown else [])],
        methods_table(chain),
        styles=dict.fromkeys(REFERENCES, "reference") | {"EUMS": "best"},
        bars=[(name, {group: m.get(f"{group}_miou") for group in groups}) for name, m in evaluated.items()],
        colors={group: KIND_COLORS[group] for group in groups},
        notes=[
            *([f"Not evaluated yet: {'; '.join(missing)}."] if missing else []),
            *([PAPER] if is_shipped(chain.data.cfg.data.dataset) else []),
        ],
    )


def choices(chain: Chain) -> str:
    """Effect of the choices made on validation labels: the epoch, and the matching of clusters to classes."""
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
    """Ground truth and predictions on validation images, also written to gallery.png."""
    novel, folders = chain.novel_numbers, {name: chain.folder / stage for name, stage in chain.methods.items()}
    folders = saved_predictions(folders)
    if not folders:
        command = "python eval.py CONFIG method=eums save_predictions=true resume=false"
        return html.absent(PICTURES, "No predictions are saved", command)
    masks = chain.data.cfg.evaluation.label_folder
    shown = Shown(chain.samples(chain.data.lists.val, "label", label_folder=masks), chain.classes, novel)
    columns, rows, captions = shown.columns(folders)
    legend = [(chain.classes[value], voc_palette()[value]) for value in novel[:8]]
    with atomic(chain.folder / GALLERY) as temporary:
        sheet = pictures.sheet(columns, rows, "novel, never labelled:", legend)
        Image.fromarray(sheet).save(temporary, "PNG", compress_level=4)
    intro = (
        "Validation images: the first of the list that show the novel classes in turn. White outlines and filled tags "
        "mark novel classes, which the network finds as clusters; a cluster takes the name of its matched class."
    )
    return html.section(PICTURES, intro, html.gallery(columns, rows, captions))


def classes(chain: Chain) -> str:
    """IoU of every class, methods side by side, novel and base classes apart."""
    if not chain.methods:
        return html.absent("IoU of every class", "No model is evaluated", "python eval.py CONFIG method=basic")
    kinds = {
        "Novel classes, never labelled": (chain.novel_names, "novel_miou"),
        "Base classes": (chain.names[1 : chain.num_known], "base_miou"),
    }
    if chain.data.is_unknown:
        del kinds["Novel classes, never labelled"]
    metrics = {name: chain.metrics[stage] for name, stage in chain.methods.items()}
    return class_scores(metrics, {name: chain.colors[name] for name in metrics}, kinds)


def learning(chain: Chain) -> str:
    """Losses of the trainings over steps, validation scores over epochs."""
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
