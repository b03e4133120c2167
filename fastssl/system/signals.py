"""Signals that ask for a stop: at the end of a step, or at once where every file is good anyway."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ..errors import StoppedBySignal

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class StopSignals:
    """Notes a signal for the end of the step; a context manager that restores the handlers."""

    def __init__(self, is_telling: bool = True) -> None:
        """Note nothing yet.

        Args:
            is_telling: answer Ctrl-C on stderr at once, for a step may take long.
        """
        self.received: signal.Signals | None = None
        self._is_telling = is_telling
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take the signals over."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C means it
        self.received = signal.Signals(number)
        if number == signal.SIGINT and self._is_telling:
            # Past Python's buffers, which may be in use where this interrupts.
            os.write(2, b"\nstopping after this step; Ctrl-C again to abort\n")


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


@contextlib.contextmanager
def postponing_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, where processes are forked.

    In the middle of it KeyboardInterrupt would come out of a half-built object, or of a child.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        signal.raise_signal(signal.SIGINT)
