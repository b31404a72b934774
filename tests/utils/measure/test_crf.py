"""The CRF through a stand-in for pydensecrf2 that solves the same equations densely."""

import sys
import types

import numpy as np
import pytest

from utils.errors import UserError
from utils.measure.crf import refine, require_crf, unary_energy


class DenseCRF2D:
    """Mean field over all pairs of pixels, Potts model, symmetrically normalised kernels (the package's defaults)."""

    def __init__(self, width: int, height: int, classes: int):
        self.shape, self.classes, self.kernels = (height, width), classes, []

    def setUnaryEnergy(self, energy: np.ndarray) -> None:  # noqa: N802
        assert energy.dtype == np.float32 and energy.flags.c_contiguous
        self.unary = energy.astype(float)

    def addPairwiseGaussian(self, sxy: float, compat: float) -> None:  # noqa: N802
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]]
        self.add(np.stack([rows, columns], -1).reshape(-1, 2) / sxy, compat)

    def addPairwiseBilateral(self, sxy: float, srgb: float, rgbim: np.ndarray, compat: float) -> None:  # noqa: N802
        assert rgbim.dtype == np.uint8 and rgbim.shape == (*self.shape, 3)
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]]
        place = np.stack([rows, columns], -1).reshape(-1, 2) / sxy
        self.add(np.concatenate([place, rgbim.reshape(-1, 3) / srgb], 1), compat)

    def add(self, points: np.ndarray, compat: float) -> None:
        kernel = np.exp(-0.5 * ((points[:, None] - points[None]) ** 2).sum(-1))
        np.fill_diagonal(kernel, 0)
        scale = 1 / np.sqrt(kernel.sum(1) + 1e-20)
        self.kernels.append(compat * scale[:, None] * kernel * scale)

    def inference(self, steps: int) -> np.ndarray:
        assert steps == 10
        q = softmax(-self.unary)
        for _ in range(steps):
            q = softmax(-self.unary + sum(q @ kernel for kernel in self.kernels))
        return q


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(0))
    return powers / powers.sum(0)


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("pydensecrf.densecrf")
    module.DenseCRF2D = DenseCRF2D
    monkeypatch.setitem(sys.modules, "pydensecrf", types.ModuleType("pydensecrf"))
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", module)


def test_edges_of_the_image_correct_the_labels(package):
    """Left half black, right half white; the logits are wrong in single pixels and off by a column."""
    image = np.zeros((12, 16, 3), np.uint8)
    image[:, 8:] = 255
    logits = np.zeros((2, 12, 16), np.float32)
    logits[0, :, :9] = logits[1, :, 9:] = 1
    logits[:, 3, 3] = logits[::-1, 3, 3]
    require_crf()
    refined = refine(logits, image)
    assert refined.dtype == np.uint8 and np.array_equal(refined, (image[..., 0] > 0).astype(np.uint8))


def test_the_package_gets_blue_first(package, monkeypatch):
    """As the official program, whose images come from OpenCV; the lattice of the package depends on the order."""
    seen = []

    def add(self, sxy, srgb, rgbim, compat):
        assert (sxy, srgb, compat) == (67, 3, 4) and rgbim.flags.c_contiguous
        seen.append(rgbim)

    monkeypatch.setattr(DenseCRF2D, "addPairwiseBilateral", add)
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    refine(np.zeros((2, 3, 4), np.float32), image)
    assert np.array_equal(seen[0][..., 0], image[..., 2]) and np.array_equal(seen[0], image[..., [2, 1, 0]])


def test_unary_by_hand():
    """Two pixels go to four bilinearly; what is less likely than 1e-5 counts as that."""
    logits = np.array([[[0, 40]], [[0, 0]]], np.float32)
    energy = unary_energy(logits, (1, 4))
    first = np.log1p(np.exp(-np.array([0, 10, 30, 40.0])))
    assert energy.shape == (2, 4)
    np.testing.assert_allclose(energy[0], first, atol=1e-6)
    floor = -np.log(1e-5)
    np.testing.assert_allclose(energy[1], [np.log(2), 10 + first[1], floor, floor], rtol=1e-5)


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(UserError, match=r"evaluation.crf=true: needs pydensecrf2 \(.*\), or leave it out"):
        require_crf()
