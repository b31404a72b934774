"""Novel class discovery, the sections on clusters: pseudo-labels, cluster contents, confusion, clean and unclean."""

from functools import partial

import numpy as np

from data.gallery import COLUMNS, pick_images
from data.io import read_array, read_image, read_label, voc_palette
from reports.discovery.chain import (
    KIND_COLORS,
    Chain,
    collapse_confusion,
    split_point,
)
from reports.page import arrange_confusion, cluster_order, label_painter
from utils.checkpoint import read_as, read_json, read_list
from utils.cluster_names import Suggested, cluster_label
from utils.report import charts, html, pictures

CROPS = 10  # objects in a row
UNITS = {
    "image": "one novel object",
    "component": "novel objects, one for each connected part",
    "region": "novel objects, one for each part in a cell of alike features",
}
NOT_CLUSTERED = "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG"


def training_gallery(chain: Chain) -> str:
    """The steps from an unlabelled image to its pseudo-label."""
    title, folder, cluster = "How pseudo-labels are made", chain.folder / "pseudo", chain.data.cfg.cluster
    if "pseudo" not in chain.metrics:
        return html.absent(title, *NOT_CLUSTERED)
    known, k, masks = chain.num_known, max(chain.clusters.values()), bool(chain.true_class)
    fields = (*(["saliency"] if cluster.salient else []), *(["label"] if masks else []))
    where = {"missing": "drop", "saliency_folder": cluster.saliency_folder}
    samples = chain.samples(read_list(folder / "novel.txt"), *fields, **where)
    samples = pick_images(samples, chain.novel_numbers) if masks else samples[:COLUMNS]
    palette = voc_palette().copy()  # by value in pseudo-labels: base classes, then clusters
    palette[:known] = voc_palette()[chain.numbers[:known]]
    palette[known : known + k] = pictures.cluster_colors(k)
    given = chain.data.cluster_names or {}
    names = [*chain.names[:known], *(cluster_label(1 + number, given) for number in range(k))]
    draw = partial(pictures.overlay, colors=palette, names=dict(enumerate(names)), strong=range(known, known + k))
    truth, columns = label_painter(chain.classes, chain.novel_numbers), []
    for sample in samples:
        image, shown = read_image(sample.image), [chain.novel_map(sample.id)]
        cells = [pictures.plain(image), *([truth(image, sample.load_label())] if masks else [])]
        if sample.saliency:
            shown.insert(0, read_label(sample.saliency))
        cells += [pictures.spotlight(image, mask) for mask in shown]
        columns.append([*cells, draw(image, read_label(folder / "pseudo_labels" / f"{sample.id}.png"))])
    rows = ["image", *(["ground truth, not used"] if masks else []), *(["saliency"] if cluster.salient else [])]
    rows += ["base removed", "pseudo-label"]
    intro = (
        f"Novel training images. What is {'salient and ' if cluster.salient else ''}not certainly of a base class "
        f"counts as {UNITS[cluster.unit]}; k-means on the mean features of these objects gives the clusters that label "
        "their pixels."
    )
    captions = [f"{sample.id}, {_clusters_of(chain, sample.id)}" for sample in samples]
    return html.section(title, intro, html.gallery(columns, rows, captions))


def _clusters_of(chain: Chain, name: str) -> str:
    """The clusters of an image's objects as text."""
    found = sorted({chain.clusters[unit] for unit in chain.units[name]})
    return f"cluster{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def clusters(chain: Chain) -> str:
    """Objects of every cluster, at even distances."""
    title = "What the clusters hold"
    if "pseudo" not in chain.metrics:
        return html.absent(title, *NOT_CLUSTERED)
    members, path = chain.members, chain.folder / "pseudo" / "names.json"
    suggested = read_as(path, Suggested) if path.is_file() else {}
    colors = pictures.cluster_colors(max(members))
    cards = []
    for cluster in sorted(members, key=lambda c: (chain.main_class.get(c, (0, 0))[0], c)):
        units = members[cluster]
        shown = [units[i] for i in evenly(len(units))]
        text = f"{len(units)} objects"
        if cluster in chain.main_class:
            novel, share = chain.main_class[cluster]
            text += f", {100 * share:.0f} % {chain.class_name(novel)}"
        if str(cluster) in suggested:
            best = (f"{name} ({score:.2f})" for name, score in suggested[str(cluster)])
            text += f"; could be {', '.join(best)}"
        color = "#" + bytes(colors[cluster - 1].tolist()).hex()
        cards.append(html.crops(f"Cluster {cluster}", text, chain.crops(shown), color))
    intro = (
        "Objects at even distances in each cluster; clusters sorted by the class of most of their objects. In orange "
        "frames: objects of another class. The classes come from the masks, which clustering never saw."
    )
    if suggested:
        intro += (
            " What a cluster could be: the words whose predicted features (regressed from the base classes) are "
            "closest to the cluster mean, with the cosine (cluster.names=suggest)."
        )
    return html.section(title, intro, html.clusters(cards))


def cluster_rows(chain: Chain) -> dict[str, np.ndarray]:
    """Tag "clusters/3" -> objects of cluster 3 side by side, uint8 [h, n * h, 3]."""
    rows = {}
    for cluster, units in chain.members.items():
        shown = [units[i] for i in evenly(len(units))]
        samples = chain.samples([unit.image for unit in shown])
        regions = [chain.region(unit).astype(np.uint8) for unit in shown]
        crops = [pictures.crop_object(read_image(s.image), region) for s, region in zip(samples, regions, strict=True)]
        rows[f"clusters/{cluster}"] = np.concatenate(crops, axis=1)
    return rows


def evenly(count: int) -> list[int]:
    """At most CROPS indices below `count`, at even distances."""
    return np.linspace(0, count - 1, min(CROPS, count)).astype(int).tolist()


def confusion(chain: Chain) -> str:
    """Confusion of classes and outputs, with the class that each cluster is matched to."""
    title, known, names = "Confusion and matching", chain.num_known, chain.names
    if not chain.methods:
        return html.absent(title, "No model is evaluated", "python eval.py CONFIG method=basic")
    parts, full = [], ""
    for method, stage in chain.methods.items():
        matrix = read_array(chain.folder / stage / "confusion.npy")
        order = cluster_order(chain.metrics[stage]["match"], matrix.shape[1] - known)
        columns = [cluster for cluster, _ in order]
        given = chain.data.cluster_names or {}
        outputs = [
            f"{cluster + 1} → {names[known + novel] if novel >= 0 else given.get(cluster + 1, 'none')}"
            for cluster, novel in order
        ]
        pairs = {(novel, place) for place, (_, novel) in enumerate(order) if novel >= 0}
        coarse, shares = ["background", "any base"], collapse_confusion(matrix, known, columns)
        framed = {(2 + row, 2 + column) for row, column in pairs}
        drawn = charts.heat_map(shares, [*coarse, *names[known:]], [*coarse, *outputs], framed)
        parts.append((method, drawn))
        framed = {(known + row, known + column) for row, column in pairs}
        shares = arrange_confusion(matrix, known, columns)
        full += html.disclosure(
            f"{method}, all classes", charts.heat_map(shares, names, [*names[:known], *outputs], framed, width=1140)
        )
    intro = (
        "Rows are true classes, columns outputs of the network; numbers are shares of the class's pixels in per cent. "
        "Columns name each cluster and the novel class it is matched to; orange frames mark these pairs."
    )
    return html.section(title, intro, html.side_by_side(parts) + full)


def ranking(chain: Chain) -> str:
    """Entropy of the novel images, and the split into clean and unclean."""
    title, folder = "Clean and unclean pseudo-labels", chain.folder / "ranking"
    if "ranking" not in chain.metrics:
        return html.absent(title, "The images are not ranked yet", "python entropy_rank.py CONFIG")
    entropy = read_json(folder / "entropy.json")
    lists = {"clean": read_list(folder / "easy_split.txt"), "unclean": read_list(folder / "hard_split.txt")}
    ranked = {kind: [name for name in names if entropy[name] is not None] for kind, names in lists.items()}
    values = {kind: [entropy[name] for name in names] for kind, names in ranked.items()}
    intro = (
        "Entropy of the basic model on the pseudo-labelled object of every novel image. EUMS trusts the pseudo-labels "
        "left of the line; on the images right of it the student follows its moving-average teacher."
    )
    if not any(values.values()):
        return html.section(title, intro, html.note("No image has an object to rank."))
    chart = charts.histogram(values, KIND_COLORS, "entropy", split_point(*values.values()))
    if "pseudo" not in chain.metrics:
        return html.section(title, intro, chart)
    everything = [chain.units[name][0] for name in (*ranked["clean"], *ranked["unclean"])]  # the largest part of each
    ends = html.crops("Lowest entropy", "", chain.crops(everything[:CROPS]))
    ends += html.crops("Highest entropy", "", chain.crops(everything[::-1][:CROPS]))
    units = {kind: [unit for name in names for unit in chain.units[name]] for kind, names in lists.items()}
    wrong = {kind: [chain.misplaced(unit) for unit in of if unit in chain.true_class] for kind, of in units.items()}
    shares = [f"{100 * np.mean(flags):.0f} % of the {kind}" for kind, flags in wrong.items() if flags]
    if shares:
        ends += html.note(f"Objects of another class than most of their cluster: {', '.join(shares)}.")
    return html.section(title, intro, html.side_by_side([("", chart), ("", ends)]))
