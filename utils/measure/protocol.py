"""The evaluation protocol of a network: images, meaning of the outputs, size. Used by recipes and by eval.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from utils.channels import largest
from utils.config.common import MatchingRule
from utils.measure.confusion import Counts, Labelled, Maps, Save, count, predict, respond
from utils.measure.metrics import as_array
from utils.measure.spec import Spec, confusion_metrics
from utils.measure.sweep import Sweep
from utils.run import Run

Classes = list[tuple[int, str]]  # (class number in the masks, name) of each output


def number_table(classes: Classes) -> np.ndarray:
    """Look-up table from output to class number, uint8, or uint16 if a number exceeds 255."""
    numbers = [number for number, _ in classes]
    return np.array(numbers, np.min_scalar_type(max(numbers)))


# network output -> winning output of each pixel [B, h, w]; with the file size as second argument, [B, H, W]
Decide = Callable[..., torch.Tensor]


def most_likely(output: Any) -> torch.Tensor:
    """The output with the largest logit."""
    return largest(output.logits)[1]


def no_classes(_metrics: dict[str, Any]) -> Classes:
    return []


@dataclass(frozen=True)
class EvalProtocol:
    """`native` counts pixels at file size; clusters are still matched at network resolution."""

    loader: DataLoader
    spec: Spec
    name: str = "network resolution"  # as in metrics.json
    native: bool = False
    sized: bool = False  # the network decides at file size; images of a batch have equal size
    truth: str = "label"  # field of the batch
    later: int | None = None  # how labels of classes without a row count, see confusion.count
    classes: Callable[[dict[str, Any]], Classes] = no_classes  # of the outputs, given the metrics
    stage: str = ""  # stage of the network, part of the name of eval.py's folder
    about: dict[str, Any] = field(default_factory=dict)  # more for metrics.json
    sweep: Sweep | None = None  # eval.py: calibrated bias of the first network

    @property
    def images(self) -> Labelled:
        """The whole data set, not only the share of this process."""
        share: Any = self.loader.dataset  # a torch Subset
        return share.dataset

    def count(self, predictions, run: Run, networks: int = 1, save: Save | None = None) -> Counts:
        """Confusion matrices of label maps, see confusion.count; at one size only if there are no clusters."""
        return count(
            predictions,
            (networks, self.spec.num_true, self.spec.num_outputs),
            run,
            truth=self.truth,
            later=self.later,
            native=self.images if self.native else None,
            network=not self.native or self.spec.num_known is not None,
            save=save,
        )

    def metrics(self, counts: Counts, place: int = 0, rule: MatchingRule | None = None) -> dict[str, Any]:
        """Metrics of one of the counted networks."""
        match_on = None if counts.network is None else as_array(counts.network)[place]
        matrix = match_on if counts.native is None else as_array(counts.native)[place]
        assert matrix is not None  # counted at one size at least
        return confusion_metrics(matrix, self.spec, match_on, rule)

    def score(self, network: nn.Module, run: Run, decide: Decide = most_likely, title: str = "validation") -> dict:
        """Metrics of one network."""
        counts = self.count(label_maps([network], decide, self.loader, run, title, sized=self.sized), run)
        return self.metrics(counts) | {"protocol": self.name} | self.about


@torch.inference_mode()
def label_maps(
    networks: Sequence[nn.Module],
    decide: Decide,
    loader,
    run: Run,
    title: str,
    sweep: Sweep | None = None,
    sized: bool = False,
) -> Iterator[tuple[dict, Maps]]:
    """Yields (batch, label maps [B, M, h, w]) of M networks in one pass over a loader.

    `sweep` counts the logits of the first network. With `sized`, the maps have file size.
    """

    def forward(images: torch.Tensor) -> tuple[list[Any], Any]:
        outputs = [respond(network, images) for network in networks]
        return outputs, sweep.leads(outputs[0].logits) if sweep else None

    for batch, (outputs, found) in predict(forward, nn.ModuleList(networks), loader, run, title):
        if sweep:
            sweep.count(found, batch["label"].to(run.device))
        size = (tuple(batch["size"][0].tolist()),) if sized else ()
        yield batch, torch.stack([decide(output, *size) for output in outputs], 1)
