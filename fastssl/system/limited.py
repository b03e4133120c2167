"""Work on bytes that somebody else made: an item that takes too long, or crashes, ends alone.

A forked child does the items one after the other and hands their results over. The kernel ends it
when an item has taken its time of the CPU, in whatever code it is; the next child goes on behind
that item.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import TypeVar

from ..errors import RunFailed
from .lifelines import die_with

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of the CPU, not of the clock: a busy machine or a slow file server is no fault of the item.
_TIME_IS_UP = signal.SIGPROF
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


@dataclass(frozen=True)
class Ended:
    """An item that ended the process that was at it."""

    number: signal.Signals
    """What ended it."""

    @property
    def was_too_slow(self) -> bool:
        """Whether it took too long; else it crashed."""
        return self.number == _TIME_IS_UP


def _serve(
    function: Callable[[Item], object], items: Sequence[Item], max_seconds: float, pipe: Connection
) -> None:
    """Do the items in the child."""
    signal.signal(_TIME_IS_UP, signal.SIG_DFL)
    for item in items:
        signal.setitimer(signal.ITIMER_PROF, max_seconds)
        try:
            answer = (True, function(item))
        except BaseException as error:
            answer = (False, error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send_bytes(_pack(answer))


def _pack(answer: tuple[bool, object]) -> bytes:
    has_result, content = answer
    try:
        packed = pickle.dumps(answer)
        if not has_result:
            pickle.loads(packed)  # some errors cannot be made again of what they say
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(content).__name__}: {content}")))
    return packed


def _start(
    function: Callable[[Item], object], items: Sequence[Item], max_seconds: float
) -> tuple[int, Connection]:
    ours, theirs = Pipe(duplex=False)
    parent = os.getpid()
    child = os.fork()
    if child:
        theirs.close()
        return child, ours
    try:
        die_with(parent)
        ours.close()
        _serve(function, items, max_seconds, theirs)
    finally:
        os._exit(0)  # nothing of the parent's is tidied up twice


def run_limited(
    function: Callable[[Item], Result], items: Sequence[Item], max_seconds: float
) -> Iterator[Result | Ended]:
    """Do items in a child process.

    The caller must have no threads, and neither must the function.

    Args:
        function: does one; runs in the child. Its result must pickle.
        items: in this order.
        max_seconds: of the CPU that an item may take.

    Yields:
        The result of each item, or that it ended the child.

    Raises:
        RunFailed: if the child was killed from outside.
        BaseException: what the function raised.
    """
    done = 0
    while done < len(items):
        child, pipe = _start(function, items[done:], max_seconds)
        try:
            with pipe:
                while done < len(items):
                    has_result, content = pickle.loads(pipe.recv_bytes())
                    if not has_result:
                        raise content
                    done += 1
                    yield content
            continue
        except EOFError:
            _, status = os.waitpid(child, 0)
            child = 0
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if -code not in (_TIME_IS_UP, *_CRASHES):
            raise RunFailed(
                "the process that decodes images was killed, often because memory ran out: use "
                "fewer workers, and start again"
            )
        done += 1
        yield Ended(signal.Signals(-code))
