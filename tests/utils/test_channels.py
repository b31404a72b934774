import pytest
import torch

from utils.channels import largest, most_probable


def logits(channels_last: bool) -> torch.Tensor:
    """Two images of 12 x 9 pixels and 30 channels, whole numbers: many are equal."""
    drawn = torch.randint(-4, 5, (2, 30, 12, 9), generator=torch.Generator().manual_seed(0)).float()
    return drawn.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("first", [0, 2])
def test_largest_is_max(channels_last, first):
    z = logits(channels_last)[:, first:].requires_grad_()
    value, channel = largest(z)
    expected = z.max(1)
    assert value.equal(expected.values) and channel.equal(expected.indices)
    assert largest(z.bfloat16())[1].equal(channel)


@pytest.mark.parametrize("channels_last", [False, True])
def test_most_probable_is_max_of_softmax(channels_last, monkeypatch):
    monkeypatch.setattr("utils.channels.PART", 1000)  # several parts
    z = logits(channels_last)
    prob, channel = most_probable(z)
    expected = z.softmax(1).max(1)
    torch.testing.assert_close(prob, expected.values)
    assert channel.equal(z.argmax(1))
