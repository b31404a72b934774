"""Metrics that a configuration expects an evaluation to reach."""

from collections.abc import Mapping
from typing import Any

from utils.errors import EXIT_DONE, EXIT_EXPECTATION_MISSED, UserError
from utils.ranks import is_main


def missed(expected: dict[str, float] | None, metrics: Mapping[str, Any]) -> list[str]:
    """One text per metric of `expected` that is below its value by more than `tol`."""
    wanted = dict(expected or {})
    tolerance = wanted.pop("tol", 0.0)
    unknown = [name for name in wanted if metrics.get(name) is None]
    if unknown:
        raise UserError(
            f"expected.{unknown[0]}: no such metric; metrics.json has {', '.join(k for k in metrics if 'miou' in k)}"
        )
    return [
        f"{name} {metrics[name]:.4f} < {value:.4f}"
        for name, value in wanted.items()
        if metrics[name] < value - tolerance
    ]


def expectation_status(expected: dict[str, float] | None, metrics: Mapping[str, Any]) -> int:
    """Exit status of an evaluation; prints the metrics that missed their expectation."""
    problems = missed(expected, metrics)
    if problems and is_main():
        print(f"FAIL: {'; '.join(problems)}")
    return EXIT_EXPECTATION_MISSED if problems else EXIT_DONE
