"""Tables on the terminal."""

from typing import Any


def print_metrics(metrics: dict[str, Any], title: str) -> None:
    """IoU of every class, then the group means, in per cent."""
    print(title)
    for name, value in metrics["per_class"].items():
        print(f"  {name:24}{'-' if value is None else f'{100 * value:.1f}':>6}")
    for name, value in metrics.items():
        if name.endswith("miou") and value is not None:
            print(f"  {name.replace('_', ' '):24}{100 * value:6.1f}")
