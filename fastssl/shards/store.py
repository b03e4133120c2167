"""Where the files of a dataset lie: one seam for folders and object stores.

A reader asks for bytes by file name, offset and length, and does not know what answers.
"""

from __future__ import annotations

import abc
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..system.files import open_regular

Result = TypeVar("Result")

MAX_OPEN_FILES = 128
"""Shards that one process holds open."""


class StoreError(OSError):
    """A store did not give what it was asked for."""

    def __init__(self, reason: str, kind: str = "failed") -> None:
        """Keep the reason.

        Args:
            reason: one line.
            kind: ``missing``, ``denied``, ``no-ranges``, ``encoded``, ``redirect``, ``too-long``,
                ``slow`` or ``failed``; only the last may pass.
        """
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class FileState:
    """What a store says of a file."""

    size: int | None
    """Its bytes, if it tells."""
    etag: str | None = None
    """What it calls this version of the file, if it does."""


class Store(abc.ABC):
    """The files of one dataset. May be used by several threads; lives through fork."""

    place: Path | str
    """The folder, or the address without a password in it."""
    address: Path | str
    """What opens it again: the folder, or the whole address."""
    is_remote: bool
    """Whether an answer takes a network's time: requests are then made ahead, and several at
    once, and no file's size is asked for when a dataset is opened."""
    patience: int
    """How many times longer than on a disk one waits before a read is tried again."""

    @abc.abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a file.

        Args:
            name: of the file, relative to the dataset.
            offset: first byte.
            length: bytes, at least 1.

        Returns:
            The bytes; fewer than ``length`` where the file ends.

        Raises:
            OSError: if they cannot be had.
        """

    @abc.abstractmethod
    def state(self, name: str) -> FileState:
        """Return what is known of a file without reading it; otherwise as ``read_range``."""

    def is_far(self, name: str) -> bool:  # noqa: ARG002 - where all files lie in one place
        """Tell whether an answer of this file takes a network's time."""
        return self.is_remote

    def find_file(self, name: str) -> Path | None:  # noqa: ARG002
        """Return where a file's bytes lie on this machine; None if they do not."""
        return None

    @abc.abstractmethod
    def forget(self, name: str) -> None:
        """Let go of what is held of a file: the next read opens it anew."""

    @abc.abstractmethod
    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:
        """Run reads of this store side by side where that hides its latency.

        Args:
            jobs: each reads something from the store.

        Returns:
            A future of each job; empty if nothing is gained, and then no job was run.
        """

    def begin(self, job: Callable[[], Result]) -> Callable[[], Result]:
        """Begin a read where that hides latency; return what gives its result, or does it then."""
        ahead = self.run_ahead([job])
        return ahead[0].result if ahead else job

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything."""


class _OpenFile:
    """A descriptor that lives as long as somebody reads from it."""

    def __init__(self, path: Path):
        self.descriptor = open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _pread_all(file: _OpenFile, length: int, offset: int) -> bytes:
    """Read until all is there or the file ends: one pread may return less.

    Takes the file, not its descriptor: another thread may close the shard meanwhile, and the
    number would then belong to the next file that is opened.
    """
    content = os.pread(file.descriptor, length, offset)
    while len(content) < length:
        more = os.pread(file.descriptor, length - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


class LocalStore(Store):
    """A folder of this machine, read by pread: a map of a file that is cut is SIGBUS."""

    is_remote = False
    patience = 1

    def __init__(self, folder: Path) -> None:
        """Open nothing yet.

        Args:
            folder: the dataset's.
        """
        self.place: Path = folder
        self.address: Path = folder
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a file by pread."""
        return _pread_all(self._open(name), length, offset)

    def find_file(self, name: str) -> Path:
        """Return the path of a file."""
        return self.place / name

    def state(self, name: str) -> FileState:
        """Return the size of a file."""
        return FileState(os.fstat(self._open(name).descriptor).st_size)

    def forget(self, name: str) -> None:
        """Let go of the descriptor: a stale handle of a network file system is opened anew."""
        with self._lock:
            self._files.pop(name, None)

    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:  # noqa: ARG002
        """Run nothing: the page cache answers faster than a thread starts."""
        return []

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            self._files.clear()

    def _open(self, name: str) -> _OpenFile:
        with self._lock:
            file = self._files.get(name)
            if file is None:
                file = _OpenFile(self.place / name)
                self._files[name] = file
                if len(self._files) > MAX_OPEN_FILES:
                    # A thread that reads from it keeps it alive; it is closed when that is done.
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(name)
            return file
