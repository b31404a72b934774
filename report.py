"""Show what a chain found: the table on the terminal, and one page with pictures and charts.

reads   the finished stages under <output_dir>/<split>/, and the data set
writes  <output_dir>/<split>/{report.html, gallery.png, table.md}

    python report.py configs/demo/ncdss.yaml
    python report.py configs/ncdss/pascal_subset.yaml split=fold1 data.root=/my/voc
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.io import read_image, read_label, voc_palette
from data.layouts import Sample, voc_index
from data.views import Views
from utils import charts, pictures, results
from utils import html_report as html
from utils.checkpoint import atomic, read_json, read_list, write_text
from utils.config import load_config
from utils.errors import UserError
from utils.reports import chain_table, percent, table_figures
from utils.run import entry, stage_dir

TABLE = {  # row of the table -> stage
    "base model": "eval_base",
    "basic, random labels": "eval_basic_random",
    "basic": "eval_basic",
    "EUMS": "eval_eums",
    "basic, oracle labels": "eval_basic_oracle",
}
METHODS = {"basic": "eval_basic", "EUMS": "eval_eums"}
PAPER = (
    "For orientation: the paper reports a novel mIoU of 49.81 (basic) and 59.09 (EUMS) on PASCAL-5i, as the mean of four folds "
    "with ResNet-50 at 512 × 512 pixels. Those figures hold for that data set at that scale and are no target for this run."
)
COLUMNS = 6  # pictures in a gallery
CROPS = 10  # pictures of a cluster
MOST_OBJECTS = 3000  # read for the figures per cluster


@dataclass(frozen=True)
class Chain:
    """The finished stages of one split, and the data they were made from."""

    views: Views
    folder: Path
    metrics: dict[str, dict[str, Any]]

    @property
    def novel_names(self) -> list[str]:
        return self.views.split.names[self.views.num_known :]

    @property
    def methods(self) -> dict[str, str]:
        """The evaluated ones of METHODS."""
        return {method: stage for method, stage in METHODS.items() if stage in self.metrics}

    @cached_property
    def objects(self) -> dict[str, tuple[int, int]]:
        """Image id -> (cluster 1..K, true novel class 1..n; 0 is none) of the clustered images; empty without masks.

        The class that covers most of the image's novel region; of large sets evenly spaced images stand for all.
        """
        clusters = read_json(self.folder / "pseudo" / "clusters.json")
        ids = sorted(clusters)[:: -(-len(clusters) // MOST_OBJECTS)]
        try:
            samples = voc_index(self.views.root, ids, fields=("image", "label"))
        except UserError:
            return {}
        full, known, found = self.views.split.full_map(), self.views.num_known, {}
        for sample in samples:
            region = read_label(self.folder / "pseudo" / "novel_map" / f"{sample.id}.png") > 0
            label = full(read_label(sample.label), where=str(sample.label))[region]
            counts = np.bincount(label, minlength=256)[known:255]
            found[sample.id] = clusters[sample.id], int(counts.argmax()) + 1 if counts.any() else 0
        return found


def headline(chain: Chain) -> str:
    """Figures first: tiles, then the table of all methods."""
    metrics = chain.metrics
    figures = [(percent(metrics[stage]["novel_miou"]), f"novel mIoU, {name}") for name, stage in chain.methods.items()]
    if "eval_eums" in metrics:
        figures.append((percent(metrics["eval_eums"]["base_miou"]), "base mIoU, EUMS"))
    if "purity" in metrics.get("pseudo", {}):
        figures.append((percent(metrics["pseudo"]["purity"]), "cluster purity: objects of their cluster's main class"))
    styles = {"basic": "", "EUMS": "best"}
    rows = [([name, *table_figures(metrics.get(stage))], styles.get(name, "reference")) for name, stage in TABLE.items()]
    intro = (
        "Intersection over union, mean over classes, in per cent, at the images' own size. Random and oracle labels are "
        "reference runs: the basic framework with clusters drawn at random, and with every object in its true class."
    )
    body = html.table(["method", "base mIoU", "novel mIoU", "all mIoU"], rows)
    missing = [name for name, stage in TABLE.items() if stage not in metrics]
    if missing:
        body += html.note(f"Not evaluated yet: {'; '.join(missing)}.")
    return html.tiles(figures) + html.section("Results", intro, body + html.note(PAPER))


def pick_images(samples: list[Sample], novel: tuple[int, ...], count: int) -> list[Sample]:
    """The first images of a list that show each novel class in turn at a fair size, next to a base class where possible.

    Nothing about the results plays a part.
    """
    rounds = -(-count // len(novel))
    found: dict[int, list[tuple[bool, int]]] = {value: [] for value in novel}
    for place, sample in enumerate(samples[:1000]):
        label = read_label(sample.label)
        shares = np.bincount(label.ravel(), minlength=256)[:255] / label.size
        for value in novel:
            if 0.04 < shares[value] < 0.5:
                alone = not any(share > 0.03 for other, share in enumerate(shares) if other and other not in novel)
                found[value].append((alone, place))
        if all(sum(not alone for alone, _ in places) >= rounds for places in found.values()):
            break
    chosen: list[int] = []
    for turn in range(rounds):
        for places in found.values():
            rest = [place for _, place in sorted(places) if place not in chosen]
            chosen += rest[:1]
    return [samples[place] for place in chosen[:count]] or samples[:count]


def validation_gallery(chain: Chain) -> str:
    """Truth and predictions side by side, also as gallery.png."""
    title, views, split = "What the networks see", chain.views, chain.views.split
    folders = {name: chain.folder / stage / "predictions" for name, stage in chain.methods.items()}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        return html.absent(title, "No predictions are saved", "python eval.py CONFIG method=eums save_predictions=true")
    samples = voc_index(views.root, views.lists.val, fields=("image", "label"), label_folder=views.cfg.evaluation.label_folder)
    names, palette, columns = dict(enumerate(split.classes)), voc_palette(), []
    samples = [s for s in samples if all((folder / f"{s.id}.png").exists() for folder in folders.values())]
    samples = pick_images(samples, split.novel, COLUMNS)
    for sample in samples:
        image = read_image(sample.image)
        labels = [read_label(path) for path in (sample.label, *(folder / f"{sample.id}.png" for folder in folders.values()))]
        columns.append([pictures.plain(image), *(pictures.overlay(image, lb, palette, names, split.novel) for lb in labels)])
    rows = ["image", "ground truth", *folders]
    legend = [(split.classes[value], palette[value]) for value in split.novel[:10]]
    with atomic(chain.folder / "gallery.png") as temporary:
        Image.fromarray(pictures.sheet(columns, rows, "never labelled:", legend)).save(temporary, "PNG", optimize=True)
    intro = (
        "Validation images, the first of the list that show the novel classes in turn. Bright tags and white outlines mark "
        "novel classes: the network segments them as clusters, and each cluster takes the name of the class it overlaps most."
    )
    return html.section(title, intro, html.gallery(columns, rows, [sample.id for sample in samples]))


def class_scores(chain: Chain) -> str:
    """IoU of every class, basic beside EUMS, novel and base classes apart."""
    title = "IoU of every class"
    if not chain.methods:
        return html.absent(title, "No model is evaluated", "python eval.py CONFIG method=basic")
    metrics = {name: chain.metrics[stage] for name, stage in chain.methods.items()}
    colors = {name: charts.METHOD_COLORS[name] for name in metrics}

    def chart(names: list[str], group: str) -> str:
        rows = [(name, {method: m["per_class"][name] for method, m in metrics.items()}) for name in names]
        rows.append(("mean", {method: m[f"{group}_miou"] for method, m in metrics.items()}))
        return charts.bars(rows, colors, strong=1)

    base = chain.views.split.names[1 : chain.views.num_known]
    parts = [("Novel classes, discovered", chart(chain.novel_names, "novel")), ("Base classes, labelled", chart(base, "base"))]
    return html.section(title, "In per cent, from 0 to 100.", charts.legend(colors) + html.side_by_side(parts))


def training_gallery(chain: Chain) -> str:
    """From an unlabelled image to its pseudo label."""
    title, folder, views = "How pseudo labels are made", chain.folder / "pseudo", chain.views
    if "pseudo" not in chain.metrics:
        return html.absent(title, "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG")
    samples = voc_index(views.root, read_list(folder / "novel.txt"), fields=("image", "saliency"), missing="drop")
    if chain.objects:
        labels = {s.id: s.label for s in voc_index(views.root, [s.id for s in samples], fields=("image", "label"))}
        samples = pick_images([replace(s, label=labels[s.id]) for s in samples], views.split.novel, COLUMNS)
    samples = samples[:COLUMNS]
    clusters, names, palette, columns, captions = read_json(folder / "clusters.json"), *pseudo_look(chain), [], []
    strong = range(views.num_known, views.num_known + views.cfg.cluster.k)
    for sample in samples:
        image = read_image(sample.image)
        cells = [pictures.plain(image)]
        if sample.label:
            truth = dict(enumerate(views.split.classes))
            cells.append(pictures.overlay(image, read_label(sample.label), voc_palette(), truth, views.split.novel))
        for path in (sample.saliency, folder / "novel_map" / f"{sample.id}.png"):
            cells.append(pictures.spotlight(image, read_label(path)))
        pseudo = read_label(folder / "pseudo_labels" / f"{sample.id}.png")
        cells.append(pictures.overlay(image, pseudo, palette, names, strong))
        columns.append(cells)
        captions.append(f"{sample.id}, cluster {clusters[sample.id]}")
    truth = ["ground truth (not used)"] if samples[0].label else []
    rows = ["image", *truth, "saliency", "base classes removed", "pseudo label"]
    intro = (
        "Novel training images. What is salient and not certainly a base class is taken for one novel object; k-means on its "
        "mean feature gives the cluster that its pixels are labelled with."
    )
    return html.section(title, intro, html.gallery(columns, rows, captions))


def pseudo_look(chain: Chain) -> tuple[dict[int, str], np.ndarray]:
    """(names, colours [256, 3]) of the values in pseudo labels: base classes as everywhere, then clusters."""
    split, known, k = chain.views.split, chain.views.num_known, chain.views.cfg.cluster.k
    names = dict(enumerate(split.names[:known])) | {known + j: f"cluster {j + 1}" for j in range(k)}
    palette = voc_palette().copy()
    palette[:known] = voc_palette()[split.original_ids[:known]]
    palette[known : known + k] = pictures.cluster_colors(k)
    return names, palette


def clusters(chain: Chain) -> str:
    """A contact sheet: some objects of every cluster."""
    title, folder = "What the clusters hold", chain.folder / "pseudo"
    if "pseudo" not in chain.metrics:
        return html.absent(title, "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG")
    members: dict[int, list[str]] = {}
    for name, cluster in sorted(read_json(folder / "clusters.json").items()):
        members.setdefault(cluster, []).append(name)
    main = results.majority_class(*np.array(list(chain.objects.values())).T) if chain.objects else {}
    called = ["no novel class", *chain.novel_names]
    colors, cards = pictures.cluster_colors(chain.views.cfg.cluster.k), []
    for cluster in sorted(members, key=lambda c: (*main.get(c, (0, 0))[:1], c)):
        names = members[cluster]
        crops = []
        for sample in voc_index(chain.views.root, names[:: -(-len(names) // CROPS)][:CROPS], fields=("image",)):
            mask = read_label(folder / "novel_map" / f"{sample.id}.png")
            truth = chain.objects.get(sample.id, (0, -1))[1]
            wrong = cluster in main and truth != -1 and truth != main[cluster][0]
            crop = pictures.crop_object(read_image(sample.image), mask)
            crops.append(html.image(crop, "wrong" if wrong else "", sample.id + (f": {called[truth]}" if wrong else "")))
        share = f", {100 * main[cluster][1]:.0f} % {called[main[cluster][0]]}" if cluster in main else ""
        color = "#" + bytes(colors[cluster - 1].tolist()).hex() if cluster else "#fff"
        cards.append(html.card(color, f"Cluster {cluster}", f"{len(names)} objects{share}", crops))
    intro = (
        "Objects at even distances in each cluster, sorted by the class that most of its objects have. An orange frame: the "
        "object is of another class. Classes are known here only because the masks are; clustering never saw them."
    )
    return html.section(title, intro, html.cards(cards))


def confusion(chain: Chain) -> str:
    """Which output fires on which class, with the class that each cluster was matched to."""
    title, known, names = "Confusion, and what each cluster is taken for", chain.views.num_known, chain.views.split.names
    if not chain.methods:
        return html.absent(title, "No model is evaluated", "python eval.py CONFIG method=basic")
    parts, full = [], ""
    for method, stage in chain.methods.items():
        matrix = np.load(chain.folder / stage / "confusion.npy")
        order = results.cluster_order(chain.metrics[stage]["match"], matrix.shape[1] - known)
        outputs = [f"{cluster + 1} → {names[known + novel] if novel >= 0 else 'none'}" for cluster, novel in order]
        columns = [cluster for cluster, _ in order]
        matched = {(novel, place) for place, (_, novel) in enumerate(order) if novel >= 0}

        def draw(shares, true, predicted, width, offset, matched=matched):
            marked = {(offset + row, offset + column) for row, column in matched}
            return charts.heat_map(shares, true, predicted, marked, width)

        small = results.collapse_confusion(matrix, known, columns)
        coarse = ["background", "any base"]
        parts.append((method, draw(small, [*coarse, *names[known:]], [*coarse, *outputs], 560, 2)))
        shares = results.arrange_confusion(matrix, known, columns)
        full = html.disclosure(f"All classes ({method})", draw(shares, names, [*names[:known], *outputs], 1150, known))
    intro = (
        "Rows are true classes, columns outputs of the network; a cell is the share of the class's pixels in per cent. "
        "Columns name the cluster and the novel class it is matched to; frames mark these pairs."
    )
    return html.section(title, intro, html.side_by_side(parts) + full)


def ranking(chain: Chain) -> str:
    """Entropy of the novel images, and where clean ends."""
    title, folder = "Clean and unclean pseudo labels", chain.folder / "ranking"
    if "ranking" not in chain.metrics:
        return html.absent(title, "The images are not ranked yet", "python entropy_rank.py CONFIG")
    entropy = read_json(folder / "entropy.json")
    lists = {"clean": read_list(folder / "easy_split.txt"), "unclean": read_list(folder / "hard_split.txt")}
    values = {name: [entropy[i] for i in ids if entropy.get(i) is not None] for name, ids in lists.items()}
    intro = (
        "Entropy of the basic model on the pseudo-labelled object of every novel image. EUMS trusts the pseudo labels left of "
        "the line; right of it the student learns from its moving-average teacher."
    )
    if not any(values.values()):
        return html.section(title, intro, html.note("No image has an object to rank."))
    colors = {name: charts.LOSS_COLORS[name] for name in lists}
    body = charts.histogram(values, colors, results.split_point(entropy, *lists.values()))
    if chain.objects and "pseudo" in chain.metrics:
        main = results.majority_class(*np.array(list(chain.objects.values())).T)
        wrong = {name: [main[chain.objects[i][0]][0] != chain.objects[i][1] for i in ids if i in chain.objects] for name, ids in lists.items()}
        shares = [f"{100 * np.mean(flags):.0f} % of the {name}" for name, flags in wrong.items() if flags]
        body += html.note(f"Objects that are not of their cluster's main class: {', '.join(shares)} images.")
    return html.section(title, intro, body)


def learning(chain: Chain) -> str:
    """Losses of the three trainings, and validation scores as they went."""
    title = "Training"
    stages = {"base model": "base", "basic": "basic", "EUMS": "eums"}
    stages = {name: stage for name, stage in stages.items() if stage in chain.metrics}
    if not stages:
        return html.absent(title, "No model is trained", "python train_base.py CONFIG")
    called = {"easy": "clean", "consistency": "unclean"}
    losses, scores = [], {"novel": {}, "base": {}}
    for name, stage in stages.items():
        train, val = results.read_history(chain.folder / stage / "history.jsonl")
        train = {called.get(loss, loss): charts.thin(points) for loss, points in train.items()}
        if train:
            losses.append((f"Loss, {name}", charts.curves(train, charts.LOSS_COLORS, "step")))
        for group, curves in scores.items():
            curves[name] = val.get(f"{group}_miou", [])
    drawn = [
        (f"Validation mIoU, {group} classes", charts.curves(curves, charts.METHOD_COLORS, "epoch", percent=True, width=540))
        for group, curves in scores.items()
        if any(curves.values())
    ]
    parts = charts.legend(charts.LOSS_COLORS) + html.side_by_side(losses)
    parts += charts.legend({name: charts.METHOD_COLORS[name] for name in stages}) + html.side_by_side(drawn)
    intro = "Losses by kind of image, as they enter the sum; unclean ones learn from the teacher. Scores at network resolution, per cent."
    return html.section(title, intro, parts)


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__)
    folder = stage_dir(cfg, "report").parent
    chain = Chain(Views.open(cfg), folder, results.finished_stages(folder))
    rows = [(name, chain.metrics.get(stage)) for name, stage in TABLE.items()]
    write_text(folder / "table.md", chain_table(rows, markdown=True) + "\n")
    sections = (headline, validation_gallery, class_scores, training_gallery, clusters, confusion, ranking, learning)
    lead = html.chips(f"{cfg.model.backbone}, {chain.views.split.num_base} labelled base classes; never labelled:", chain.novel_names)
    title = f"Novel class discovery: {Path(cfg.data.dataset).name}, {chain.views.split.name}"
    write_text(folder / "report.html", html.page(title, lead, [section(chain) for section in sections]))
    print(chain_table(rows))
    print(f"\n{folder / 'report.html'}")


if __name__ == "__main__":
    entry(main)
