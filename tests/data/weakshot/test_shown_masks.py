"""Proposals in files: written for images that show novel classes, read back as they were."""

import numpy as np
import torch

from data.weakshot.shown_masks import SHOWN, read_proposals, write_proposals
from tests.weakshot_data import TEST, make_stuff, open_data


def test_proposals_survive_their_files(tmp_path):
    data = open_data(make_stuff(tmp_path / "stuff"), tmp_path / "out", dataset="cocostuff10k", split="split1")
    sizes = []

    def propose(image):
        sizes.append(image.shape[0])
        masks = torch.zeros(1, SHOWN, 4, 4)
        masks[0, 1] = 1
        return torch.arange(SHOWN)[None], torch.linspace(1, 0, SHOWN)[None], masks

    assert read_proposals(tmp_path) is None
    write_proposals(tmp_path, data, propose)
    found = read_proposals(tmp_path)
    assert list(found) == list(TEST) and sizes == [3] * len(TEST)
    masks, scored = found["COCO_train2014_000000000011"]
    assert (
        masks.dtype == np.uint8
        and masks.shape == (SHOWN, 4, 4)
        and masks.reshape(SHOWN, -1).max(1).tolist() == [0, 255, 0, 0]
    )
    assert [train_id for train_id, _ in scored] == list(range(SHOWN)) and scored[0][1] == 1.0
