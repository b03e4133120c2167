"""Signals that ask for a stop: noted for the end of a step, raised, or obeyed at once."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from ..errors import RunFailed, StoppedBySignal
from .lifelines import has_launcher

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
"""What a terminal, a scheduler or a user sends to have a process stop."""


class WaitedTooLong(RunFailed):
    """No batch came in time after a signal."""


ABORT_PATIENCE_S = 2.0
"""How long Python may take to come to the second Ctrl-C."""


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

    def __init__(
        self,
        is_telling: bool,
        on_first: Callable[[signal.Signals], None] | None,
        abort: Callable[[], None] | None,
    ) -> None:
        """Note nothing yet."""
        self.received: signal.Signals | None = None
        self._is_telling = is_telling
        self._on_first = on_first
        self._abort = abort
        self._num_presses = 0
        self._has_left = threading.Event()
        self._patience_s = 0.0
        self._error: BaseException | None = None

    def interrupt(self, error: BaseException) -> None:
        """Raise an error in the main thread, as soon as that comes to Python."""
        self._error = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        raise self._error or WaitedTooLong(
            "no batch came after a signal: loader workers were stopped, or the data's disk or "
            "store does not answer; start the same command again to go on from the last checkpoint"
        )

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._num_presses > 1:
            raise KeyboardInterrupt  # the second Ctrl-C means it
        self.received = signal.Signals(number)
        if self._patience_s:
            signal.setitimer(signal.ITIMER_REAL, self._patience_s)

    @contextlib.contextmanager
    def impatient(self, patience_s: float) -> Iterator[None]:
        """Let a signal end the block, where Python waits for what may never come.

        Args:
            patience_s: what the block still has after a signal, in seconds.

        Raises:
            WaitedTooLong: where it has not ended by then.
        """
        self._patience_s = patience_s
        try:
            if self.received is not None:
                signal.setitimer(signal.ITIMER_REAL, patience_s)
            yield
        finally:
            self._patience_s = 0.0
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear of Ctrl-C at once, in a thread of its own.

        Python calls handlers between two of its own instructions: in the middle of a backward pass,
        which may take minutes, it has none, and two presses there look like one.
        """
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        _ears.add(theirs.fileno())
        ear = threading.Thread(target=self._listen, args=(ours,), name="ctrl-c", daemon=True)
        ear.start()
        try:
            yield
        finally:
            self._has_left.set()
            signal.set_wakeup_fd(before)
            _ears.discard(theirs.fileno())
            theirs.shutdown(socket.SHUT_RDWR)  # a forked worker may hold it open
            ear.join()
            theirs.close()
            ours.close()

    def _listen(self, ours: socket.socket) -> None:
        while numbers := ours.recv(1):
            if numbers[0] in STOP_SIGNALS and self._on_first is not None:
                self._on_first(signal.Signals(numbers[0]))
                self._on_first = None
            # torchrun hands the first Ctrl-C on as it is, and the second one as SIGTERM.
            is_second = self._num_presses and has_launcher() and numbers[0] == signal.SIGTERM
            if not is_second and numbers[0] != signal.SIGINT:
                continue
            self._num_presses += 1
            if self._num_presses == 1 and self._is_telling:
                # Past Python's buffers, which may be in use by whom this interrupts.
                os.write(2, b"\nstopping after this step; Ctrl-C again to abort\n")
            elif self._num_presses == 2:
                _thread.interrupt_main()
                if self._abort is not None and not self._has_left.wait(ABORT_PATIENCE_S):
                    self._abort()


_ears: set[int] = set()
"""Where signals of this process are heard of at once."""


def _deafen() -> None:
    """Have a forked child not speak for its parent: one Ctrl-C reaches both."""
    if _ears:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_deafen)


@contextlib.contextmanager
def noting_signals(
    is_telling: bool = True,
    on_first: Callable[[signal.Signals], None] | None = None,
    abort: Callable[[], None] | None = None,
) -> Iterator[StopSignals]:
    """Note a signal, for a process that has to save before it stops.

    The second Ctrl-C is KeyboardInterrupt, as soon as Python comes to it.

    Args:
        is_telling: answer Ctrl-C on stderr at once, for a step may take long.
        on_first: called in another thread with the first signal, at once.
        abort: called in another thread where the block has not ended soon after the second Ctrl-C;
            it ends the process.
    """
    signals = StopSignals(is_telling, on_first, abort)
    with (
        _handling(signals._give_up, (signal.SIGALRM,)),
        _handling(signals._note),
        signals._listening(),
    ):
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
def postponing_signals() -> Iterator[None]:
    """Let signals wait for the end of a block in the middle of which nothing may be raised.

    What a handler raises there would come out of a half-built object, or of a forked child; or it
    would leave a lock of Python's own held, such as a future's, and other threads wait for ever.
    Where the block fails, its error takes the place of what they would have raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = ((number, signal.getsignal(number)) for number in STOP_SIGNALS)
    handlers = {number: handler for number, handler in found if callable(handler)}
    noted: list[int] = []
    with _handling(lambda number, _: noted.append(number), handlers):
        yield
    for number in noted:  # not by raising it anew: it would be heard of twice
        handlers[signal.Signals(number)](number, None)


def stop_at_once_on_signals(code: int) -> None:
    """End at once on a signal while there is nothing to save, with a line of the first rank.

    Args:
        code: exit code.
    """
    is_first = os.environ.get("RANK", "0") == "0"

    def stop(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        line = f"stopped: {name}; start the same command again to go on\n".encode()
        with contextlib.suppress(OSError):
            if is_first:  # a bar may have been left behind, and the echo of the key
                os.write(2, b"\n" + line if os.isatty(2) else line)
        os._exit(code)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
