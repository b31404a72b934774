"""Videos are written and read back by OpenCV."""

import resource
import signal

import numpy as np
import pytest

from data.predictions import maker_of
from data.video import frame_count, frames_per_second, is_video, read_frames, write_video
from tests.processes import in_child
from utils.errors import UserError


def test_frames_come_back(tmp_path):
    shades = (40, 120, 200)
    frames = (np.full((32, 48, 3), (shade, 0, 0), np.uint8) for shade in shades)
    assert write_video(tmp_path / "a.mp4", frames, 5.0) == 3
    assert is_video(tmp_path / "A.MP4") and frames_per_second(tmp_path / "a.mp4") == 5
    found = [frame.mean((0, 1)) for frame in read_frames(tmp_path / "a.mp4")]
    assert len(found) == 3
    for shade, (red, *others) in zip(shades, found, strict=True):
        assert abs(red - shade) < 12 and max(others) < 20  # the codec loses a little; red stays red
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_tells_its_maker_and_still_plays(tmp_path):
    frames = [np.full((32, 48, 3), 90, np.uint8)] * 4
    write_video(tmp_path / "a.mp4", iter(frames), 5.0, "predict.py")
    write_video(tmp_path / "b.mp4", iter(frames), 5.0)
    assert maker_of(tmp_path / "a.mp4") == "predict.py" != maker_of(tmp_path / "b.mp4")
    assert len(list(read_frames(tmp_path / "a.mp4"))) == frame_count(tmp_path / "a.mp4") == 4


def test_a_video_that_the_disk_has_no_room_for_is_an_error(tmp_path):
    """OpenCV reports no error."""
    frames = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        write_video(tmp_path / "a.mp4", iter(frames), 5.0)

    assert in_child(write) == 2 and not list(tmp_path.iterdir())


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"a\.mp4: not a readable video"):
        frames_per_second(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"b\.mp4: the video has no frame"):
        write_video(tmp_path / "b.mp4", iter(()), 5.0)
    assert not (tmp_path / "b.mp4").exists()
