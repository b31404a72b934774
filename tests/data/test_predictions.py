"""Label maps of outputs, and their conversion to class numbers."""

import numpy as np
import pytest

from data.dataset import SegmentationDataset
from data.io import read_label
from data.layouts import Sample
from data.predictions import map_writer, relabel
from data.transforms import ValTransform


@pytest.mark.parametrize(("count", "kind"), [(255, np.uint8), (256, np.uint16)])
def test_maps_are_as_wide_as_their_values(tmp_path, count, kind):
    """256 values and an ignored one need more than 8 bits."""
    images = SegmentationDataset(
        [Sample(name, image=tmp_path) for name in ("a", "b")], ("image",), transform=ValTransform(8)
    )
    save = map_writer(tmp_path / "maps", images, count)
    save(1, np.array([[0, count - 1]], np.int32))
    found = read_label(tmp_path / "maps" / "b.png")
    assert found.dtype == kind and found.tolist() == [[0, count - 1]] and not (tmp_path / "maps" / "a.png").exists()


def test_each_map_has_its_table(tmp_path):
    images = SegmentationDataset(
        [Sample(name, image=tmp_path) for name in ("a", "b")], ("image",), transform=ValTransform(8)
    )
    save = map_writer(tmp_path, images, 2)
    for index in range(2):
        save(index, np.array([[0, 1], [1, 1]]))
    tables = {"a": np.array([0, 7], np.uint8), "b": np.array([255, 300], np.uint16)}
    relabel(tmp_path, tmp_path / "named", tables.__getitem__)
    assert read_label(tmp_path / "named" / "a.png").tolist() == [[0, 7], [7, 7]]
    assert read_label(tmp_path / "named" / "b.png").tolist() == [[255, 300], [300, 300]]
    relabel(tmp_path, tmp_path, tables.__getitem__)
    assert read_label(tmp_path / "a.png").tolist() == [[0, 7], [7, 7]]
