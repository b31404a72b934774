"""Processes forked from a test: they have its imports already, which are most of what a new Python costs."""

import os
import signal
import socket
import traceback
from collections.abc import Callable

from utils.errors import UserError


def fork(action: Callable[[], object], **environment: str) -> int:
    """The id of a child that runs `action` and exits with the number it returns, else 0; 2 at a UserError, 1 at any."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        returned = action()
        status = returned if isinstance(returned, int) else 0
    except UserError:
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def in_child(action: Callable[[], object]) -> int:
    """Exit status of a child that runs `action`; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(action), 0)[1])


def on_two_ranks(action: Callable[[], object]) -> None:
    """Run `action` in two processes that find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    running = {fork(action, RANK=rank, LOCAL_RANK=rank, **meeting): rank for rank in ("0", "1")}
    failed = []
    while running:
        pid, status = os.wait()
        rank = running.pop(pid, None)
        if rank is not None and status:
            failed.append(f"rank {rank} ended with {os.waitstatus_to_exitcode(status)}")
            for other in running:  # it would wait for the first one
                os.kill(other, signal.SIGKILL)
    assert not failed, failed
