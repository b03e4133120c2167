"""Signals while shards are written: every file is good at any moment, so stopping is simple."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..errors import StoppedBySignal


@contextlib.contextmanager
def stopping_on_signals(message: str) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into StoppedBySignal.

    Args:
        message: what the user has to know after the name of the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; its owner decides
        return

    def stop(number: int, _frame: object) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # the tidying up is not interrupted
        raise StoppedBySignal(f"{signal.Signals(number).name}; {message}")

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
