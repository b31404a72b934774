"""Novel class discovery with unknown novel classes: the sections in which the user names the clusters."""

import csv
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from data.discovery.units import Unit, read_units
from data.gallery import COLUMNS
from data.io import read_image, read_label, voc_palette
from reports.discovery.chain import Chain
from utils.checkpoint import read_as, read_json, read_list
from utils.cluster_names import DROP, Suggested, cluster_label
from utils.report import charts, html, pictures

SURE, UNSURE = 8, 4  # objects of a cluster that are shown, with the best fit and with the worst
CROP, WHOLE = 132, 420  # pixels
STYLE = f"""<style>
.naming {{ border-top: 1px solid var(--line); padding: 12px 0 }}
.naming.never {{ opacity: .45 }}
.naming h3 {{ font-size: 14px }} .naming h3 span {{ color: var(--muted); font-weight: 400 }}
.naming h3 i {{ display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px }}
.naming input {{ font: inherit; padding: 3px 8px; width: min(220px, 60vw) }}
.objects {{ display: flex; flex-wrap: wrap; gap: 6px; margin-top: 8px }}
.objects summary {{ list-style: none; margin: 0 }} .objects details {{ margin: 0 }}
.objects summary::-webkit-details-marker {{ display: none }}
.objects .crop {{ width: {CROP}px; height: {CROP}px; border: 2px solid var(--line) }}
.objects .unsure .crop {{ border-style: dashed; border-color: #e2711d }}
.objects .whole {{ display: none }}
.objects details[open] .whole {{ display: block; position: fixed; inset: 5vmin; margin: auto; width: auto; z-index: 2;
  max-width: 90vmin; max-height: 90vmin; box-shadow: 0 0 0 100vmax rgba(0, 0, 0, .6); cursor: zoom-out }}
#naming-line {{ display: block; padding: 10px; overflow-wrap: anywhere; user-select: all }}
</style>"""
SCRIPT = """<script>
const fields = [...document.querySelectorAll('.naming input')], line = document.getElementById('naming-line');
function quoted(text) { return /^[\\w=.-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\\\''") + "'"; }
function write() {
  const given = fields.filter(field => field.value.trim());
  const words = given.map(field => quoted(field.dataset.cluster + '=' + field.value.trim()));
  line.textContent = [line.dataset.start, ...words].join(' ');
}
fields.forEach(field => field.addEventListener('input', write));
document.getElementById('naming-copy').addEventListener('click', () => navigator.clipboard.writeText(line.textContent));
write();
</script>"""


def naming(chain: Chain) -> str:
    """Every cluster with its objects and a field for its name, and the command that saves these names."""
    title = "What the clusters hold, and what they are"
    if "pseudo" not in chain.metrics:
        return html.absent(title, "The objects are not clustered yet", "python cluster_pseudolabel.py CONFIG")
    path = chain.folder / "pseudo" / "certainty.json"
    certainty = read_units(path, float) if path.is_file() else dict.fromkeys(chain.clusters, 0.0)
    members = chain.members
    count = chain.metrics["pseudo"].get("k", max(members))
    colors = pictures.cluster_colors(count)
    rows = [_cluster(chain, k, members.get(k, []), certainty, colors[k - 1]) for k in range(1, count + 1)]
    intro = (
        "One cluster after the other: the objects that fit it best, then, in dashed frames, those that fit it least. A "
        f"click shows the whole photograph. Write what each cluster is: one name for several merges them, '{DROP}' "
        "makes it background, the name of a labelled class is allowed. Then run the command below."
    )
    start = f"python name_clusters.py {chain.folder / 'pseudo' / 'config.yaml'}"
    command = f'<code id="naming-line" data-start="{escape(start)}"></code><button id="naming-copy">copy</button>'
    return html.section(title, intro, STYLE + "".join(rows) + command + SCRIPT)


def _cluster(chain: Chain, cluster: int, units: Sequence[Unit], certainty: dict[Unit, float], color: np.ndarray) -> str:
    units = sorted(units, key=lambda unit: -certainty.get(unit, 0.0))
    unsure = units[SURE:][-UNSURE:]
    called = (chain.data.cluster_names or {}).get(cluster, "")
    facts = [f"{len(units)} objects" if len(units) != 1 else "1 object"]
    if units:
        facts.append(f"fit {round(float(np.mean([certainty.get(unit, 0.0) for unit in units])), 2) + 0.0:.2f}")
    facts += _alike(chain, units) + _suggested(chain, cluster)
    fires, label = found_classes(chain.folder), called or cluster_label(cluster, {})
    never = fires is not None and label not in fires | {DROP}
    if never:
        facts.append("never found by the network")
    mark = "#" + bytes(color.tolist()).hex()
    head = f'<h3><i style="background:{mark}"></i>Cluster {cluster} <span>{escape("; ".join(facts))}</span></h3>'
    field = (
        f'<label>is <input data-cluster="{cluster}" value="{escape(called)}" placeholder="name, or {DROP}" '
        f'aria-label="name of cluster {cluster}"></label>'
    )
    shown = _objects(chain, units[:SURE], "") + _objects(chain, unsure, "unsure")
    return f'<div class="naming{" never" if never else ""}">{head}{field}<div class="objects">{shown}</div></div>'


def _alike(chain: Chain, units: Sequence[Unit]) -> list[str]:
    """The base class that the base model predicts most often for the objects, and the share of such objects."""
    seen: Counter[int] = Counter()
    for unit in units:
        path, region = chain.folder / "pseudo" / "full_pred" / f"{unit.image}.png", chain.region(unit)
        if path.is_file() and region.any():
            seen[int(np.bincount(read_label(path)[region]).argmax())] += 1
    base = {number: count for number, count in seen.items() if number}
    if not base:
        return []
    number, count = max(base.items(), key=lambda pair: pair[1])
    return [f"{100 * sum(base.values()) / len(units):.0f} % look like a labelled class, mostly {chain.names[number]}"]


def _suggested(chain: Chain, cluster: int) -> list[str]:
    path = chain.folder / "pseudo" / "names.json"
    found = read_as(path, Suggested).get(str(cluster), []) if path.is_file() else []
    return [f"could be {', '.join(name for name, _ in found)}"] if found else []


def _objects(chain: Chain, units: Sequence[Unit], style: str) -> str:
    """Pictures of objects; a click opens the whole photograph."""
    shown = []
    for unit, sample in zip(units, chain.samples([unit.image for unit in units]), strict=True):
        image = read_image(sample.image)
        crop = pictures.crop_object(image, chain.region(unit).astype(np.uint8), CROP)
        whole = pictures.resize_image(image, pictures.fit_size(image.shape, min(WHOLE, max(image.shape))))
        name = escape(sample.image.name)
        shown.append(
            f'<details class="{style}"><summary title="{name}">'
            f'<img class="crop" loading="lazy" src="{pictures.data_uri(crop, 80)}" alt="object in {name}">'
            f'<img class="whole" loading="lazy" src="{pictures.data_uri(whole, 75)}" alt="{name}"></summary></details>'
        )
    return "".join(shown)


def how_many(chain: Chain) -> str:
    """The criteria behind the estimated number of clusters."""
    path = chain.folder / "pseudo" / "how_many.json"
    if not path.is_file():
        return ""
    found, colors = read_json(path), charts.series_colors([""])
    parts = []
    for name, curve in found["curves"].items():
        points = [(float(k), max(0.0, score)) for k, score in curve.items()]
        parts.append((f"{name}: best at {found['best'][name]}", charts.curves({"": points}, colors, "clusters")))
    intro = (
        f"{found['k']} clusters: the median of what three criteria prefer. Silhouette: how much nearer objects lie to "
        "their own cluster than to the next. Stability: how well clusterings of random subsets agree. Known classes: "
        "labelled objects clustered together with the others, and how well their classes come out. If they disagree, "
        "look at the clusters; too many is the smaller mistake, as clusters can be merged. cluster.k=N sets the number."
    )
    return html.section("How many clusters", intro, html.side_by_side(parts))


def labelled_gallery(chain: Chain) -> str:
    """Predictions on the photographs without labels, from the folder that export.py writes."""
    title, folder = "What the network finds", chain.folder / "labelled"
    if not (folder / "classes.txt").is_file() or not (folder / "labels").is_dir():
        command = f"python export.py {chain.folder / 'basic' / 'best.pth'} {folder} --format folder"
        return html.absent(title, "The photographs without labels are not labelled yet", command)
    names = dict(enumerate(read_list(folder / "classes.txt")))
    with (folder / "confidence.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] in list(names.values())[chain.num_known :]]
    files: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: -float(row["confidence"])):
        files.setdefault(row["class"], []).append(row["image"])
    shown = list(dict.fromkeys(name for found in files.values() for name in found[: -(-2 * COLUMNS // len(files))]))
    columns, captions = [], []
    for name in shown[: 2 * COLUMNS]:
        image, label = read_image(folder / "images" / name), read_label(folder / "labels" / f"{Path(name).stem}.png")
        strong = range(chain.num_known, len(names))
        columns.append([pictures.plain(image), pictures.overlay(image, label, voc_palette(), names, strong)])
        captions.append(name)
    if not columns:
        return html.section(title, "No discovered class in any photograph.", "")
    intro = (
        "Photographs without labels: of each discovered class those that the network is most certain of. The labelled "
        f"data set lies in {folder}, with the confidence of every image in confidence.csv."
    )
    parts = [columns[start : start + COLUMNS] for start in range(0, len(columns), COLUMNS)]
    galleries = [
        html.gallery(part, ["image", "network"], captions[place * COLUMNS :][: len(part)])
        for place, part in enumerate(parts)
    ]
    return html.section(title, intro, "".join(galleries))


def found_classes(folder: Path) -> set[str] | None:
    """Classes in the exported labels; None if no labels are exported."""
    path = folder / "labelled" / "confidence.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        return {row["class"] for row in csv.DictReader(file)}
