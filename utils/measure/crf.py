"""Fully connected CRF as post-processing (Kraehenbuehl and Koltun, NeurIPS 2011), by the package pydensecrf2.

C classes, H W pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F

from utils.errors import missing_package
from utils.labels import is_wide

STEPS = 10  # mean-field iterations; these and the kernels below are those of MaskContrast's code
SMOOTHNESS = {"sxy": 1, "compat": 3}
APPEARANCE = {"sxy": 67, "srgb": 3, "compat": 4}


def require_crf() -> None:
    """Raises UserError if pydensecrf is missing. pydensecrf2 provides it; the package pydensecrf no longer builds."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        raise missing_package("evaluation.crf=true:", "pydensecrf2", instead="leave it out") from None


def refine(logits: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Labels uint8 [H, W] (int32 for more than 255 classes) from logits float32 [C, h, w] and an RGB image [H, W, 3].

    Bilinear up-sampling of the logits; Potts model with normalised Gaussian kernels on position, and on position and
    colour. The colour channels are passed as BGR, as in the official program: their order changes the result.
    """
    from pydensecrf.densecrf import DenseCRF2D

    height, width = image.shape[:2]
    field = DenseCRF2D(width, height, len(logits))
    field.setUnaryEnergy(unary_energy(logits, (height, width)))
    field.addPairwiseGaussian(**SMOOTHNESS)
    field.addPairwiseBilateral(rgbim=np.ascontiguousarray(image[..., ::-1]), **APPEARANCE)
    scores = np.asarray(field.inference(STEPS)).reshape(len(logits), height, width)
    return scores.argmax(0).astype(np.int32 if is_wide(len(logits)) else np.uint8)


def unary_energy(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """-log of the softmax at (H, W), float32 [C, H * W]; probabilities are clamped to at least 1e-5."""
    large = F.interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=False)[0]
    return -large.softmax(0).clamp(1e-5, 1).log().flatten(1).contiguous().numpy()
