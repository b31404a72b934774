import threading

import pytest

from utils.background import MOST, Background


def test_every_call_is_done_at_the_end_of_the_block():
    done = []
    with Background() as background:
        for number in range(3 * MOST):
            background.call(done.append, number)
        assert len(done) >= 2 * MOST  # no more than so many wait
    assert sorted(done) == list(range(3 * MOST))


def test_the_caller_does_not_wait():
    gate, done = threading.Event(), []
    with Background() as background:
        background.call(lambda: (gate.wait(), done.append(1)))
        assert not done
        gate.set()
    assert done == [1]


def test_an_error_of_a_call_is_that_of_the_block():
    with pytest.raises(OSError, match="disk full"), Background() as background:
        background.call(lambda: (_ for _ in ()).throw(OSError("disk full")))


def test_an_error_of_the_block_goes_first():
    with pytest.raises(ValueError, match="of the block"), Background() as background:
        background.call(lambda: (_ for _ in ()).throw(OSError("disk full")))
        raise ValueError("of the block")
