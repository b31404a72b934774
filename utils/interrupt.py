"""Ctrl-C while a command still imports what it needs: one word instead of a traceback."""

import os
import signal
import sys
from types import FrameType

from utils.errors import EXIT_KEYBOARD


def quiet() -> None:
    """From here on Ctrl-C ends the process at once. For a script before its imports; `utils.run.entry` ends it."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, _leave)


def usual() -> None:
    """From here on it is KeyboardInterrupt again, if `quiet` was called."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(EXIT_KEYBOARD)
