"""Parts of files of a source, wherever it lies: a store's failure ends a conversion, not a sample.

What a store does not give today it may give tomorrow, so ``--resume`` goes on there. A file of this
machine that cannot be read is a candidate that is left out.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ...errors import InputError, RunFailed
from ...system.files import retried
from ..reader import RETRY_WAIT_S
from ..store import FileState, Store, StoreError
from .entries import LeftOut

if TYPE_CHECKING:
    from ..remote import RemoteStore

# What a store says of a file that will be so tomorrow, and the reason for which it is left out.
_LEFT_OUT = {"missing": "missing", "denied": "denied", "too-long": "too-large"}

NUM_AHEAD = 16
"""Requests of a remote source that are under way at once."""

Result = TypeVar("Result")


def read_part(store: Store, name: str, begin: int, length: int) -> bytes:
    """Read bytes of a file; an I/O error or a short answer is tried again.

    Args:
        store: that the file lies in.
        name: of the file there.
        begin: first byte.
        length: bytes, at least 1.

    Raises:
        RunFailed: if they do not come.
    """
    reason = ""
    for _ in retried(RETRY_WAIT_S * store.patience):
        try:
            content = store.read_range(name, begin, length)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        if len(content) == length:
            return content
        reason = f"{len(content):,} of {length:,} bytes at {begin:,} came"
    raise RunFailed(f"{store.place}/{name}: {reason}; go on later with --resume")


def read_candidate(store: Store, name: str, begin: int, length: int) -> bytes:
    """Read a member of a tar or zip.

    Args:
        store: that the file lies in.
        name: of the file there.
        begin: first byte.
        length: bytes.

    Raises:
        LeftOut: if it is a file of this machine that does not give them.
        RunFailed: if a store does not.
    """
    if not length:
        return b""
    if store.is_remote:
        return read_part(store, name, begin, length)
    try:
        content = store.read_range(name, begin, length)
    except OSError as error:
        raise LeftOut("unreadable", error.strerror or str(error)) from None
    if len(content) < length:
        raise LeftOut("truncated", f"{len(content)} of {length} bytes, then {name} ends")
    return content


def read_whole(store: RemoteStore, name: str, most: int) -> bytes:
    """Read a file that is an entry by itself; what may pass is tried again.

    Args:
        store: that the file lies in.
        name: of the file there.
        most: bytes that it may have.

    Raises:
        LeftOut: if it is not there, too large, or nobody's to read.
        RunFailed: if it does not come.
    """
    reason = ""
    for _ in retried(RETRY_WAIT_S * store.patience):
        try:
            return store.read_file(name, most)
        except StoreError as error:
            reason = str(error)
            if error.kind in _LEFT_OUT:
                raise LeftOut(_LEFT_OUT[error.kind], reason) from None
    raise RunFailed(f"{store.place}/{name}: {reason}; go on later with --resume")


def look_at_file(store: Store, name: str) -> FileState:
    """Return size and ETag of a file.

    Raises:
        InputError: if it cannot be had, or its size is not told.
    """
    try:
        state = store.state(name)
    except OSError as error:
        what = error.strerror or error
        raise InputError(f"{store.place}/{name}: {what}; see that it is there") from None
    if state.size is None:
        raise InputError(f"{store.place}/{name}: its store does not tell its size; copy it here")
    return state


def run_in_order(store: Store, jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Yield the results of reads in order, some of a remote store under way at once.

    Args:
        store: that they read from.
        jobs: the reads.
    """
    waiting: deque[Callable[[], Result]] = deque()
    for job in jobs:
        waiting.append(store.begin(job))
        if len(waiting) == NUM_AHEAD:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def read_parts(
    store: Store, name: str, begin: int, length: int, at_once: int = 4 << 20
) -> Iterator[bytes]:
    """Yield a stretch of a file in pieces; otherwise as ``read_part``.

    Args:
        store: that the file lies in.
        name: of the file there.
        begin: first byte.
        length: bytes in all.
        at_once: bytes of a piece.
    """
    stop = begin + length
    jobs = (
        functools.partial(read_part, store, name, start, min(at_once, stop - start))
        for start in range(begin, stop, at_once)
    )
    return run_in_order(store, jobs)
