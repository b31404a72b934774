"""How a network is scored: on which images, by what its outputs mean, at which size. Recipes and eval.py share it."""

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
    """Class number of each output, uint8, or uint16 where a number needs it: the table for output maps."""
    numbers = [number for number, _ in classes]
    return np.array(numbers, np.min_scalar_type(max(numbers)))


# what a network returns -> the winning output of each pixel [B, h, w]; given the size of the files, [B, H, W]
Decide = Callable[..., torch.Tensor]


def most_likely(output: Any) -> torch.Tensor:
    """The output with the largest logit."""
    return largest(output.logits)[1]


def no_classes(_metrics: dict[str, Any]) -> Classes:
    return []


@dataclass(frozen=True)
class EvalProtocol:
    """`native` counts at the size of the label files, where clusters are still matched at the network's size."""

    loader: DataLoader
    spec: Spec
    name: str = "network resolution"  # as in metrics.json
    native: bool = False
    sized: bool = False  # networks decide at the size of the files; images of a batch are of one size
    truth: str = "label"  # field of the batch
    later: int | None = None  # what labels of classes without a row count as
    classes: Callable[[dict[str, Any]], Classes] = no_classes  # of the outputs, given the metrics
    stage: str = ""  # which network this is, in the name of eval.py's folder
    about: dict[str, Any] = field(default_factory=dict)  # more for metrics.json
    sweep: Sweep | None = None  # eval.py: what a bias against some classes would make of the first network

    @property
    def images(self) -> Labelled:
        """All images, not the share of this process alone."""
        share: Any = self.loader.dataset  # a torch Subset
        return share.dataset

    def count(self, predictions, run: Run, networks: int = 1, save: Save | None = None) -> Counts:
        """Counts of label maps, see utils.measure.confusion.count; without clusters at one size only."""
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
    """(batch, label maps [B, M, h, w]) of M networks over a loader; the images go through all of them in one pass.

    A sweep counts the logits of the first one on the way. With `sized` the maps are of the size of the files.
    """

    def forward(images: torch.Tensor) -> tuple[list[Any], Any]:
        outputs = [respond(network, images) for network in networks]
        return outputs, sweep.leads(outputs[0].logits) if sweep else None

    for batch, (outputs, found) in predict(forward, nn.ModuleList(networks), loader, run, title):
        if sweep:
            sweep.count(found, batch["label"].to(run.device))
        size = (tuple(batch["size"][0].tolist()),) if sized else ()
        yield batch, torch.stack([decide(output, *size) for output in outputs], 1)
