"""What can go wrong by the user's hand, and the exit code that says so."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

EXIT_DONE = 0
EXIT_ELSE = 1
EXIT_INPUT = 2
EXIT_STOPPED = 75

# The machine, not the code, is at fault: say it in one line and spare the user the traceback.
_MACHINE_ERRNOS = {
    errno.ENOSPC: "free some space or choose another place, then run the same command again",
    errno.EDQUOT: "free some of the quota or choose another place, then run the command again",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
}
# A name that no file can have: the user's to change.
_NAME_ERRNOS = {
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ENOTDIR: "a part of it is a file; choose a place in a folder",
    errno.EISDIR: "a folder stands there; remove it, or choose another place",
    errno.ELOOP: "a part of it is a link that leads to itself; mend the link",
}


class InputError(ValueError):
    """A wrong input: the message names it, what was given, what is wanted, and the remedy."""


class RunFailed(RuntimeError):
    """A run stopped itself for a reason that its message tells whole; no traceback says more."""


class StoppedBySignal(Exception):
    """The work was stopped by a signal after everything was saved; run it again to go on."""


def leave_to_another_rank(error: BaseException) -> None:
    """Mark an error that several ranks raise together: one of them says it, this one does not."""
    error.__dict__["is_left_to_another_rank"] = True


def leave_to_first_of_machine(error: BaseException) -> None:
    """Mark an error that all ranks meet by themselves, before they have met each other.

    What is wrong on one machine may be right on the others, so one rank of each says it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        leave_to_another_rank(error)


def is_left_to_another_rank(error: BaseException) -> bool:
    """Return whether another rank says this error."""
    return error.__dict__.get("is_left_to_another_rank", False)


def nearest(given: str, known: Iterable[str], lists_all: bool = False) -> str:
    """Say which known name is nearest, as the tail of an error message.

    Args:
        given: the name that is not known.
        known: the names that are.
        lists_all: name them all, even where one is close: they are what a user chooses from.

    Returns:
        ``"; did you mean 'x'?"`` when one is close, else the list of all known names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    if close and not lists_all:
        return hint
    return f"{hint or ';'} known: {', '.join(known)}"


def nearest_beside(path: Path, only_folders: bool = False) -> str:
    """Say what lies where a path was looked for under nearly its name, as the tail of a message.

    Args:
        path: at which there is nothing.
        only_folders: offer no file.

    Returns:
        ``"; did you mean 'x'?"`` with the place that could have been given, or nothing.
    """
    try:
        names = [e.name for e in path.parent.iterdir() if e.is_dir() or not only_folders]
    except OSError:
        return ""
    # Alike enough that a common suffix alone does not make two names near.
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"; did you mean '{path.with_name(close[0])}'?" if close else ""


def describe_failure(error: BaseException) -> tuple[int, str | None]:
    """Map an exception to an exit code and a one-line message.

    Args:
        error: what ended the command.

    Returns:
        The exit code, and the line for stderr; None where a traceback says more.
    """
    if isinstance(error, StoppedBySignal):
        return EXIT_STOPPED, f"stopped: {error}"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_ELSE, "stopped: Ctrl-C, before it was done"
    if isinstance(error, InputError):
        return EXIT_INPUT, f"error: {error}"
    if isinstance(error, RunFailed):
        return EXIT_ELSE, f"error: {error}"
    if isinstance(error, ImportError) and "pip install" in str(error):
        return EXIT_INPUT, f"error: {error}"
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        where = f"{error.filename}: " if error.filename else ""
        return EXIT_ELSE, f"error: {where}{error.strerror}; {_MACHINE_ERRNOS[error.errno]}"
    if isinstance(error, OSError) and error.errno in _NAME_ERRNOS:
        where = error.filename2 or error.filename  # of a rename what was to be
        return EXIT_INPUT, f"error: {where}: {error.strerror}; {_NAME_ERRNOS[error.errno]}"
    return EXIT_ELSE, None
