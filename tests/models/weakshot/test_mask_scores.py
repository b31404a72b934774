"""Classes of pixels against the official ones, and against whole masks and scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.weakshot import mask_scores
from models.weakshot.mask_scores import View, predict_classes, see, semantic_scores
from models.weakshot.maskformer import MaskOutput

FIXTURES = Path(__file__).parents[2] / "fixtures/weakshot"


def resize(values: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)


def whole(output: MaskOutput, size) -> torch.Tensor:
    """Scores with everything in memory."""
    masks = resize(output.mask_logits[-1], output.padded).sigmoid()
    scores = torch.einsum("bqk,bqhw->bkhw", output.class_logits[-1].softmax(-1)[..., :-1], masks)
    return resize(scores[..., : output.size[0], : output.size[1]], size)


def random(size=(50, 70), padded=(64, 96), images: int = 2, stride: int = 4) -> MaskOutput:
    torch.manual_seed(size[0])
    cells = padded[0] // stride, padded[1] // stride
    return MaskOutput(
        3 * torch.randn(2, images, 5, 8), 5 * torch.randn(2, images, 5, *cells), torch.zeros(1), size, padded
    )


def test_classes_are_the_official_ones(monkeypatch):
    stored = np.load(FIXTURES / "inference.npz")
    logits, masks = (torch.from_numpy(stored[key]).float()[None] for key in ("pred_logits", "pred_masks"))
    size, padded, wanted = (tuple(stored[key].tolist()) for key in ("image_size", "padded_size", "output_size"))
    output = MaskOutput(logits, masks, torch.zeros(1), size, padded)
    monkeypatch.setattr(mask_scores, "PIXELS", 1000)  # 9 rows of a result of 77
    scores = semantic_scores(output, wanted)
    np.testing.assert_allclose(scores[0, ::17, ::7, ::7].numpy(), stored["sem_seg_sample"], atol=1e-4)
    found = predict_classes(output, wanted)
    assert int((found[0].numpy() != stored["argmax"]).sum()) <= stored["margin_lt_1e4"]
    assert torch.equal(found, scores.argmax(1))


@pytest.mark.parametrize("size", [(50, 70), (50, 31), (33, 70), (129, 200), (64, 96), (1, 1)])
@pytest.mark.parametrize("pixels", [1, 700, 2**14])
def test_parts_are_the_whole(monkeypatch, size, pixels):
    monkeypatch.setattr(mask_scores, "PIXELS", pixels)
    output = random()
    torch.testing.assert_close(semantic_scores(output, size), whole(output, size), atol=1e-5, rtol=1e-5)


def test_size_of_the_image_by_default_and_masks_without_stride():
    output = random(size=(64, 96), stride=1)
    torch.testing.assert_close(semantic_scores(output), whole(output, (64, 96)), atol=1e-5, rtol=1e-5)
    assert predict_classes(random()).shape == (2, 50, 70)


def test_views_are_averaged_after_mirroring_back():
    large, small = random(images=1), random((25, 35), (32, 64), 1)
    size = (41, 53)
    wanted = (whole(large, size) + whole(small, size).flip(-1)) / 2
    found = semantic_scores([View(large), View(small, mirrored=True)], size)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


class Columns(nn.Module):
    """A network whose only proposal is where a pixel is bright; it notes what it is given."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return image.float()

    def forward(self, image: torch.Tensor) -> MaskOutput:
        self.seen.append(tuple(image.shape[-2:]))
        size = (image.shape[-2], image.shape[-1])
        logits = torch.tensor([100.0, 0.0]).view(1, 1, 1, 2)
        return MaskOutput(logits, (image[:, :1] / 64 - 2)[None], image, size, size)


def test_augmentation_sees_every_size_twice_and_mirrors_back():
    ramp = torch.linspace(0, 255, 40).byte().expand(1, 3, 30, 40)
    model = Columns()
    views = see(model, ramp, [(30, 40), (15, 20)])
    assert model.seen == [(30, 40)] * 2 + [(15, 20)] * 2
    assert [view.mirrored for view in views] == [False, True] * 2
    torch.testing.assert_close(semantic_scores(views[:2]), semantic_scores(views[0].output))  # mirrored and back
    score = semantic_scores(views)[0, 0]
    assert (score[:, 1:] - score[:, :-1] > -1e-6).all()  # from dark to bright, whatever the view
    torch.testing.assert_close(score[0], score[-1])


def test_memory_is_that_of_a_part(monkeypatch):
    largest = 0
    plain = torch.Tensor.argmax

    def watch(scores: torch.Tensor, *args) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, scores.numel())
        return plain(scores, *args)

    monkeypatch.setattr(torch.Tensor, "argmax", watch)
    monkeypatch.setattr(mask_scores, "PIXELS", 2000)
    predict_classes(random(images=1), (500, 600))
    assert largest <= 7 * 2000
