import multiprocessing
import time
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from data.dataset import Draw, SegmentationDataset
from data.io import one_opencv_thread
from data.layouts import index_samples
from data.loading import EpochBatches, Source, eval_loader
from data.transforms import TrainTransform, ValTransform


class Numbers(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, draw: Draw | int) -> int:
        return draw[0] if isinstance(draw, tuple) else draw


def batches(epoch: int, steps: range, size=10, batch_size=4, seed=1, name="base") -> list[list[Draw]]:
    sampler = EpochBatches(size, batch_size, seed, name)
    sampler.select(epoch, steps)
    assert len(sampler) == len(steps)
    return list(sampler)


def test_every_pass_holds_each_image_once():
    draws = [draw for batch in batches(0, range(5)) for draw in batch]  # 20 draws from 10 images
    for cycle in (0, 1):
        assert sorted(draw.index for draw in draws if draw.cycle == cycle) == list(range(10))
    assert [draw.cycle for draw in draws] == [0] * 10 + [1] * 10
    assert [d.index for d in draws[:10]] != [d.index for d in draws[10:]]
    assert len({*draws}) == 20  # so that no augmentation comes twice


def test_any_step_can_be_reached_directly():
    assert batches(3, range(5, 9)) == batches(3, range(9))[5:]


def test_order_depends_on_seed_name_and_epoch():
    keys = ((0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"))
    orders = [batches(epoch, range(2), seed=seed, name=name) for epoch, seed, name in keys]
    assert len({tuple(draw.index for batch in order for draw in batch) for order in orders}) == 4


@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_share_each_batch(ranks, monkeypatch):
    whole = batches(2, range(3))
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    parts = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(batches(2, range(3)))
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert {len(share) for share in shares} == {4 // ranks}
        assert sorted(draw for share in shares for draw in share) == sorted(batch)


@given(
    size=st.integers(1, 12),
    batch_size=st.integers(1, 7),
    ranks=st.integers(1, 3),
    first=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 3),
)
def test_every_draw_is_that_of_one_long_list(size, batch_size, ranks, first, seed, epoch):
    """Reference: consecutive passes over the images, cut into batches, whose images are dealt to processes in turn."""
    cycles = range((first + 3) * batch_size // size + 1)
    orders = [np.random.default_rng([seed, zlib.crc32(b"base"), epoch, cycle]).permutation(size) for cycle in cycles]
    listed = [Draw(int(index), epoch, cycle) for cycle, order in enumerate(orders) for index in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(ranks))
        for rank in range(ranks):
            patch.setenv("RANK", str(rank))
            found = batches(epoch, range(first, first + 3), size=size, batch_size=batch_size, seed=seed)
            expected = [listed[step * batch_size : (step + 1) * batch_size] for step in range(first, first + 3)]
            assert found == [whole[rank::ranks] for whole in expected]


def test_evaluation_reads_every_sample_once_in_order(monkeypatch):
    assert torch.cat(list(eval_loader(Numbers(), 4, workers=0, pin=False))).tolist() == list(range(10))
    monkeypatch.setenv("WORLD_SIZE", "3")
    shards = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shards.append(torch.cat(list(eval_loader(Numbers(), 4, workers=0, pin=False))).tolist())
    assert sorted(sum(shards, [])) == list(range(10)) and max(map(len, shards)) == 4


@pytest.mark.parametrize("max_side", [None, 20])
def test_labels_come_at_the_size_of_their_files_if_asked_for(voc, max_side):
    samples = index_samples(voc, [f"t{i:03d}" for i in range(3)], fields=("image", "label"))
    dataset = SegmentationDataset(samples, ("image", "label"), transform=ValTransform(16), max_side=max_side)
    (plain,) = eval_loader(dataset, 3, workers=0, pin=False)
    (batch,) = eval_loader(dataset.with_native(), 3, workers=0, pin=False)
    assert batch.keys() - plain.keys() == {"native"} and batch["label"].shape == (3, 16, 16)
    for index, label in enumerate(batch["native"]):
        assert label.numpy().shape == tuple(batch["size"][index]) and np.array_equal(label, dataset.native(index))


def test_workers_do_not_change_the_samples(voc):
    samples = index_samples(voc, [f"t{i:03d}" for i in range(7)], fields=("image", "label"))
    dataset = SegmentationDataset(samples, ("image", "label"), transform=TrainTransform(16), seed=5)
    alone, workers = (Source("novel", dataset, 3, seed=5, workers=n, pin=False) for n in (0, 2))
    assert alone.steps_per_pass == workers.steps_per_pass == 2
    for epoch, steps in ((0, range(3)), (1, range(1, 3))):  # the second starts in the middle, as after a resume
        pairs = list(zip(alone.epoch(epoch, steps), workers.epoch(epoch, steps), strict=True))
        assert len(pairs) == len(steps)
        for one, two in pairs:
            assert one["image"].shape == (3, 3, 16, 16) and one["image"].dtype == torch.uint8
            assert one["size"].tolist() == [[40, 40]] * 3
            assert all(torch.equal(one[name], two[name]) for name in ("image", "label", "index", "size"))


def test_workers_start_when_opencv_has_threads_already():
    """A forked worker lacks the parent's threads; setNumThreads(1) would wait for them forever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.resize(np.zeros((1024, 1024, 3), np.uint8), (2048, 2048), interpolation=cv2.INTER_CUBIC)
        time.sleep(0.2)  # they spin a while before they sleep
        worker = multiprocessing.get_context("fork").Process(target=one_opencv_thread)
        worker.start()
        worker.join(timeout=10)
        ended = worker.exitcode
        worker.kill()
    finally:
        cv2.setNumThreads(before)
    assert ended == 0


def test_loaders_leave_the_global_random_state_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    source = Source("base", Numbers(), 4, seed=0, workers=0, pin=False)
    list(source.epoch(0, range(2)))
    list(eval_loader(Numbers(), 4, workers=0, pin=False))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])
