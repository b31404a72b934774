import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.label_map import IGNORE, LabelMap
from utils.errors import UserError

MAP = LabelMap.from_pairs({0: 0, 1: 0, 2: 1, 3: 1, 9: 7})


def test_every_pixel_takes_its_value_from_the_table():
    label = np.array([[0, 1, 2], [3, 9, 255]], np.uint8)
    mapped = MAP(label)
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[0, 0, 1], [1, 7, 255]]
    assert label.tolist() == [[0, 1, 2], [3, 9, 255]]  # the input stays as it was


def test_an_error_names_file_value_and_allowed_values():
    with pytest.raises(UserError, match=r"^a/b\.png: label value 4 is not a class here; allowed: 0-3, 9, 255$"):
        MAP(np.array([[0, 200, 4]], np.uint8), where="a/b.png")


def test_a_view_that_is_not_contiguous():
    label = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(3, axis=1)
    assert MAP(label[:, ::-2]).tolist() == np.array([0, 0, 1, 1])[label[:, ::-2]].tolist()


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.dictionaries(st.integers(0, 254), st.integers(0, 254)),
)
def test_equals_a_loop_over_pixels(label, pairs):
    pairs = pairs | {IGNORE: IGNORE}
    foreign = set(label.ravel().tolist()) - pairs.keys()
    if foreign:
        with pytest.raises(UserError, match=f"value {min(foreign)} "):
            LabelMap.from_pairs(pairs)(label)
    else:
        expected = [[pairs[value] for value in row] for row in label.tolist()]
        assert LabelMap.from_pairs(pairs)(label).tolist() == expected
