"""Logs and summary of a class-incremental task during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.checkpoint import write_json, write_text
from utils.log import log
from utils.measure.forgetting import step_curves, summarize_steps
from utils.report import charts
from utils.report.results import SUMMARY

LEAST_TRUST = 0.2  # share of a class's background pixels that pseudo-labels keep; below it a step warns


def write_summary(metrics: Sequence[dict[str, Any]], groups: Sequence[Sequence[str]], folder: Path) -> None:
    """Write summary.json (last step, means over steps, forgetting) and curve.svg (mIoU over steps; empty for one step).

    `metrics` of each step, `groups` the names of the classes that each step adds.
    """
    write_json(folder / SUMMARY, summarize_steps(metrics, groups))
    curves = step_curves(metrics)
    drawn = charts.curves(curves, charts.STEP_COLORS, "step", percent=True, width=540) if len(metrics) > 1 else ""
    write_text(folder / "curve.svg", drawn)


def log_trust(step: int, names: Sequence[str], thresholds: np.ndarray, shares: np.ndarray) -> None:
    """Log PLOP's entropy threshold and trusted share of background for each old class; warn if a share is small.

    thresholds, shares [old classes]; a share is NaN for a class that no background pixel is assigned to. `names` may
    continue with the new classes.
    """
    found = zip(names, thresholds, shares, strict=False)
    each = [f"{name} {tau:.4f} " + ("-" if np.isnan(share) else f"{share:.0%}") for name, tau, share in found]
    log.info("step %d, entropy threshold and trusted share of background: %s", step, ", ".join(each))
    few = [each[place] for place in np.flatnonzero(shares < LEAST_TRUST)]
    if few:
        text = "step %d: PLOP trusts less than %.0f %% of %s, which may be forgotten; plop.median=exact trusts half"
        log.warning(text, step, 100 * LEAST_TRUST, ", ".join(few))
