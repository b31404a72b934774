"""Names for clusters, given when training is over or before: they change what outputs are called, and no result.

clusters.yaml beside the stages of a run says, for clusters from 1 on, what each is: a name, which several may share,
or `drop`. It also says whose names they are: clusters made again, or a network that learned earlier ones, have others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from utils.checkpoint import write_text
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.log import log

FILE, EARLIER = "clusters.yaml", "clusters_before.yaml"
OF = "pseudo_labels"  # key: digest of the labels of the clusters, as inputs.json of the stages that learn from them
DROP = "drop"  # the cluster counts as background
Names = Mapping[int, str]
Suggested = dict[
    str, list[tuple[str, float]]
]  # of names.json: cluster -> what it could be called, and how well it fits
Classes = list[tuple[int, str]]  # (class number in the masks, name) of each output of a network


def read_cluster_names(folder: Path, clusters: str | None = None) -> dict[int, str]:
    """Cluster from 1 on -> its name; empty without the file, and, with a warning, where it names other `clusters`.

    UserError for a file of another form.
    """
    of, names = _read(folder / FILE)
    if names and of and clusters and of != clusters:
        log.warning("%s: names other clusters than these, made since or before; not used", folder / FILE)
        return {}
    return names


def write_cluster_names(folder: Path, names: Names, clusters: str) -> None:
    """`clusters` is the digest of the pseudo labels."""
    text = yaml.safe_dump(dict(sorted(names.items())), allow_unicode=True, sort_keys=False)
    write_text(folder / FILE, f"# made by name_clusters.py; drop: counts as background\n{OF}: {clusters}\n{text}")


def set_aside(folder: Path, clusters: str) -> None:
    """Rename a file that names other clusters, so that theirs do not stick to these."""
    of, names = _read(folder / FILE)
    if names and of != clusters:
        (folder / FILE).replace(folder / EARLIER)
        log.warning("%s: named other clusters than these; now %s, name them again", folder / FILE, EARLIER)


def _read(path: Path) -> tuple[str | None, dict[int, str]]:
    """(whose names, names)."""
    tree = read_yaml(path) if path.is_file() else {}
    of = tree.pop(OF, None) if isinstance(tree, dict) else None
    fits = isinstance(tree, dict) and all(type(key) is int and key > 0 for key in tree)
    if not fits or not all(isinstance(name, str) and name.strip() for name in tree.values()):
        raise UserError(f"{path}: expected lines 'cluster number: name', as in '1: dog', or '4: drop'")
    return of and str(of), dict(tree)


def cluster_label(cluster: int, names: Names) -> str:
    """What a cluster is called, from 1 on."""
    return names.get(cluster, f"cluster {cluster}")


def cluster_classes(known: Sequence[tuple[int, str]], clusters: int, names: Names) -> Classes:
    """Class number and name of each of K clusters, whose networks first have the `known` outputs, background in front.

    A name of a known class means that class; new names, and clusters without one, get the numbers behind, in the order
    of clusters.
    """
    numbers = {name: number for number, name in known}
    first, found = 1 + max(number for number, _ in known), []
    for cluster in range(1, clusters + 1):
        name = cluster_label(cluster, names)
        if name == DROP:
            found.append(known[0])
            continue
        new = first + sum(number >= first for number in numbers.values())
        found.append((numbers.setdefault(name, new), name))
    return found
