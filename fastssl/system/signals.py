"""Signals that ask for a stop: noted for the end of a step, raised, or obeyed at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from ..errors import StoppedBySignal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
"""What a terminal, a scheduler or a user sends to have a process stop."""


@contextlib.contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], None],
    numbers: Iterable[signal.Signals] = STOP_SIGNALS,
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class StopSignals:
    """The signal that was received, if any; it is obeyed at the end of the step."""

    def __init__(self, is_telling: bool) -> None:
        """Note nothing yet."""
        self.received: signal.Signals | None = None
        self._is_telling = is_telling

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C means it
        self.received = signal.Signals(number)
        if number == signal.SIGINT and self._is_telling:
            # Past Python's buffers, which may be in use where this interrupts.
            os.write(2, b"\nstopping after this step; Ctrl-C again to abort\n")


@contextlib.contextmanager
def noting_signals(is_telling: bool = True) -> Iterator[StopSignals]:
    """Note a signal, for a process that has to save before it stops.

    Args:
        is_telling: answer Ctrl-C on stderr at once, for a step may take long.
    """
    signals = StopSignals(is_telling)
    with _handling(signals._note):
        yield signals


@contextlib.contextmanager
def stopping_on_signals(message: str) -> Iterator[None]:
    """Turn signals into StoppedBySignal, where every file is good at every moment.

    Args:
        message: what the user has to know after the name of the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; its owner decides
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_IGN)  # the tidying up is not interrupted
        raise StoppedBySignal(f"{signal.Signals(number).name}; {message}")

    with _handling(stop):
        yield


@contextlib.contextmanager
def postponing_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, where processes are forked.

    In the middle of it KeyboardInterrupt would come out of a half-built object, or of a child.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    with _handling(lambda number, _: noted.append(number), (signal.SIGINT,)):
        yield
    if noted:
        signal.raise_signal(signal.SIGINT)


def stop_at_once_on_signals(code: int) -> None:
    """End at once on a signal while there is nothing to save yet.

    Args:
        code: exit code.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(code))
