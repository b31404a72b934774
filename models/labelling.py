"""Labels one photograph of any size: classes and confidence."""

from typing import Literal

import cv2
import numpy as np
import torch

from models.segmenter import Segmenter
from utils.errors import UserError
from utils.labels import IGNORE, ignore_of
from utils.measure.confusion import respond
from utils.measure.protocol import number_table

LabelSource = Literal["network", "pseudo", "fused"]
ODDS = 8.0  # of the pseudo-label's output against any other, in the fusion with the network; see docs/results.md


@torch.inference_mode()
def label_photo(
    segmenter: Segmenter,
    image: np.ndarray,
    device: torch.device,
    pseudo: np.ndarray | None = None,
    source: LabelSource = "network",
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] RGB -> (class numbers uint8 or uint16 [H, W], confidence float32 [H, W]).

    The label comes from the network, from the image's pseudo-label `pseudo` [H, W] of network outputs, or from both
    (`fuse`). Pixels of a cluster without a class get the ignore index. The network must be in evaluation mode on the
    device.
    """
    batch = torch.from_numpy(segmenter.resize(image).transpose(2, 0, 1)[None].copy()).to(device)
    output = respond(segmenter.model, batch)
    if pseudo is None or source == "network":
        outputs, confidence = segmenter.decide(output)[0], segmenter.certainty(output)[0]
    else:
        outputs, confidence = with_pseudo_label(segmenter, output.logits[0], pseudo, fused=source == "fused")
    winner, size = outputs.cpu().numpy().astype(np.uint16), image.shape[:2]  # there may be more than 255 clusters
    label = number_table(segmenter.classes)[_resized(winner, size)]
    return label, cv2.resize(confidence.cpu().numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)


def with_pseudo_label(
    segmenter: Segmenter, logits: torch.Tensor, pseudo: np.ndarray, fused: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs int64 [h, w], their probabilities [h, w]) of a photograph with logits [C, h, w] and a pseudo-label.

    `fused`: the most probable outputs of `fuse`; else those of the pseudo-label, where it is not ignored. Raises
    UserError if the pseudo-label has clusters that the network does not know.
    """
    label = torch.from_numpy(_resized(pseudo, logits.shape[-2:]).astype(np.int64)).to(logits.device)
    known, probabilities = label < segmenter.num_outputs, logits.float().softmax(0)
    if (label[~known] != ignore_of(pseudo)).any():
        raise UserError(
            f"{segmenter.path}: did not learn these pseudo-labels, which have more clusters; train it again"
        )
    if fused:
        confidence, outputs = fuse(probabilities, label, segmenter.num_known).max(0)
        return outputs, confidence
    outputs = torch.where(known, label, probabilities.argmax(0))
    return outputs, probabilities.gather(0, outputs[None])[0]


def fuse(probabilities: torch.Tensor, pseudo: torch.Tensor, num_known: int, odds: float = ODDS) -> torch.Tensor:
    """Posterior [C, h, w] of a network's probabilities [C, h, w] and a pseudo-label, taken as independent evidence.

    pseudo: outputs int64 [h, w]; values from C on are ignored. Clusters (outputs from `num_known` on) that the
    pseudo-label does not show get probability 0: clustering has decided which one is in the image. The output of the
    pseudo-label is `odds` times as likely a priori as any other.
    """
    count = len(probabilities)
    shown = torch.zeros(count, dtype=torch.bool, device=pseudo.device)
    shown[:num_known] = True
    labelled = pseudo < count
    shown[pseudo[labelled].unique()] = True
    prior = torch.ones_like(probabilities).scatter_(0, torch.where(labelled, pseudo, 0)[None], odds)
    posterior = probabilities * torch.where(labelled, prior, 1.0) * shown[:, None, None]
    return posterior / posterior.sum(0).clamp_min(torch.finfo(posterior.dtype).tiny)


def _resized(label: np.ndarray, size: torch.Size | tuple[int, ...]) -> np.ndarray:
    return cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def names_by_number(segmenter: Segmenter) -> list[str]:
    """Class names by number; a number without a name becomes `class <number>`."""
    called = {number: name for number, name in segmenter.classes if number != IGNORE}
    return [called.get(number, f"class {number}") for number in range(1 + max(called))]
