"""Time, speed and memory of stages, from their cost.json."""

from collections.abc import Iterable

from utils.checkpoint import read_json
from utils.errors import UserError
from utils.report.results import Stage

COST = "cost.json"


def cost_table(stages: Iterable[tuple[Stage, str]]) -> list[list[str]]:
    """Seconds, ms per step, images per second and GPU memory of (stage, its split or task), in the order they ended.

    The name of a row includes the split if there are several. Raises UserError for a damaged cost.json.
    """
    found = [(stage, split) for stage, split in stages if (stage.folder / COST).exists()]
    several = len({split for _, split in found}) > 1
    rows = [["stage", "seconds", "ms/step", "images/s", "peak GiB", "precision", "device"]]
    for stage, split in sorted(found, key=lambda pair: (pair[0].folder / COST).stat().st_mtime):
        cost, top = read_json(stage.folder / COST), stage.output_dir(split)
        parts = [part for part in stage.folder.relative_to(top).parts if several or part != split]
        try:
            speed = cost.get("images_per_second") or stage.metrics.get("images", 0) / cost["seconds"]
            cells = [cost["seconds"], cost.get("ms_per_step"), speed, cost["peak_gpu_gib"]]
            shown = ["-" if value is None else f"{value:.1f}" for value in cells]
        except (TypeError, ValueError, ZeroDivisionError):
            raise UserError(f"{stage.folder / COST}: not numbers; damaged, so remove it") from None
        rows.append(["/".join([top.name, *parts]), *shown, cost["amp"], cost["device"]])
    return rows
