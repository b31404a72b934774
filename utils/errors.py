"""The one exception for everything a user can cause, and how it is shown."""

EXIT_DONE = 0
EXIT_EXPECTATION_MISSED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # stopped by a signal, state saved: run the same command again (EX_TEMPFAIL of sysexits.h)


class UserError(ValueError):
    """Wrong input: the message is one line that names the file or key, what was wrong and what would be right."""


class Interrupted(Exception):
    """A signal asked the run to stop, and its state is saved."""


def one_line(error: Exception) -> str:
    """The message without the traceback that a DataLoader worker wraps around it."""
    text = str(error).strip()
    return text.rsplit("UserError: ", 1)[-1].strip() if "DataLoader worker" in text else text
