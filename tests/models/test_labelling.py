"""The fusion of a network's probabilities with a pseudo-label, by hand."""

import torch

from models.labelling import fuse

PROBABILITIES = torch.tensor([0.4, 0.3, 0.2, 0.1])  # background, a known class, two clusters


def fused(*pseudo: int, **options) -> torch.Tensor:
    """Posterior [outputs, pixels] of pixels with the same probabilities and these pseudo-labels."""
    label = torch.tensor([pseudo])
    return fuse(PROBABILITIES[:, None, None].expand(-1, 1, len(pseudo)), label, num_known=2, **options)[:, 0]


def test_bayes_by_hand():
    found = fused(2, 0, odds=2.0)  # cluster 3 is in no pixel
    torch.testing.assert_close(found[:, 0], torch.tensor([0.4, 0.3, 0.4, 0.0]) / 1.1)
    torch.testing.assert_close(found[:, 1], torch.tensor([0.8, 0.3, 0.2, 0.0]) / 1.3)


def test_ignored_pixels_take_the_network_among_the_clusters_of_the_image():
    found = fused(2, 255, odds=2.0)
    torch.testing.assert_close(found[:, 1], torch.tensor([0.4, 0.3, 0.2, 0.0]) / 0.9)
    torch.testing.assert_close(fused(255)[:, 0], torch.tensor([0.4, 0.3, 0.0, 0.0]) / 0.7)


def test_large_odds_give_the_pseudo_label_and_even_odds_the_network():
    assert fused(3, 1, 2, 0, odds=100.0).argmax(0).tolist() == [3, 1, 2, 0]
    torch.testing.assert_close(fused(3, 2, odds=1.0)[:, 0], PROBABILITIES)
