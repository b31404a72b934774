"""Writing of files in threads while the network computes the next batch."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

MOST = 64  # pending calls; their arguments stay in memory


class Background:
    """Context manager whose calls run in threads; waits for them at its end and raises their first exception.

    If its block raises, calls that have not started are cancelled.
    """

    def __init__(self) -> None:
        self.pool, self.pending = ThreadPoolExecutor(), deque[Future]()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Submit function(*arguments); waits for the oldest call if too many are pending."""
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
