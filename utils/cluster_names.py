"""Names for clusters, given when training is over or before: they change what outputs are called, and no result.

clusters.yaml beside the stages of a run says, for clusters from 1 on, what each is: a name, which several may share,
or `drop`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from utils.checkpoint import write_text
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError

FILE = "clusters.yaml"
DROP = "drop"  # the cluster counts as background
Names = Mapping[int, str]
Classes = list[tuple[int, str]]  # (class number in the masks, name) of each output of a network


def read_cluster_names(folder: Path) -> dict[int, str]:
    """Cluster from 1 on -> its name; empty without the file. UserError for a file of another form."""
    path = folder / FILE
    if not path.is_file():
        return {}
    tree = read_yaml(path)
    fits = isinstance(tree, dict) and all(type(key) is int and key > 0 for key in tree)
    if not fits or not all(isinstance(name, str) and name.strip() for name in tree.values()):
        raise UserError(f"{path}: expected lines 'cluster number: name', as in '1: dog', or '4: drop'")
    return dict(tree)


def write_cluster_names(folder: Path, names: Names) -> None:
    text = yaml.safe_dump(dict(sorted(names.items())), allow_unicode=True, sort_keys=False)
    write_text(folder / FILE, f"# made by name_clusters.py; drop: counts as background\n{text}")


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
