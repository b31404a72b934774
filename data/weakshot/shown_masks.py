"""Proposals that a mask transformer makes for a few validation images, kept in files for report.py.

n proposals per image, h w cells of their masks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.gallery import pick_images
from data.io import read_array, write_array
from data.weakshot.builder import WeakShotData
from utils.checkpoint import read_json, write_json

FOLDER, LIST = "proposals", "proposals.json"
SHOWN = 4  # proposals per image
Proposals = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # classes [1, n], their scores [1, n], masks [1, n, h, w]
Scored = list[tuple[int, float]]  # (train id, score) of each proposal


def write_proposals(stage: Path, data: WeakShotData, propose: Callable[[torch.Tensor], Proposals]) -> None:
    """<stage>/proposals: those of images that show the novel classes. `propose` takes an image uint8 [3, H, W]."""
    images, listed = data.val_images(), {}
    novel = {data.groups.order[number] for number in data.novel}
    for number, sample in enumerate(pick_images(images.samples, novel)):
        classes, scores, masks = propose(images[images.samples.index(sample)]["image"])
        write_array(stage / FOLDER / f"{number}.npy", (255 * masks[0]).byte().cpu().numpy())
        listed[sample.id] = list(zip(classes[0].tolist(), scores[0].tolist(), strict=True))
    write_json(stage / FOLDER / LIST, listed)


def read_proposals(stage: Path) -> dict[str, tuple[np.ndarray, Scored]] | None:
    """Image id -> (masks uint8 [n, h, w], class and score of each); None if the stage has no proposals."""
    folder = stage / FOLDER
    if not (folder / LIST).is_file():
        return None
    listed: dict[str, Any] = read_json(folder / LIST)
    return {
        image: (read_array(folder / f"{number}.npy"), [(int(train_id), float(score)) for train_id, score in scored])
        for number, (image, scored) in enumerate(listed.items())
    }
