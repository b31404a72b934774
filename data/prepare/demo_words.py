"""Word vectors of the demo classes, derived from their outline, texture and colour.

A vector is the sum of codes for texture, traits of the outline and usual hue, plus noise. Visually similar classes have
similar vectors, as with word2vec for real classes. The table ships as data/splits/demo/vectors.npz.
"""

import zlib

import numpy as np

from data.prepare.demo_shapes import CLASSES

DIMENSIONS = 64
TEXTURE, OUTLINE, HUE, NOISE = 0.8, 0.6, 0.3, 0.1  # approximate length of each part; their sum has about length 1
GOLDEN = 0.618  # hue of class k: k times this, modulo 1, as in data.prepare.demo
TRAITS = {
    "star": ("pointed", "radial"),
    "fish": ("round", "pointed", "wide"),
    "cactus": ("branched", "tall"),
    "ring": ("round", "hollow"),
    "mushroom": ("round", "stemmed", "tall"),
    "gear": ("round", "hollow", "radial"),
    "leaf": ("pointed", "stemmed", "tall"),
    "house": ("straight", "pointed"),
    "heart": ("round", "pointed", "lobed"),
    "umbrella": ("round", "stemmed", "wide"),
    "moon": ("round", "pointed", "bitten"),
    "butterfly": ("round", "lobed", "wide"),
    "bolt": ("straight", "pointed", "tall"),
    "vase": ("round", "tall"),
    "cross": ("straight", "branched", "radial"),
    "flower": ("round", "lobed", "radial"),
    "arrow": ("straight", "pointed", "wide"),
    "hourglass": ("straight", "waisted", "tall"),
    "drop": ("round", "pointed", "tall"),
    "bone": ("round", "waisted", "lobed", "wide"),
}
OTHERS = {  # words without drawn objects: traits, texture, hue
    "coin": (("round",), "metal", 0.14),
    "egg": (("round", "tall"), "plain", 0.1),
    "sun": (("round", "radial"), "rays", 0.15),
    "tower": (("straight", "tall"), "bricks", 0.05),
}


def code(word: str) -> np.ndarray:
    """A fixed random unit vector [D] for a word."""
    values = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIMENSIONS)
    return values / np.linalg.norm(values)


def vector(name: str, traits: tuple[str, ...], texture: str, hue: float) -> np.ndarray:
    """Vector [D] of a class."""
    outline = np.mean([code(trait) for trait in traits], axis=0) * np.sqrt(len(traits))  # about unit length
    colour = np.cos(2 * np.pi * hue) * code("hue x") + np.sin(2 * np.pi * hue) * code("hue y")
    return TEXTURE * code(texture) + OUTLINE * outline + HUE * colour + NOISE * code(f"noise of {name}")


def word_vectors() -> dict[str, np.ndarray]:
    """Vectors float32 [D] of background, the twenty classes and a few other words."""
    vectors = {"background": code("background")}
    for number, (name, (_, texture)) in enumerate(CLASSES.items()):
        vectors[name] = vector(name, TRAITS[name], texture, number * GOLDEN % 1)
    vectors |= {name: vector(name, *parts) for name, parts in OTHERS.items()}
    return {name: values.astype(np.float32) for name, values in vectors.items()}
