import numpy as np

from data.discovery.units import Unit, by_image, by_unit, connected_parts, list_units, read_parts
from data.io import write_label

REGION = np.array(
    [
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
    ],
    bool,
)


def test_parts_hang_together_by_corners_and_come_by_size():
    """The two large parts have four pixels each, ordered by row; the single pixel is 1/25 of the image."""
    expected = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 3], [0, 1, 0, 0, 0], [0, 0, 0, 2, 2], [0, 0, 0, 2, 2]])
    assert np.array_equal(connected_parts(REGION, 0.04), expected)
    assert np.array_equal(connected_parts(REGION, 0.05), np.where(expected == 3, 0, expected))
    assert connected_parts(REGION, 0.05).dtype == np.uint16 and not connected_parts(REGION, 0.2).any()
    assert not connected_parts(np.zeros((3, 3), bool), 0).any()


def test_no_part_reaches_over_the_border_of_a_cell():
    """Cells are columns 0 to 3 and column 4: the square is divided, the pixel above it stays separate."""
    cells = np.zeros((5, 5), np.int32)
    cells[:, 4] = 7
    found = connected_parts(REGION, 0, cells)
    assert [int((found == part).sum()) for part in range(1, 5)] == [4, 2, 2, 1] and found.max() == 4
    assert found[3, 3] == found[4, 3] and found[3, 4] == found[4, 4] != found[3, 3] and found[1, 4] == 4


def test_files_hold_a_value_or_one_of_each_part():
    units = list_units({"a": [9, 5], "b": [7], "c": [3]}, ["a", "b"])
    assert units == [Unit("a", 1), Unit("a", 2), Unit("b", 1)]
    assert by_image(units, [4, 5, 6], whole=False) == {"a": [4, 5], "b": [6]}
    assert by_unit({"a": [4, 5], "b": [6]}) == dict(zip(units, [4, 5, 6], strict=True))
    whole = [Unit("a"), Unit("b")]
    assert by_image(whole, [4, 5], whole=True) == {"a": 4, "b": 5}
    assert by_unit({"a": 4, "b": 5}) == dict(zip(whole, [4, 5], strict=True))


def test_an_image_that_is_clustered_whole_is_one_part(tmp_path):
    write_label(tmp_path / "novel_map" / "a.png", np.array([[0, 3], [200, 0]], np.uint8))
    assert read_parts(tmp_path, "a").tolist() == [[0, 1], [1, 0]]
    write_label(tmp_path / "parts" / "a.png", np.array([[0, 2], [1, 0]], np.uint8))
    assert read_parts(tmp_path, "a").tolist() == [[0, 2], [1, 0]]
