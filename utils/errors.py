"""The one exception for everything a user can cause, and how it is shown."""

EXIT_DONE = 0
EXIT_EXPECTATION_MISSED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # stopped by a signal, state saved: run the same command again (EX_TEMPFAIL of sysexits.h)
EXIT_KEYBOARD = 130  # Ctrl-C where nothing is saved, as shells call it


class UserError(ValueError):
    """Wrong input: the message is one line that names the file or key, what was wrong and what would be right."""


def missing_package(what: str, *packages: str, instead: str = "") -> UserError:
    """What to raise where `what` needs packages that are not installed; `instead` is what can be done without them."""
    names = " ".join(packages)
    cure = f"pip install {names}; all optional packages: requirements-optional.txt"
    return UserError(f"{what} needs {' and '.join(packages)} ({cure})" + (f", or {instead}" if instead else ""))


class Interrupted(Exception):
    """A signal asked the run to stop, and its state is saved."""


def one_line(error: BaseException) -> str:
    """The message without the traceback that a DataLoader worker wraps around it; a system's error with its file."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if "DataLoader worker" in text and "Traceback" in text:
        return text.rsplit("Error: ", 1)[-1].strip()
    return " ".join(text.split()) or type(error).__name__


def from_outside(error: BaseException) -> str | None:
    """One line for an error that neither the input nor this program made: disk, memory, a process that was killed.

    None for any other, whose traceback is worth seeing.
    """
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
