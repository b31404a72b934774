"""Word vectors of class names, from tables with a row per class or from files of word vectors.

A name is looked up unchanged, then word by word ("traffic light": mean of "traffic" and "light"), then by its entry in
ALIASES. A name in data.aliases is looked up only under that alias.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.classes import class_folder
from data.word_files import GLOVE, Vectors, read_glove, read_words
from utils.checkpoint import atomic, first_line
from utils.config.common import WordedData
from utils.errors import UserError
from utils.log import log
from utils.text import require_file

SHIPPED, TABLE = "shipped", "vectors.npz"
ALIASES = {  # for class names of VOC, Pascal-Context, COCO and the shipped tables
    "aeroplane": "airplane",
    "bedclothes": "bedding",
    "diningtable": "table",
    "hair drier": "hairdryer",
    "motorbike": "motorcycle",
    "playingfield": "playing field",
    "pottedplant": "potted plant",
    "table": "diningtable",
    "tvmonitor": "tv monitor",
    "waterdrops": "water drops",
}


class Table(NamedTuple):
    """Vectors float32 [N, D] and the name of each row."""

    vectors: np.ndarray
    names: tuple[str, ...]


def class_vectors(names: Sequence[str], source: WordedData) -> np.ndarray:
    """float32 [C, D], a row per class name. Raises UserError that lists all classes without a vector."""
    stray = [name for name in source.aliases if name not in names]
    if stray:
        log.warning("data.aliases: '%s' is no class of the data set; classes: %s", stray[0], ", ".join(names))
    vectors = look_up(names, source.embeddings, source.dataset, source.aliases)
    return scaled(vectors, source.vector_scale)


def name_vectors(names: Sequence[str], source: WordedData, classes: Sequence[str]) -> np.ndarray:
    """float32 [n, D] of names outside the data set, scaled like the vectors of the trained `classes`."""
    if source.embeddings.endswith(".npy"):
        raise UserError(
            f"{source.embeddings}: a matrix without names, which has no vectors of other words; {_advice()}"
        )
    vectors = look_up([*classes, *names], source.embeddings, source.dataset, source.aliases)
    factor = 1 / largest(vectors[: len(classes)]) if source.vector_scale == "largest" else 1.0
    new = vectors[len(classes) :]
    return scaled(new, "unit") if source.vector_scale == "unit" else (new * factor).astype(np.float32)


def scaled(vectors: np.ndarray, scale: str) -> np.ndarray:
    """none: unchanged; largest: all divided by the largest norm (as the VOC table); unit: each divided by its norm."""
    if scale == "none":
        return vectors
    norms = np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return (vectors / (norms if scale == "unit" else norms.max())).astype(np.float32)


def largest(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).max())


# ---- where vectors come from


def look_up(names: Sequence[str], source: str, dataset: str, aliases: Mapping[str, str] | None = None) -> np.ndarray:
    """float32 [n, D] from `source`: shipped, glove6b, or the path of a table (.npz, .npy) or a file of word vectors."""
    tokens = {name: list(spellings(name, aliases or {})) for name in names}
    wanted = {token for spelled in tokens.values() for words in spelled for token in words}
    path = class_folder(dataset) / TABLE if source == SHIPPED else Path(source)
    if source == GLOVE:
        known, where = read_glove(wanted), GLOVE
    elif path.suffix == ".npy":
        return _usable(_plain_rows(path, names), names, str(path))
    else:
        if source == SHIPPED and not path.is_file():
            raise UserError(f"data.embeddings={SHIPPED}: none ship for data.dataset={dataset}; {_advice()}")
        known, where = (_rows(path) if path.suffix == ".npz" else read_words(path, wanted)), str(path)
    chosen = _choose(tokens, known, where)
    return _usable(np.stack([chosen[name] for name in names]), names, where)


def spellings(name: str, aliases: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The spellings under which a name is looked up, best first; the vector of several words is their mean.

    A name in `aliases` is looked up only under its alias.
    """
    for whole in _own(name, aliases) or dict.fromkeys((name, *_own(name, ALIASES))):
        words = whole.replace("-", " ").replace("_", " ").split()
        exact = (whole, whole.lower(), "_".join(words), "_".join(words).lower(), "-".join(words).lower())
        for token in dict.fromkeys(exact):
            yield (token,)
        if len(words) > 1:
            yield tuple(words)
            yield tuple(word.lower() for word in words)


def _own(name: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    return (aliases[name],) if name in aliases else ()


def _choose(tokens: Mapping[str, Sequence[tuple[str, ...]]], known: Vectors, where: str) -> Vectors:
    """The vector of each name. Raises one UserError for all names without a vector."""
    found = {name: next((w for w in spelled if all(t in known for t in w)), None) for name, spelled in tokens.items()}
    missing = [name for name, words in found.items() if words is None]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise UserError(
            f"{where}: no vector for {len(missing)} of {len(found)} names: {listed}; name other words "
            f"for them in data.aliases, or {_advice()}"
        )
    other = [f"{name}: {' + '.join(words)}" for name, words in found.items() if words and words != (name,)]
    if other:
        log.info("vectors of %s; looked up under other words: %s", where, "; ".join(other))
    rows = {name: np.stack([known[word] for word in words or ()]) for name, words in found.items()}
    return {name: values.mean(0, dtype=np.float64).astype(np.float32) for name, values in rows.items()}


def _usable(vectors: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """The vectors [n, D]. Raises UserError if one is not finite; warns of zero and of equal vectors."""
    known: dict[bytes, str] = {}
    for name, row in zip(names, vectors, strict=True):
        if not np.isfinite(row).all():
            raise UserError(f"{where}: the vector of '{name}' is not finite; give it another, or {_advice()}")
        if not row.any():
            log.warning("%s: the vector of '%s' is zero, so it carries no information", where, name)
        other = known.setdefault(row.tobytes(), name)
        if other != name:
            log.warning("%s: '%s' and '%s' have the same vector and cannot be distinguished", where, other, name)
    return vectors


def _advice() -> str:
    return (
        "set data.embeddings to a table (npz with 'embeddings' and 'class_names'), a text file of word2vec, fastText "
        f"or GloVe, or {GLOVE}"
    )


# ---- tables


def read_table(path: Path) -> Table:
    """Reads an npz with `embeddings` [N, D] and `class_names` [N]. Raises UserError for any other file."""
    expected = "expected an npz with 'embeddings' [N, D] and 'class_names' [N]"
    require_file(path)
    try:
        with np.load(path) as content:
            if not {"embeddings", "class_names"} <= set(content.files):
                raise UserError(f"{path}: holds {', '.join(content.files) or 'nothing'}; {expected}")
            vectors, names = content["embeddings"], [str(name) for name in content["class_names"].ravel()]
    except (FileNotFoundError, UserError) as error:
        raise UserError(f"{path}: no such table of vectors" if isinstance(error, OSError) else str(error)) from None
    except Exception as error:  # zipfile and numpy raise many types for damaged files
        raise UserError(f"{path}: not a readable table ({first_line(error)}); {expected}") from None
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: has '{twice}' twice; keep one vector of each name")
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise UserError(f"{path}: {len(names)} names for vectors of shape {vectors.shape}; {expected}")
    return Table(_finite(vectors, path), tuple(names))


def write_table(path: Path, names: Sequence[str], vectors: np.ndarray) -> None:
    """Writes a table for `read_table`, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, embeddings=vectors.astype(np.float32), class_names=np.array(list(names)))


def _rows(path: Path) -> Vectors:
    table = read_table(path)
    return dict(zip(table.names, table.vectors, strict=True))


def _plain_rows(path: Path, names: Iterable[str]) -> np.ndarray:
    """A matrix without names (official tables), in class order. Raises UserError if the number of rows differs."""
    require_file(path)
    try:
        vectors = np.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table of vectors") from None
    except Exception as error:
        raise UserError(f"{path}: not a readable matrix ({first_line(error)})") from None
    count = len(list(names))
    if vectors.ndim != 2 or len(vectors) != count:
        raise UserError(f"{path}: a matrix of shape {vectors.shape}, but {count} classes; expected a row of each")
    return _finite(vectors, path)


def _finite(vectors: np.ndarray, path: Path) -> np.ndarray:
    if not np.issubdtype(vectors.dtype, np.number) or not np.isfinite(vectors).all():
        raise UserError(f"{path}: holds values that are no finite numbers; expected real vectors")
    return vectors.astype(np.float32)
