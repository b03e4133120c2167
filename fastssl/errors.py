"""What can go wrong by the user's hand, and the exit code that says so."""


class InputError(ValueError):
    """A wrong input: the message names it, what was given, what is wanted, and the remedy."""


class RunFailed(RuntimeError):
    """A run stopped itself for a reason that its message tells whole; no traceback says more."""


class StoppedBySignal(Exception):
    """The work was stopped by a signal after everything was saved; run it again to go on."""
