"""Exit statuses, the exception for every mistake of a user, and the line that is shown for an error."""

EXIT_DONE = 0
EXIT_EXPECTATION_MISSED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # stopped by a signal; the same command continues (EX_TEMPFAIL of sysexits.h)
EXIT_KEYBOARD = 130  # Ctrl-C before anything can be saved; the shells' convention


class UserError(ValueError):
    """Wrong input. The message is one line: the file or key, what is wrong, and what would be right."""


def missing_package(what: str, *packages: str, instead: str = "") -> UserError:
    """The error that `what` needs packages which are not installed; `instead` says what works without them."""
    names = " ".join(packages)
    cure = f"pip install {names}; all optional packages: requirements-optional.txt"
    return UserError(f"{what} needs {' and '.join(packages)} ({cure})" + (f", or {instead}" if instead else ""))


class Interrupted(Exception):
    """A signal stopped the run; the same command continues it."""


def one_line(error: BaseException) -> str:
    """The message on one line. OSError includes the file; the traceback of a DataLoader worker is removed."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if "DataLoader worker" in text and "Traceback" in text:
        return text.rsplit("Error: ", 1)[-1].strip()
    return " ".join(text.split()) or type(error).__name__


def from_outside(error: BaseException) -> str | None:
    """One line for an error of the machine: disk, memory, a killed process. None for any other."""
    name, text = type(error).__name__, one_line(error)
    if isinstance(error, OSError):
        return text
    if isinstance(error, UnicodeDecodeError):
        return f"a text file is not UTF-8 ({text})"
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return f"out of memory ({text[:200]}); a smaller batch_size, accumulate=2 or fewer data.workers needs less"
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        return f"{text.split('. ')[0]}; memory may have run out: fewer data.workers need less, the same command goes on"
    return None
