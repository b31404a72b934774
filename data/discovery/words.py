"""Candidate names for clusters, with word vectors of candidates and known classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.classes import class_folder
from data.embeddings import SHIPPED, TABLE, look_up, read_table
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError


class Vocabulary(NamedTuple):
    """Word vectors float32 of the known classes [A, E] and of the candidates [V, E], and names of the candidates."""

    known: np.ndarray
    names: list[str]
    vectors: np.ndarray


def vocabulary(known: Sequence[str], source: str, dataset: str, candidates: Path | None) -> Vocabulary:
    """Vectors from `source`, as for data.embeddings; candidates are a YAML list or, by default, all names of a table.

    Known classes and background are no candidates. Raises UserError if none is left, or a name has no vector.
    """
    names = [name for name in _listed(source, dataset, candidates) if name not in (*known, "background")]
    if not names:
        raise UserError(f"{candidates or source}: no name but those of the base classes; clusters need others")
    rows = look_up([*known, *names], source, dataset)
    return Vocabulary(rows[: len(known)], names, rows[len(known) :])


def _listed(source: str, dataset: str, candidates: Path | None) -> list[str]:
    if candidates:
        listed = read_yaml(candidates)
        if not isinstance(listed, list):
            raise UserError(f"{candidates}: expected a list of names that clusters may be called by")
        return list(dict.fromkeys(str(name) for name in listed))
    path = class_folder(dataset) / TABLE if source == SHIPPED else Path(source)
    if path.suffix != ".npz":
        raise UserError(f"cluster.name_vectors={source}: too many words to try all; list some with cluster.candidates")
    return list(read_table(path).names) if path.is_file() else []
