"""A classifier of additional classes, from a trained generator and their word vectors.

C classes, n new ones, D features, E length of a word vector.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from models.segmentation import SegmentationNet
from models.zeroshot.generators import Generator
from utils.errors import UserError

STEPS, SAMPLES, RATE = 300, 32, 0.01  # of Adam; generated features per class and step; learning rate
SEED = 0  # fixed, so that the classifier is reproducible


def add_classes(
    network: SegmentationNet[nn.Conv2d],
    generator: Generator,
    known: torch.Tensor,
    new: torch.Tensor,
    noise: Literal["uniform", "gaussian"] = "uniform",
) -> None:
    """Appends n outputs to the classifier of a network, in place.

    The new rows are trained to classify generated features of all classes; the rows of the C known classes stay fixed.
    known [C, E], new [n, E] word vectors. Raises UserError if the generator takes other vectors.
    """
    inputs = generator.inputs
    if known.shape[1] != new.shape[1] or inputs <= new.shape[1]:
        raise UserError(
            f"word vectors of {new.shape[1]} numbers: the generator takes {inputs} with the noise, and was trained on "
            f"vectors of {known.shape[1]}; give the embeddings of its training"
        )
    old = network.classifier
    assert old.bias is not None
    weight, bias = old.weight.detach().flatten(1), old.bias.detach()
    rows = learn_rows(generator.to(weight.device), weight, bias, torch.cat([known, new]).to(weight.device), noise)
    grown = nn.Conv2d(old.in_channels, len(weight) + len(new), 1).to(weight.device)
    assert grown.bias is not None
    with torch.no_grad():
        grown.weight.copy_(torch.cat([weight, rows[0]])[..., None, None])
        grown.bias.copy_(torch.cat([bias, rows[1]]))
    network.classifier = grown


def learn_rows(
    generator: Generator,
    weight: torch.Tensor,
    bias: torch.Tensor,
    vectors: torch.Tensor,
    noise: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight [n, D], bias [n]) of the last n classes of `vectors` [C + n, E]; the first C have `weight` and `bias`.

    Minimises the cross-entropy of generated features, equally many per class; starts from the mean of the known rows.
    """
    count, added = len(vectors), len(vectors) - len(weight)
    new_weight = weight.mean(0).repeat(added, 1).requires_grad_()
    new_bias = bias.mean().repeat(added).requires_grad_()
    optimizer = torch.optim.Adam([new_weight, new_bias], lr=RATE)
    which = torch.arange(count, device=weight.device).repeat_interleave(SAMPLES)
    width = generator.inputs - vectors.shape[1]
    draws = torch.Generator().manual_seed(SEED)
    draw = torch.rand if noise == "uniform" else torch.randn
    for _ in range(STEPS):
        with torch.no_grad():
            features = generator(vectors, draw((len(which), width), generator=draws).to(weight.device), which)
        logits = F.linear(features, torch.cat([weight, new_weight]), torch.cat([bias, new_bias]))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, which).backward()
        optimizer.step()
    return new_weight.detach(), new_bias.detach()
