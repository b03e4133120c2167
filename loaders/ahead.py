"""A generator that runs ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over a generator that works in another thread, up to some items ahead.

    What the generator raises is raised here, in its place among the items. ``close`` stops the
    thread and closes the generator in it; so does being forgotten, and the end of the program.
    """

    def __init__(self, source: Generator[T, None, None], depth: int) -> None:
        """Start the thread.

        Args:
            source: does the work; only the thread touches it from now on.
            depth: items that may lie ready, at least 1.
        """
        self._state: _State[T] = _State(depth)
        # The thread knows the state alone: it must not keep this object alive.
        thread = threading.Thread(target=_work, args=(source, self._state), daemon=True)
        self._stop = weakref.finalize(self, _stop, self._state, thread)
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
    except BaseException as error:  # whatever it is, the consumer has to see it
        state.error = error
    finally:
        source.close()
        with state.changed:
            state.is_done = True
            state.changed.notify_all()


def _stop(state: _State[T], thread: threading.Thread) -> None:
    with state.changed:
        state.is_stopping = True
        state.changed.notify_all()
    # A generator that is forgotten may be collected in the very thread that it started.
    if thread is not threading.current_thread():
        thread.join()
    state.items.clear()
