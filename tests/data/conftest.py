import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def voc_subset() -> Path:
    """Real images in the VOC layout; tests with it are skipped where there are none."""
    if not os.environ.get("VOC_SUBSET"):
        pytest.skip("set VOC_SUBSET to a folder with PASCAL VOC images to run this on real photographs")
    return Path(os.environ["VOC_SUBSET"])
