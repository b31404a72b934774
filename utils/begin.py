"""What an entry script does first, before imports that take seconds: without any but Python's own.

Ctrl-C is one word from here on; help, mistakes and finished stages are answered (utils.early).
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from utils.errors import EXIT_KEYBOARD


def answer(usage: str, script: str, systems: tuple[str, ...] = (), **options: Any) -> None:
    """utils.early.answer, whose own imports take a part of a second."""
    quiet()
    from utils import early

    early.answer(usage, script, systems, **options)


def quiet() -> None:
    """From here on Ctrl-C ends the process at once with one word, until `utils.entry.entry` runs the script's main."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, _leave)


def usual() -> None:
    """From here on it is KeyboardInterrupt again, if `quiet` was called."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(EXIT_KEYBOARD)
