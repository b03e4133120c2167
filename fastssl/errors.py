"""What can go wrong by the user's hand, and the exit code that says so."""


class InputError(ValueError):
    """A wrong input: the message names it, what was given, what is wanted, and the remedy."""


class StoppedBySignal(Exception):  # noqa: N818 - it is an outcome, not an error
    """The work was stopped by a signal after everything was saved; run it again to go on."""
