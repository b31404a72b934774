"""Names for clusters. They rename the outputs of a network and change no result, so they may be given at any time.

clusters.yaml in the folder of the stages assigns each cluster, numbered from 1, a name, which several may share, or
`drop`. It also contains the digest of the pseudo-labels whose clusters it names, because a new clustering has others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from utils.checkpoint import write_text
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.log import log

FILE, EARLIER = "clusters.yaml", "clusters_before.yaml"
OF = "pseudo_labels"  # key: digest of the pseudo-labels, as in inputs.json of the stages that are trained on them
DROP = "drop"  # the cluster counts as background
Names = Mapping[int, str]
Suggested = dict[str, list[tuple[str, float]]]  # names.json: cluster -> [(candidate name, similarity)]
Classes = list[tuple[int, str]]  # for each output of a network: (class number in the masks, name)


def read_cluster_names(folder: Path, clusters: str | None = None) -> dict[int, str]:
    """{cluster: name}, clusters numbered from 1. Empty without a file, or with a warning if it names other clusters.

    `clusters` is the digest of the pseudo-labels. Raises UserError for a malformed file.
    """
    of, names = _read(folder / FILE)
    if names and of and clusters and of != clusters:
        log.warning("%s: names other clusters than these, made since or before; not used", folder / FILE)
        return {}
    return names


def write_cluster_names(folder: Path, names: Names, clusters: str) -> None:
    """Write clusters.yaml; `clusters` is the digest of the pseudo-labels."""
    text = yaml.safe_dump(dict(sorted(names.items())), allow_unicode=True, sort_keys=False)
    write_text(folder / FILE, f"# made by name_clusters.py; drop: counts as background\n{OF}: {clusters}\n{text}")


def set_aside(folder: Path, clusters: str) -> None:
    """Rename clusters.yaml if it names other clusters than those with the digest `clusters`."""
    of, names = _read(folder / FILE)
    if names and of != clusters:
        (folder / FILE).replace(folder / EARLIER)
        log.warning("%s: named other clusters than these; now %s, name them again", folder / FILE, EARLIER)


def _read(path: Path) -> tuple[str | None, dict[int, str]]:
    """(digest of the pseudo-labels or None, {cluster: name})."""
    tree = read_yaml(path) if path.is_file() else {}
    of = tree.pop(OF, None) if isinstance(tree, dict) else None
    fits = isinstance(tree, dict) and all(type(key) is int and key > 0 for key in tree)
    if not fits or not all(isinstance(name, str) and name.strip() for name in tree.values()):
        raise UserError(f"{path}: expected lines 'cluster number: name', as in '1: dog', or '4: drop'")
    return of and str(of), dict(tree)


def cluster_label(cluster: int, names: Names) -> str:
    """The name of a cluster, "cluster N" if it has none."""
    return names.get(cluster, f"cluster {cluster}")


def cluster_classes(known: Sequence[tuple[int, str]], clusters: int, names: Names) -> Classes:
    """(class number, name) of each of K clusters.

    `known` are the classes of the other outputs, background first. A cluster with the name of a known class gets its
    number, a dropped one that of background; others get the next free numbers, in the order of the clusters.
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
