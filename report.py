"""Show what a chain found: its table on the terminal, and one page with pictures and charts.

reads   the finished stages under <output_dir>/<split>/, and the data set
writes  <output_dir>/<split>/{report.html, gallery.png, table.md}

    python report.py configs/demo/ncdss.yaml
    python report.py configs/ncdss/pascal_subset.yaml split=fold1 data.root=/my/voc
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.discovery import Views
from data.io import read_image, read_label, voc_palette
from data.layouts import Sample, index_samples
from utils.checkpoint import atomic, read_json, read_list, write_text
from utils.config.reader import load_config
from utils.errors import UserError
from utils.report import charts, html, pictures, results
from utils.report.tables import HEADING, METHODS, chain_table, percent, table_figures
from utils.run import entry
from utils.run_folder import stage_dir

COMPARED = {"basic": "eval_basic", "EUMS": "eval_eums"}
PAPER = (
    "For orientation: on PASCAL-5i (ResNet-50, 512 × 512 pixels, mean of four folds) the paper reports a novel mIoU of "
    "49.81 for the basic framework and 59.09 for EUMS. That is another scale, which this run is not meant to reach."
)
COLUMNS = 6  # pictures in a gallery
CROPS = 10  # objects in a row
MOST_OBJECTS = 3000  # read for the figures per cluster


@dataclass(frozen=True)
class Chain:
    """The finished stages of one split, and the data they were made from."""

    views: Views
    folder: Path
    metrics: dict[str, dict[str, Any]]  # of finished stages only

    @property
    def novel_names(self) -> list[str]:
        return self.views.split.names[self.views.num_known :]

    @property
    def methods(self) -> dict[str, str]:
        """The evaluated ones of COMPARED."""
        return {method: stage for method, stage in COMPARED.items() if stage in self.metrics}

    @cached_property
    def clusters(self) -> dict[str, int]:
        """Image id -> cluster 1..K."""
        return read_json(self.folder / "pseudo" / "clusters.json")

    @cached_property
    def classes(self) -> dict[str, int]:
        """Image id -> novel class 1..n that covers most of its novel region, 0 for none; empty without masks.

        Of large sets evenly spaced images stand for all.
        """
        ids = sorted(self.clusters)
        try:
            samples = index_samples(self.views.root, ids[:: -(-len(ids) // MOST_OBJECTS)], fields=("image", "label"))
        except UserError:
            return {}
        full, known, found = self.views.split.full_map(), self.views.num_known, {}
        for sample in samples:
            region = self.novel_map(sample.id) > 0
            label = full(read_label(sample.label), where=str(sample.label))[region]
            counts = np.bincount(label, minlength=256)[known:255]
            found[sample.id] = int(counts.argmax()) + 1 if counts.any() else 0
        return found

    @cached_property
    def main_class(self) -> dict[int, tuple[int, float]]:
        """Cluster -> (the class that most of its objects have, their share); empty without masks."""
        return results.majority_class([(self.clusters[name], novel) for name, novel in self.classes.items()])

    def misplaced(self, name: str) -> bool:
        """Whether an object is known to be of another class than most of its cluster."""
        return name in self.classes and self.classes[name] != self.main_class[self.clusters[name]][0]

    def novel_map(self, name: str) -> np.ndarray:
        return read_label(self.folder / "pseudo" / "novel_map" / f"{name}.png")

    def crops(self, names: list[str]) -> list[str]:
        """The objects of some images as HTML, misplaced ones in a frame."""
        called, shown = ["no novel class", *self.novel_names], []
        for sample in index_samples(self.views.root, names, fields=("image",)):
            picture = pictures.crop_object(read_image(sample.image), self.novel_map(sample.id))
            title = f"{sample.id}: {called[self.classes[sample.id]]}" if sample.id in self.classes else sample.id
            shown.append(html.image(picture, "wrong" if self.misplaced(sample.id) else "", title))
        return shown


def headline(chain: Chain) -> str:
    """Figures first: tiles, then the table of all methods."""
    metrics = chain.metrics
    figures = [(percent(metrics[stage]["novel_miou"]), f"novel mIoU, {name}") for name, stage in chain.methods.items()]
    figures += [(percent(metrics[stage]["base_miou"]), f"base mIoU, {name}") for name, stage in chain.methods.items()]
    if "purity" in metrics.get("pseudo", {}):
        figures.append((percent(metrics["pseudo"]["purity"]), "cluster purity"))
    styles = {"basic": "", "EUMS": "best"}
    rows = [
        ([name, *table_figures(metrics.get(stage))], styles.get(name, "reference")) for name, stage in METHODS.items()
    ]
    table = html.table(HEADING, rows)
    bars = [
        (name, {group: metrics[stage].get(f"{group}_miou") for group in ("novel", "base")})
        for name, stage in METHODS.items()
        if stage in metrics
    ]
    colors = {group: charts.KIND_COLORS[group] for group in ("novel", "base")}
    chart = charts.legend(colors) + charts.bars(bars, colors) if bars else ""
    body = html.side_by_side([("", table), ("", chart)])
    missing = [name for name, stage in METHODS.items() if stage not in metrics]
    body += html.note(f"Not evaluated yet: {'; '.join(missing)}.") if missing else ""
    intro = (
        "Mean intersection over union in per cent, at the images' own size. Random and oracle labels are reference "
        "runs of the basic framework: clusters drawn at random, and every object in its true class."
    )
    return html.tiles(figures) + html.section("Results", intro, body + html.note(PAPER))


def choices(chain: Chain) -> str:
    """What validation labels decide: the epoch of the best model, and the matching of clusters to classes."""
    rows = []
    for method, stage in chain.methods.items():
        for row in chain.metrics[stage].get("compared", []):
            chosen = row["model"].startswith("best") and row["matching"] == "official"
            name = f"{method}, {row['model']}, {row['matching'].replace('_', ' ')} matching"
            rows.append(([name, *table_figures(row)], "" if chosen else "reference"))
    if not rows:
        return ""
    intro = (
        "The published protocol takes the epoch with the best novel mIoU on the validation images, and matches each "
        "cluster to the class with the largest IoU there. In grey: the last epoch, and one cluster per class."
    )
    table = html.table(HEADING, rows)
    return html.section("What validation labels decide", intro, table)


def pick_images(samples: list[Sample], novel: tuple[int, ...], count: int) -> list[Sample]:
    """The first images of a list that show each novel class in turn at a fair size, next to a base class if possible.

    Results play no part. Without any such image, the first ones.
    """
    rounds = -(-count // len(novel))
    found: dict[int, list[tuple[bool, int]]] = {value: [] for value in novel}
    for place, sample in enumerate(samples[:1000]):
        label = read_label(sample.label)
        shares = np.bincount(label.ravel(), minlength=256)[:255] / label.size
        alone = not any(share > 0.03 for value, share in enumerate(shares) if value and value not in novel)
        for value in novel:
            if 0.04 < shares[value] < 0.5:
                found[value].append((alone, place))
        if all(sum(not alone for alone, _ in places) >= rounds for places in found.values()):
            break
    chosen: list[int] = []
    for _ in range(rounds):
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
        command = "python eval.py CONFIG method=eums save_predictions=true resume=false"
        return html.absent(title, "No predictions are saved", command)
    masks = views.cfg.evaluation.label_folder
    samples = index_samples(views.root, views.lists.val, fields=("image", "label"), label_folder=masks)
    samples = [s for s in samples if all((folder / f"{s.id}.png").exists() for folder in folders.values())]
    samples = pick_images(samples, split.novel, COLUMNS)
    draw = partial(pictures.overlay, colors=voc_palette(), names=dict(enumerate(split.classes)), strong=split.novel)
    columns = []
    for sample in samples:
        image = read_image(sample.image)
        paths = [sample.label, *(folder / f"{sample.id}.png" for folder in folders.values())]
        columns.append([pictures.plain(image), *(draw(image, read_label(path)) for path in paths)])
    rows = ["image", "ground truth", *folders]
    legend = [(split.classes[value], voc_palette()[value]) for value in split.novel[:8]]
    with atomic(chain.folder / "gallery.png") as temporary:
        sheet = pictures.sheet(columns, rows, "novel, never labelled:", legend)
        Image.fromarray(sheet).save(temporary, "PNG", compress_level=4)
    intro = (
        "Validation images: the first of the list that show the novel classes in turn. White outlines and filled tags "
        "mark novel classes, which the network finds as clusters; a cluster takes the name of its matched class."
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
    novel = ("Novel classes, never labelled", chart(chain.novel_names, "novel"))
    parts = html.side_by_side([novel, ("Base classes", chart(base, "base"))])
    return html.section(title, "In per cent.", charts.legend(colors) + parts)


def training_gallery(chain: Chain) -> str:
    """From an unlabelled image to its pseudo label."""
    title, folder, views = "How pseudo labels are made", chain.folder / "pseudo", chain.views
    if "pseudo" not in chain.metrics:
        return html.absent(title, "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG")
    split, known, k = views.split, views.num_known, max(chain.clusters.values())
    fields = ("image", "saliency", *(["label"] if chain.classes else []))
    samples = index_samples(views.root, read_list(folder / "novel.txt"), fields=fields, missing="drop")
    samples = pick_images(samples, split.novel, COLUMNS) if chain.classes else samples[:COLUMNS]
    palette = voc_palette().copy()  # of the values in pseudo labels: base classes in their colours, then clusters
    palette[:known] = voc_palette()[split.original_ids[:known]]
    palette[known : known + k] = pictures.cluster_colors(k)
    names = [*split.names[:known], *(f"cluster {1 + cluster}" for cluster in range(k))]
    draw = partial(pictures.overlay, colors=palette, names=dict(enumerate(names)), strong=range(known, known + k))
    truth = partial(pictures.overlay, colors=voc_palette(), names=dict(enumerate(split.classes)), strong=split.novel)
    columns = []
    for sample in samples:
        image = read_image(sample.image)
        cells = [pictures.plain(image), *([truth(image, read_label(sample.label))] if sample.label else [])]
        cells += [pictures.spotlight(image, mask) for mask in (read_label(sample.saliency), chain.novel_map(sample.id))]
        columns.append([*cells, draw(image, read_label(folder / "pseudo_labels" / f"{sample.id}.png"))])
    rows = ["image", *(["ground truth, not used"] if chain.classes else []), "saliency", "base removed", "pseudo label"]
    intro = (
        "Novel training images. What is salient and not certainly of a base class counts as one novel object; k-means "
        "on the mean features of these objects gives the clusters that label their pixels."
    )
    captions = [f"{sample.id}, cluster {chain.clusters[sample.id]}" for sample in samples]
    return html.section(title, intro, html.gallery(columns, rows, captions))


def clusters(chain: Chain) -> str:
    """A contact sheet: some objects of every cluster."""
    title = "What the clusters hold"
    if "pseudo" not in chain.metrics:
        return html.absent(title, "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG")
    members: dict[int, list[str]] = {}
    for name, cluster in sorted(chain.clusters.items()):
        members.setdefault(cluster, []).append(name)
    called, colors = ["no novel class", *chain.novel_names], pictures.cluster_colors(max(members))
    cards = []
    for cluster in sorted(members, key=lambda c: (chain.main_class.get(c, (0, 0))[0], c)):
        names = members[cluster]
        shown = [names[i] for i in np.linspace(0, len(names) - 1, min(CROPS, len(names))).astype(int)]
        text = f"{len(names)} objects"
        if cluster in chain.main_class:
            novel, share = chain.main_class[cluster]
            text += f", {100 * share:.0f} % {called[novel]}"
        color = "#" + bytes(colors[cluster - 1].tolist()).hex()
        cards.append(html.crops(f"Cluster {cluster}", text, chain.crops(shown), color))
    intro = (
        "Objects at even distances in each cluster; clusters sorted by the class of most of their objects. In orange "
        "frames: objects of another class. The classes come from the masks, which clustering never saw."
    )
    return html.section(title, intro, html.clusters(cards))


def confusion(chain: Chain) -> str:
    """Which output fires on which class, with the class that each cluster was matched to."""
    title, known, names = "Confusion and matching", chain.views.num_known, chain.views.split.names
    if not chain.methods:
        return html.absent(title, "No model is evaluated", "python eval.py CONFIG method=basic")
    parts, full = [], ""
    for method, stage in chain.methods.items():
        matrix = np.load(chain.folder / stage / "confusion.npy")
        order = results.cluster_order(chain.metrics[stage]["match"], matrix.shape[1] - known)
        columns = [cluster for cluster, _ in order]
        outputs = [f"{cluster + 1} → {names[known + novel] if novel >= 0 else 'none'}" for cluster, novel in order]
        pairs = {(novel, place) for place, (_, novel) in enumerate(order) if novel >= 0}
        coarse, shares = ["background", "any base"], results.collapse_confusion(matrix, known, columns)
        framed = {(2 + row, 2 + column) for row, column in pairs}
        drawn = charts.heat_map(shares, [*coarse, *names[known:]], [*coarse, *outputs], framed)
        parts.append((method, drawn))
        framed = {(known + row, known + column) for row, column in pairs}
        shares = results.arrange_confusion(matrix, known, columns)
        full += html.disclosure(
            f"{method}, all classes", charts.heat_map(shares, names, [*names[:known], *outputs], framed, width=1140)
        )
    intro = (
        "Rows are true classes, columns outputs of the network; numbers are shares of the class's pixels in per cent. "
        "Columns name each cluster and the novel class it is matched to; orange frames mark these pairs."
    )
    return html.section(title, intro, html.side_by_side(parts) + full)


def ranking(chain: Chain) -> str:
    """Entropy of the novel images, and where clean ends."""
    title, folder = "Clean and unclean pseudo labels", chain.folder / "ranking"
    if "ranking" not in chain.metrics:
        return html.absent(title, "The images are not ranked yet", "python entropy_rank.py CONFIG")
    entropy = read_json(folder / "entropy.json")
    lists = {"clean": read_list(folder / "easy_split.txt"), "unclean": read_list(folder / "hard_split.txt")}
    ranked = {kind: [name for name in names if entropy[name] is not None] for kind, names in lists.items()}
    values = {kind: [entropy[name] for name in names] for kind, names in ranked.items()}
    intro = (
        "Entropy of the basic model on the pseudo-labelled object of every novel image. EUMS trusts the pseudo labels "
        "left of the line; on the images right of it the student follows its moving-average teacher."
    )
    if not any(values.values()):
        return html.section(title, intro, html.note("No image has an object to rank."))
    split = results.split_point(*values.values())
    chart = charts.histogram(values, charts.KIND_COLORS, "entropy", split)
    if "pseudo" not in chain.metrics:
        return html.section(title, intro, chart)
    everything = [*ranked["clean"], *ranked["unclean"]]
    ends = html.crops("Lowest entropy", "", chain.crops(everything[:CROPS]))
    ends += html.crops("Highest entropy", "", chain.crops(everything[::-1][:CROPS]))
    wrong = {kind: [chain.misplaced(name) for name in names if name in chain.classes] for kind, names in lists.items()}
    shares = [f"{100 * np.mean(flags):.0f} % of the {kind}" for kind, flags in wrong.items() if flags]
    if shares:
        ends += html.note(f"Objects of another class than most of their cluster: {', '.join(shares)}.")
    return html.section(title, intro, html.side_by_side([("", chart), ("", ends)]))


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
        train = {called.get(loss, loss): charts.thin(points) for loss, points in train.items() if loss != "loss"}
        if train:
            losses.append((f"Loss, {name}", charts.curves(train, charts.KIND_COLORS, "step")))
        for group, curves in scores.items():
            curves[name] = val.get(f"{group}_miou", [])
    drawn = [
        (
            f"Validation mIoU, {group} classes",
            charts.curves(curves, charts.METHOD_COLORS, "epoch", percent=True, width=540),
        )
        for group, curves in scores.items()
        if any(curves.values())
    ]
    parts = charts.legend({f"{kind} images": color for kind, color in charts.KIND_COLORS.items()})
    parts += html.side_by_side(losses) + charts.legend({name: charts.METHOD_COLORS[name] for name in stages})
    intro = "Losses as they enter the sum; on unclean images the teacher is the target. Scores in per cent."
    return html.section(title, intro, parts + html.side_by_side(drawn))


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    folder = stage_dir(cfg, "report").parent
    metrics = results.finished_stages(folder)
    chain = Chain(Views.open(cfg), folder, metrics)
    rows = [(name, metrics.get(stage)) for name, stage in METHODS.items()]
    write_text(folder / "table.md", chain_table(rows, "markdown") + "\n")
    parts = [headline, validation_gallery, class_scores, training_gallery, clusters, confusion, choices]
    parts += [ranking, learning]
    split = chain.views.split
    facts = f"{cfg.model.backbone}, {split.num_base} labelled base classes; never labelled:"
    lead = html.chips(facts, chain.novel_names)
    title = f"Novel class discovery: {Path(cfg.data.dataset).name}, {split.name}"
    write_text(folder / "report.html", html.page(title, lead, [part(chain) for part in parts]))
    print(chain_table(rows))
    print(f"\nwith pictures: {folder / 'report.html'}")


if __name__ == "__main__":
    entry(main)
