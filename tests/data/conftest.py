import os
from pathlib import Path

import numpy as np
import pytest

from data.io import write_label
from utils.checkpoint import write_list

MASKS = {  # values in each mask
    "both": (0, 1, 3), "disc": (1,), "square": (0, 2, 255), "dot": (0, 4), "rest": (0, 5), "empty": (0, 255),
}  # fmt: skip


@pytest.fixture(scope="session")
def voc_subset() -> Path:
    """Real images in VOC's layout; tests that need them are skipped without."""
    if not os.environ.get("VOC_SUBSET"):
        pytest.skip("set VOC_SUBSET to a folder with PASCAL VOC images to run this on real photographs")
    return Path(os.environ["VOC_SUBSET"])


@pytest.fixture
def root(tmp_path) -> Path:
    """Masks with known classes: list `all` holds every image, list `val` some."""
    (tmp_path / "images").mkdir()
    for name, values in MASKS.items():
        (tmp_path / "images" / f"{name}.jpg").touch()
        write_label(tmp_path / "SegmentationClassAug" / f"{name}.png", np.array([values], np.uint8))
    write_list(tmp_path / "sets" / "all.txt", list(MASKS))
    write_list(tmp_path / "sets" / "val.txt", ["rest", "dot", "square"])
    return tmp_path
