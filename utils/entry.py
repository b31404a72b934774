"""How an entry script ends: its outcome as the documented exit status, with one line where it failed.

Nothing here imports torch, so that scripts which need no network start at once.
"""

import sys
from collections.abc import Callable

from utils import begin
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


def entry(main: Callable[[list[str] | None], int | None]) -> None:
    """Run an entry script's main and turn its outcome into the documented exit status."""
    begin.usual()
    raise SystemExit(guarded(main))


def guarded(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    try:
        return main(argv) or EXIT_DONE
    except UserError as error:  # may have met one process alone, in its share of the images
        print(f"error: {one_line(error)}", file=sys.stderr)
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
        if "utils.dist" in sys.modules:  # else there are no other processes, and torch need not be imported
            sys.modules["utils.dist"].shutdown()
