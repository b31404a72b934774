"""torchrun, whose exit status is that of the processes it started: 75 when a signal stopped them and they saved.

    python -m utils.launch --standalone --nproc_per_node=2 train_base.py CONFIG.yaml

takes the options of torchrun, which itself ends with status 1 and a traceback then, and passes SIGUSR1 on as well.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from utils.errors import EXIT_INTERRUPTED

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def main(argv: list[str] | None = None) -> int:
    """Run torchrun with these arguments; the status of the process that ended first with another one than 0."""
    arguments = sys.argv[1:] if argv is None else argv
    if "--signals-to-handle" in run.get_args_parser().format_help():  # of newer torch
        arguments = [f"--signals-to-handle={SIGNALS}", *arguments]
    try:
        run.main(arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException:  # it was passed on; the processes saved what they could
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
