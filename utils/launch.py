"""torchrun with the exit status of its processes: 75 if a signal stopped them and they saved their state.

    python -m utils.launch --standalone --nproc_per_node=2 train_base.py CONFIG.yaml

Takes the options of torchrun. Plain torchrun would exit with status 1 and a traceback, and would not pass on SIGUSR1.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from utils.errors import EXIT_INTERRUPTED

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def main(argv: list[str] | None = None) -> int:
    """Run torchrun with these arguments; return the status of the first process that failed, or 0."""
    arguments = sys.argv[1:] if argv is None else argv
    if "--signals-to-handle" in run.get_args_parser().format_help():  # newer torch
        arguments = [f"--signals-to-handle={SIGNALS}", *arguments]
    try:
        run.main(arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException:  # passed on to the processes, which have saved their state
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
