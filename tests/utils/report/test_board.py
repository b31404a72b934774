"""Pictures for TensorBoard, read back from its files."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from utils.report.board import write_pictures


def test_pictures_replace_those_of_an_earlier_report(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    red, blue = np.zeros((4, 6, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 200
    write_pictures(tmp_path / "tb", {"clusters/1": red, "old": red})
    write_pictures(tmp_path / "tb", {"clusters/1": red, "predictions": blue})
    events = reader.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"clusters/1", "predictions"}
    [stored] = events.Images("predictions")
    assert np.array_equal(np.array(Image.open(io.BytesIO(stored.encoded_image_string))), blue)
    write_pictures(tmp_path / "tb", {})
    assert not (tmp_path / "tb").exists()


def test_without_tensorboard_it_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_pictures(tmp_path / "tb", {"one": np.zeros((4, 4, 3), np.uint8)})
    assert [record.getMessage()[:35] for record in caplog.records] == ["warning: no TensorBoard events (Mod"]
    assert not (tmp_path / "tb").exists()
