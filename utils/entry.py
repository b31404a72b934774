"""How a command begins and ends: early answers before torch is imported, and documented exit statuses.

This is apart from utils.run_folder because it must take effect before the imports below take their time, and because
commands without stages (collect.py, predict.py) need it without a configuration. Nothing here imports torch.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from utils.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_KEYBOARD,
    EXIT_USER_ERROR,
    Interrupted,
    UserError,
    from_outside,
    one_line,
)
from utils.log import log

if TYPE_CHECKING:
    from utils.config.common import Common

Main = Callable[[list[str] | None], int | None]


def answer(
    usage: str, script: str, systems: tuple[str, ...] = (), show: Callable[..., int | None] | None = None
) -> "Common":
    """Exit if the command line asks for help, contains a mistake, or asks for finished stages; else the configuration.

    An entry script calls this before its other imports. `usage`, `script` and `systems` are those of `load_config`.
    `show(cfg, *folders)` shows the results of finished stages and returns the exit status, None for 0.
    """
    quiet_interrupt()
    from utils.config.reader import load_config  # the imports take a fraction of a second, in which Ctrl-C may come
    from utils.ranks import launched
    from utils.run_folder import describe_finished, finished_command

    try:
        with _warnings_of_the_end():
            cfg: Common = load_config(None, usage, script, systems)
            folders = finished_command(cfg, script) if cfg.resume == "auto" and not launched() else []
        if not folders:
            return cfg
        for folder in folders:
            print(describe_finished(cfg, folder))
        status = show(cfg, *folders) if show else None
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    raise SystemExit(status or EXIT_DONE)


@contextlib.contextmanager
def _warnings_of_the_end() -> Iterator[None]:
    """Warnings of the block are shown only if it ends the command; otherwise `main` reads the same and shows them."""
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    log.addFilter(hold)
    try:
        yield
        held.clear()
    finally:
        log.removeFilter(hold)
        for record in held:
            log.handle(record)


def entry(main: Main) -> None:
    """Run the main function of an entry script and exit with the documented status."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(guarded(main))


def guarded(main: Main, argv: list[str] | None = None) -> int:
    """The exit status of `main(argv)`; errors of the user and of the machine become one line on stderr."""
    try:
        return main(argv) or EXIT_DONE
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)  # on any rank: it may concern the images of one alone
        return EXIT_USER_ERROR
    except Interrupted as stop:
        log.warning("%s", stop)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_KEYBOARD
    except Exception as error:
        if (line := from_outside(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return EXIT_USER_ERROR
    finally:
        if "utils.dist" in sys.modules:  # otherwise there are no other processes, and torch need not be imported
            sys.modules["utils.dist"].shutdown()


def quiet_interrupt() -> None:
    """Ctrl-C ends the process with one word instead of a traceback, until `entry` runs the main function."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # jobs in the background of a shell ignore it
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(EXIT_KEYBOARD)
