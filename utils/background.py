"""Files are written by threads while the network already computes the next batch."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

MOST = 64  # calls that wait or run: what they hold stays in memory


class Background:
    """A `with` block whose calls run on threads; it ends when all are done, and raises what one of them raised."""

    def __init__(self) -> None:
        self.pool, self.pending = ThreadPoolExecutor(), deque[Future]()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """function(*arguments) some time; waits for the oldest call when many are under way."""
        self.pending.append(self.pool.submit(function, *arguments))
        while len(self.pending) > MOST:
            self.pending.popleft().result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_details: Any) -> None:
        try:
            while self.pending and kind is None:
                self.pending.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
