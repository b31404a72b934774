"""Input and output of the saliency networks by hand, and what is said of weights that do not fit."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.saliency.estimator import MEAN, NETWORKS, STD, SaliencyEstimator, load_estimator, load_network, normalize
from tests.models.onnx.onnx_file import pointwise_sigmoid
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(params=["OpenCV", "ONNX Runtime"])
def reader(request, monkeypatch) -> str:
    """What runs ONNX files."""
    if request.param == "OpenCV":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime")
    return request.param


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """u2netp.pth with random weights, as a wrapped network saves them before PyTorch counted batches."""
    torch.manual_seed(0)
    state = NETWORKS["u2netp"]().state_dict()
    path = tmp_path_factory.mktemp("weights") / "u2netp.pth"
    torch.save({f"module.{k}": v for k, v in state.items() if "tracked" not in k}, path)
    return path


def test_pixels_are_divided_by_their_maximum():
    images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    images[0, 1] = 50
    images[0, 2, 0, 0] = 100
    normal = normalize(images)
    assert normal[0, 1, 0, 0].item() == pytest.approx((0.5 - 0.456) / 0.224)
    assert normal[0, 2, 0, 0].item() == pytest.approx((1 - 0.406) / 0.225)
    assert normal[1, :, 0, 0].tolist() == pytest.approx([-m / s for m, s in zip(MEAN, STD, strict=True)])  # black


def test_maps_are_stretched_per_image_and_brought_to_its_size(pool):
    ramp = torch.arange(16.0).view(4, 4)
    maps = iter([ramp / 100, torch.full((4, 4), 0.3)])
    estimator = SaliencyEstimator(lambda image: next(maps)[None], (4, 4), CPU)
    images = [np.full((8, 16, 3), 9, np.uint8), np.full((5, 3, 3), 9, np.uint8)]
    first, second = estimator(images, pool)
    assert first.dtype == np.float32 and first.shape == (8, 16) and second.shape == (5, 3)
    assert first[0, 0] == 0 and first[-1, -1] == pytest.approx(1)
    assert first[:, 0].tolist() == pytest.approx([0, 1 / 15, 3 / 15, 5 / 15, 7 / 15, 9 / 15, 11 / 15, 12 / 15])
    assert not second.any()  # constant: nothing stands out


def test_network_with_a_file_of_weights(small, pool):
    estimator = load_estimator("u2netp", small, CPU)
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    (found,) = estimator([image], pool)
    assert found.shape == (30, 40) and 0 <= found.min() < found.max() <= 1
    network = load_network("u2netp", small)
    assert not network.training and network["stage1"]["rebnconv1"].bn_s1.num_batches_tracked == 0


@pytest.mark.parametrize("logits", [False, True])
def test_onnx_file_gives_its_first_output(tmp_path, pool, logits, reader):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(pointwise_sigmoid([[0.5, 0, 0]], 320, 320, last="sum" if logits else "map"))
    image = np.zeros((320, 320, 3), np.uint8)
    image[:, 160:, 0] = 255
    image[:, 300:, 0] = 128
    (found,) = load_estimator(str(path), None, CPU)([image], pool)
    low, middle, high = (1 / (1 + np.exp(-0.5 * (value - MEAN[0]) / STD[0])) for value in (0, 128 / 255, 1))
    assert found.shape == (320, 320) and not found[:, :160].any() and found[0, 200] == pytest.approx(1)
    assert found[5, 310] == pytest.approx((middle - low) / (high - low), abs=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(64, 96, (64, 96)), ("rows", "columns", (320, 320))])
def test_onnx_file_of_another_size(tmp_path, pool, reader, height, width, size):
    """Brightness of the red channel, whatever the size that the network asks for."""
    (tmp_path / "tiny.onnx").write_bytes(pointwise_sigmoid([[1, 0, 0]], height, width, listed=True))
    estimator = load_estimator(str(tmp_path / "tiny.onnx"), None, CPU)
    assert estimator.size == size
    image = np.zeros((80, 50, 3), np.uint8)
    image[:, 25:, 0] = 255
    (found,) = estimator([image], pool)
    assert found.shape == (80, 50) and not found[:, :24].any() and found[:, 27:] == pytest.approx(1)


def test_wrong_weights_are_one_line(small, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "fc.pth")
    with pytest.raises(UserError, match=r"--model u2net: needs --weights FILE \(u2net\.pth of github"):
        load_estimator("u2net", None, CPU)
    with pytest.raises(UserError, match=r"--model u2: unknown; use u2net, u2netp, basnet, spectral, or a file"):
        load_estimator("u2", small, CPU)
    with pytest.raises(
        UserError,
        match=r"u2netp\.pth: does not fit the network \(\d+ of 798 tensors fit: .*expected u2net.pth of github",
    ):
        load_estimator("u2net", small, CPU)
    with pytest.raises(
        UserError, match=r"fc\.pth: does not fit the network \(0 of 798 tensors fit: .*expected u2netp.pth"
    ):
        load_estimator("u2netp", tmp_path / "fc.pth", CPU)
    with pytest.raises(UserError, match=r"none\.pth: no such checkpoint"):
        load_estimator("u2netp", tmp_path / "none.pth", CPU)
    with pytest.raises(UserError, match=r"--weights .*: an ONNX file has its own weights"):
        load_estimator(str(tmp_path / "bad.onnx"), small, CPU)
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        load_estimator(str(tmp_path / "none.onnx"), None, CPU)
    with pytest.raises(UserError, match=r"bad\.onnx: not an ONNX file"):
        load_estimator(str(tmp_path / "bad.onnx"), None, CPU)


def test_onnx_file_without_a_map_is_one_line(tmp_path, pool, reader):
    (tmp_path / "two.onnx").write_bytes(pointwise_sigmoid([[1, 0, 0], [0, 1, 0]], 320, 320))
    estimator = load_estimator(str(tmp_path / "two.onnx"), None, CPU)
    problem = r"cannot be used \(its first output is 1x2x320x320\); expected one map, 1x1xHxW"
    with pytest.raises(UserError, match=rf"two\.onnx: {problem}"):
        estimator([np.zeros((320, 320, 3), np.uint8)], pool)
