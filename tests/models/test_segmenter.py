"""Checkpoints by the system that their configuration names."""

import pytest
import torch
from torch import nn

from models.segmenter import load_segmenter, read_config
from tests.conftest import TASK
from utils.errors import UserError


def test_a_configuration_is_read_as_far_as_it_tells_the_network(tmp_path):
    """Keys of other sections may have been renamed since."""
    saved = {**TASK, "training": {"a key of old": 1}}
    config = read_config(saved, tmp_path / "best.pth")
    assert (
        config.system == "ssul"
        and config.model.backbone == TASK["model"]["backbone"]
        and config.ssul.pseudo_threshold == 0.1
    )


def test_a_file_without_a_configuration_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(UserError, match=r"bare.pth: holds neither settings .* python eval.py CONFIG checkpoint="):
        load_segmenter(tmp_path / "bare.pth")
