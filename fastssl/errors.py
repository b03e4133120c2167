"""What can go wrong by the user's hand, and the exit code that says so."""


class InputError(ValueError):
    """A wrong input: the message names it, what was given, what is wanted, and the remedy."""


class RunFailed(RuntimeError):
    """A run stopped itself for a reason that its message tells whole; no traceback says more."""


class StoppedBySignal(Exception):
    """The work was stopped by a signal after everything was saved; run it again to go on."""


def leave_to_another_rank(error: BaseException) -> None:
    """Mark an error that several ranks raise together: one of them says it, this one does not."""
    error.__dict__["is_left_to_another_rank"] = True


def is_left_to_another_rank(error: BaseException) -> bool:
    """Return whether another rank says this error."""
    return error.__dict__.get("is_left_to_another_rank", False)
