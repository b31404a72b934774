"""Predictions against the masks of a data set at the masks' own size."""

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.contrib.concurrent import thread_map

from data.dataset import SegmentationDataset
from data.io import read_label, write_label
from utils.measure.metrics import confusion_matrix


def image_confusions(
    dataset: SegmentationDataset,
    indices: list[int],
    maps: np.ndarray | list[np.ndarray],
    num_true: int,
    num_pred: int,
    save_to: Path | None = None,
) -> torch.Tensor:
    """A confusion matrix per image and prediction, int64 [B, M, num_true, num_pred].

    maps uint8 [M, H, W] for each of B samples `indices`: M predictions, brought to the size of the mask by nearest
    neighbour. `save_to` takes the first of each as <id>.png. The label map of the data set applies.
    """

    def compare(index: int, predictions: np.ndarray) -> torch.Tensor:
        sample = dataset.samples[index]
        truth = dataset.maps["label"](read_label(sample.label), where=str(sample.label))
        resized = [cv2.resize(p, truth.shape[::-1], interpolation=cv2.INTER_NEAREST) for p in predictions]
        if save_to:
            write_label(save_to / f"{sample.id}.png", resized[0])
        label = torch.from_numpy(truth)
        return torch.stack([confusion_matrix(torch.from_numpy(p), label, num_pred, num_true) for p in resized])

    return torch.stack(thread_map(compare, indices, maps, disable=True))
