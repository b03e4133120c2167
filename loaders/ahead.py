"""Work that runs ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StoppedError(Exception):
    """Work was interrupted because nobody wants it any more."""


class LookAhead(Protocol[T_co]):
    """Items that are made before they are asked for."""

    def __iter__(self) -> Iterator[T_co]:
        """Return itself."""

    def __next__(self) -> T_co:
        """Return the next item; wait for it if need be."""

    def num_ready(self) -> int:
        """Return how many items lie ready."""

    def close(self) -> None:
        """Stop all work and wait for its end; may be called twice."""


class Ahead(Generic[T]):
    """Iterates over a generator that works in another thread, up to some items ahead.

    What the generator raises is raised here, in its place among the items. ``close`` stops the
    thread and closes the generator in it; so does being forgotten, and the end of the program:
    Python takes the lock away from a thread that outlives it, and C++ under that thread aborts.
    """

    def __init__(
        self, source: Generator[T, None, None], depth: int, interrupt: Callable[[], object]
    ) -> None:
        """Start the thread.

        Args:
            source: does the work; only the thread touches it from now on.
            depth: items that may lie ready, at least 1.
            interrupt: ends whatever the source waits for, which may then raise ``StoppedError``;
                called from other threads, before the thread is waited for.
        """
        self._state: _State[T] = _State(depth)
        # The thread knows the state alone: it must not keep this object alive.
        thread = threading.Thread(target=_work, args=(source, self._state), daemon=True)
        self._stop = weakref.finalize(self, _stop, self._state, thread, interrupt)
        self._stop.atexit = False  # close_all comes before
        _open.add(self)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item; wait for it if need be."""
        state = self._state
        with state.changed:
            state.changed.wait_for(lambda: state.items or state.is_done or state.is_stopping)
            if state.items:
                item = state.items.popleft()
                state.changed.notify_all()
                return item
            error, state.error = state.error, None
        if error is not None:
            raise error
        raise StopIteration

    def num_ready(self) -> int:
        """Return how many items lie ready."""
        return len(self._state.items)

    def close(self) -> None:
        """Stop the thread and wait for its end; may be called twice."""
        self._stop()


_open: weakref.WeakSet[Ahead] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Close what is still open.

    At exit it has to come before the libraries that the work uses take themselves down. What is
    registered last is called first: register it again behind the import of one that does so.
    """
    for ahead in list(_open):
        ahead.close()


class _State(Generic[T]):
    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.items: deque[T] = deque()
        self.error: BaseException | None = None
        self.is_done = False
        self.is_stopping = False
        self.changed = threading.Condition()


def _work(source: Generator[T, None, None], state: _State[T]) -> None:
    try:
        for item in source:
            with state.changed:
                state.changed.wait_for(lambda: len(state.items) < state.depth or state.is_stopping)
                if state.is_stopping:
                    break
                state.items.append(item)
                state.changed.notify_all()
            del item  # a batch must not live on because this thread waits for the next
    except StoppedError:
        pass
    except BaseException as error:  # whatever it is, the consumer has to see it
        state.error = error
    finally:
        source.close()
        with state.changed:
            state.is_done = True
            state.changed.notify_all()


def _stop(state: _State[T], thread: threading.Thread, interrupt: Callable[[], object]) -> None:
    with state.changed:
        state.is_stopping = True
        state.changed.notify_all()
    interrupt()
    if thread is threading.current_thread():
        # What is forgotten may be collected in the very thread that it started.
        atexit.register(thread.join)
    else:
        thread.join()
    state.items.clear()


def overlap(begun: Iterable[Callable[[], T]], count: int) -> Generator[T, None, None]:
    """Yield the results of pieces of work in order, the next ones begun before one is waited for.

    Args:
        begun: begins a piece when it is asked for one; to call the piece is to wait for its result.
        count: pieces that are at work at any time.
    """
    at_work: deque[Callable[[], T]] = deque()
    for finish in begun:
        at_work.append(finish)
        if len(at_work) == count:
            yield at_work.popleft()()
    while at_work:
        yield at_work.popleft()()
