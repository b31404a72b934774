"""Name, merge or drop clusters after inspection of report.html. No result of any stage changes.

reads   <output_dir>/<split>/pseudo, for a split with `novel: unknown`
writes  <output_dir>/<split>/clusters.yaml, the names in checkpoints, predictions, exports and the report

    python name_clusters.py configs/mine.yaml                                    # lists the clusters and their names
    python name_clusters.py configs/mine.yaml 1=dog 2=horse 3=drop 5=horse       # merges 2 and 5, drops 3

A cluster may get the name of a labelled class. Clusters that are not given keep their names.
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":  # before the imports below, which take seconds
    quiet_interrupt()

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.classes import load_split
from data.discovery.stages import num_clusters, pseudo_folder
from data.discovery.units import read_units
from data.prepare.class_files import require_distinct
from utils.checkpoint import digest, read_as
from utils.cluster_names import DROP, OF, Suggested, cluster_label, read_cluster_names, write_cluster_names
from utils.config.discovery import DiscoveryConfig
from utils.config.reader import load_config
from utils.entry import entry
from utils.errors import UserError
from utils.report.tables import table
from utils.run_folder import stage_dir

FOLDER = "--print-folder"  # for scripts: prints the folder of clusters.yaml
NAMING = re.compile(r"([0-9]{1,9})=(.*)")


def read_naming(words: list[str], clusters: int, classes: Sequence[str]) -> dict[int, str]:
    """Cluster -> name from words such as `5=horse`.

    Raises UserError for an unknown or repeated cluster, and for a name that differs from one of `classes` only in
    capitals or spaces.
    """
    found: dict[int, str] = {}
    for word in words:
        number, name = int(word.split("=")[0]), word.split("=", 1)[1].strip()
        if not 1 <= number <= clusters:
            raise UserError(f"{word}: no such cluster; they are numbered 1 to {clusters}")
        if number in found:
            raise UserError(f"{word}: cluster {number} is named twice; give it one name")
        if not name:
            raise UserError(f"{word}: no name; give one, or {number}={DROP}")
        require_distinct([*classes, DROP, name], word)
        found[number] = name
    return found


def overview(cfg: DiscoveryConfig, names: dict[int, str], clusters: int) -> list[list[str]]:
    """Rows of the table: number, objects, name and, if available, suggested names of each cluster; header first."""
    folder = stage_dir(cfg, "pseudo")
    sizes = Counter(read_units(folder / "clusters.json", int).values())
    suggested = read_as(folder / "names.json", Suggested) if (folder / "names.json").is_file() else {}
    rows = [["cluster", "objects", "name", *(["could be"] if suggested else [])]]
    for number in range(1, clusters + 1):
        could_be = [", ".join(name for name, _ in suggested.get(str(number), ()))] if suggested else []
        rows.append([str(number), str(sizes[number]), names.get(number, "-"), *could_be])
    return rows


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    given = [word for word in words if NAMING.fullmatch(word)]
    others = [word for word in words if word not in given and word != FOLDER]
    cfg = load_config(others, __doc__, __file__, ("ncdss",))
    folder = stage_dir(cfg, "pseudo").parent
    split = load_split(cfg.split, cfg.data.dataset)
    if split.groups[1]:
        raise UserError(f"split={cfg.split}: its novel classes name the clusters; only `novel: unknown` takes names")
    if FOLDER in words:
        print(folder)
        return 0
    clusters = num_clusters(cfg)
    of = digest(pseudo_folder(cfg) / OF)
    names = read_cluster_names(folder, of)
    if given:
        names |= read_naming(given, clusters, split.classes)
        write_cluster_names(folder, names, of)
    print(table(overview(cfg, names, clusters)))
    print(message(folder, names, clusters))
    return 0


def message(folder: Path, names: dict[int, str], clusters: int) -> str:
    """One line about the state of the names."""
    if not names:
        return f"no names yet: look at {folder / 'report.html'}, then give them as 1=NAME 2=NAME 3={DROP}"
    without = [cluster_label(number, names) for number in range(1, clusters + 1) if number not in names]
    return f"{folder / 'clusters.yaml'}: {len(names)} named" + (f", not {', '.join(without)}" if without else "")


if __name__ == "__main__":
    entry(main)
