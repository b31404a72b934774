import numpy as np

from data.classes import SPLITS, load_classes, load_split
from data.embeddings import read_table
from data.prepare.demo_shapes import CLASSES
from data.prepare.demo_words import OTHERS, TRAITS, code, word_vectors

VECTORS = word_vectors()


def cosine(a: str, b: str) -> float:
    x, y = VECTORS[a], VECTORS[b]
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_the_shipped_table_is_made_by_this():
    table = read_table(SPLITS / "demo/vectors.npz")
    assert table.names == tuple(VECTORS) == (*load_classes("demo").names, *OTHERS)
    np.testing.assert_allclose(table.vectors, np.stack(list(VECTORS.values())), atol=1e-6)
    assert TRAITS.keys() == CLASSES.keys()


def test_lengths_are_about_one():
    norms = [np.linalg.norm(vector) for vector in VECTORS.values()]
    assert min(norms) > 0.9 and max(norms) < 1.2 and np.linalg.norm(code("round")) == np.float64(1).round()


def test_words_are_alike_as_the_things_are():
    """Classes of one texture are nearer to each other than classes that share neither texture nor outline."""
    textures = {name: texture for name, (_, texture) in CLASSES.items()}
    pairs = [(a, b) for a in CLASSES for b in CLASSES if a < b]
    same = [cosine(a, b) for a, b in pairs if textures[a] == textures[b]]
    nothing = [cosine(a, b) for a, b in pairs if textures[a] != textures[b] and not {*TRAITS[a]} & {*TRAITS[b]}]
    assert len(same) >= 9 and len(nothing) > 40
    assert min(same) > 0.4 and np.mean(same) > 0.6 and abs(np.mean(nothing)) < 0.1


def test_unseen_classes_share_texture_and_traits_with_seen_ones():
    for k in (2, 4, 6):
        split = load_split(f"unseen{k}", "demo")
        seen, unseen = ([split.classes[number] for number in group] for group in split.groups)
        assert len(unseen) == k
        for name in unseen:
            assert any(CLASSES[name][1] == CLASSES[other][1] for other in seen), name
            shared = {trait for other in seen for trait in TRAITS[other]}
            assert len(shared & {*TRAITS[name]}) >= min(2, len(TRAITS[name])), name
