"""One pass over a validation set: predictions, confusion matrix, and the metrics of novel class discovery."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from losses.eums import image_entropy
from utils import dist
from utils.errors import EXIT_DONE, EXIT_EXPECTATION_MISSED, UserError
from utils.measure.metrics import Absent, MatchingRule, apply_match, confusion_matrix, match_clusters, summarize
from utils.run import Run


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module gets its own mode back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.inference_mode()
def predict(
    forward: Callable[[torch.Tensor], Any], model: nn.Module, loader, run: Run, title: str
) -> Iterator[tuple[dict, Any]]:
    """(batch, forward(images)) over a loader, in evaluation mode; images arrive on the device as uint8 [B, 3, H, W]."""
    with eval_mode(model):
        for batch in tqdm(loader, desc=title, leave=False, disable=None if dist.is_main() else True):
            images = batch["image"].to(run.device, non_blocking=True)
            with run.autocast():
                output = forward(images)
            yield batch, output


def confusion(
    model: nn.Module, loader, run: Run, *, num_true: int, num_pred: int, title: str = "validation"
) -> torch.Tensor:
    """Confusion matrix int64 [num_true, num_pred] at network resolution, summed over processes."""
    total = torch.zeros(num_true, num_pred, dtype=torch.int64, device=run.device)
    for batch, output in predict(lambda x: model(model.normalize(x)), model, loader, run, title):
        total += confusion_matrix(output.logits.argmax(1), batch["label"].to(run.device), num_pred, num_true)
    return dist.sum_(total)


def discovery_metrics(
    matrix: torch.Tensor,
    names: list[str],
    num_known: int,
    rule: MatchingRule,
    absent: Absent,
    match_on: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Metrics after giving every cluster a novel class.

    matrix int64 [B+1+n, B+1+K]: rows are true classes, columns network outputs; `num_known` is B+1. Clusters are
    matched on `match_on` when given (the network-resolution matrix of the same pass), else on `matrix`.
    """
    match = match_clusters(matrix if match_on is None else match_on, num_known, rule)
    square = apply_match(matrix, match, num_known)
    groups = {"base": list(range(1, num_known)), "novel": list(range(num_known, len(names)))}
    pairs = [[int(cluster), int(novel)] for cluster, novel in enumerate(match)]
    return {**summarize(square, names, groups, absent), "match": pairs}


def missed(expected: dict[str, float] | None, metrics: dict) -> list[str]:
    """The figures of `expected` that were not reached, within `tol`."""
    wanted = dict(expected or {})
    tolerance = wanted.pop("tol", 0.0)
    unknown = [name for name in wanted if metrics.get(name) is None]
    if unknown:
        raise UserError(
            f"expected.{unknown[0]}: no such figure; metrics.json has {', '.join(k for k in metrics if 'miou' in k)}"
        )
    return [
        f"{name} {metrics[name]:.4f} < {value:.4f}"
        for name, value in wanted.items()
        if metrics[name] < value - tolerance
    ]


def expectation_status(expected: dict[str, float] | None, metrics: dict) -> int:
    """Exit status: done, or expectation missed, after saying by what."""
    problems = missed(expected, metrics)
    if problems and dist.is_main():
        print(f"FAIL: {'; '.join(problems)}")
    return EXIT_EXPECTATION_MISSED if problems else EXIT_DONE


def entropy_scores(model: nn.Module, loader, run: Run, num_known: int) -> list[float]:
    """Normalised entropy of every image over its novel pseudo-label pixels, in the order of the data set.

    Clustering pseudo labels mark the novel pixels (label >= B+1, not ignored). NaN for an image without any.
    """
    scores: dict[int, float] = {}
    for batch, output in predict(lambda x: model(model.normalize(x)), model, loader, run, "entropy"):
        pseudo = batch["pseudo"].to(run.device)
        values = image_entropy(output.logits.float(), (pseudo >= num_known) & (pseudo != 255))
        scores |= dict(zip(batch["index"].tolist(), values.tolist(), strict=True))
    everywhere = {index: score for part in dist.gather(scores) for index, score in part.items()}
    return [everywhere[index] for index in sorted(everywhere)]
