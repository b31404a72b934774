import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.label_map import LabelMap
from utils.errors import UserError
from utils.labels import IGNORE, WIDE_IGNORE

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
    expected = pairs | {IGNORE: IGNORE}
    foreign = set(label.ravel().tolist()) - expected.keys()
    if foreign:
        with pytest.raises(UserError, match=f"value {min(foreign)} "):
            LabelMap.from_pairs(pairs)(label)
    else:
        assert LabelMap.from_pairs(pairs)(label).tolist() == [
            [expected[value] for value in row] for row in label.tolist()
        ]


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 400)),
    st.integers(256, 300),
)
def test_wide_labels_against_a_loop(label, count):
    """With 256 and more values, 255 is an ordinary value and 65535 is ignored; 8-bit files still ignore 255."""
    wide = LabelMap.from_pairs({value: count - 1 - value for value in range(count)})
    allowed = np.where(label < count, label, WIDE_IGNORE).astype(np.uint16)
    mapped = wide(allowed)
    assert mapped.dtype == np.uint16
    assert mapped.tolist() == [[count - 1 - v if v < count else WIDE_IGNORE for v in row] for row in allowed.tolist()]
    few = LabelMap.from_pairs({value: 1 if value == 7 else None for value in range(count)})
    assert few(allowed).dtype == np.uint8 and few.new_value(7) == 1 and few.new_value(255) is None
    assert np.array_equal(few(allowed), np.where(allowed == 7, 1, IGNORE))
    assert wide(np.array([[3, 255]], np.uint8)).tolist() == [[count - 4, WIDE_IGNORE]]
    if (label >= count).any():
        with pytest.raises(UserError, match=f"value {label[label >= count].min()} is not a class here; allowed: 0-"):
            wide(label)


def test_values_of_a_mask_without_its_pixels():
    label_map = LabelMap.from_pairs({0: 0, 3: 1, 4: 1, 5: None})
    assert label_map.new_values({0, 4, 3, 5}) == {0, 1} and label_map.new_values(()) == set()
    assert LabelMap.from_pairs({0: 0, 400: 300, 7: None}).new_values([400, 7]) == {300}
