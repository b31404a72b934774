"""Some damaged files for every reader; `python -m tests.fuzz` tries ten times as many."""

import pytest

from tests.fuzz import READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    read, refused = fuzz(READERS[name], tmp_path, count=40, seed=1)
    assert read + refused == 40 and refused
