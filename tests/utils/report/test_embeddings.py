import xml.etree.ElementTree as ET

import numpy as np

from utils.report.embeddings import NO_CLASS, draw_prototypes

NAMES = [f"class{number}" for number in range(21)]


def test_picture_of_prototypes(tmp_path):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.standard_normal((12, 8)), np.zeros((2, 8))])
    path = tmp_path / "prototypes.svg"
    draw_prototypes(path, vectors, np.array([0, 1, 2] * 4 + [1, 1]), ["ground", "cat", "dog"], 0)
    root = ET.fromstring(path.read_text())
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["PCA", "t-SNE", "cat", "dog", NO_CLASS]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 12 + 3  # zero vectors are no points
    draw_prototypes(tmp_path / "few.svg", vectors[:3], np.array([0, 1, 2]), ["ground", "cat", "dog"], 0)
    assert not (tmp_path / "few.svg").exists()
