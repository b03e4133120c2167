"""Files: published whole or not at all, locked, read with retries, and hashed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

READ_TRIES = 3
"""How often a read is tried before it has failed."""

_LOCK_POLL_S = 0.1


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError from inside the block the file's name: a failed write does not carry one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last beyond a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Temporary name, fsync, rename, fsync of the folder.
@contextlib.contextmanager
def published(target: Path, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block has ended well.

    Args:
        target: the name that it takes; an older file of this name is replaced in one step.
        scratch: a folder on the same file system for the file while it is being written; None
            takes the target's own.

    Yields:
        The file, opened for writing bytes.
    """
    temporary = (scratch or target.parent) / f".{target.name}.{os.getpid()}.tmp"
    try:
        with naming_file(target):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def publish_bytes(target: Path, content: bytes, scratch: Path | None = None) -> None:
    """Write a small file that appears whole or not at all."""
    with published(target, scratch) as file:
        file.write(content)


@contextlib.contextmanager
def locked(path: Path, busy: str, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other processes out of what a lock stands for, for as long as the block lasts.

    Args:
        path: a file, made if there is none and left behind, or a folder.
        busy: what to say where another process holds it.
        patience_s: how long to wait for that process; ``math.inf`` for as long as it takes.

    Raises:
        InputError: with ``busy``, if another process still holds it then.
        OSError: if the file cannot be opened.
    """
    # Read and write: NFS grants an exclusive lock on nothing less. A folder opens for neither.
    mode = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, mode | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InputError(busy) from None
                time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            # Closing is not enough: a forked worker that still lives holds the same open file.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def retried(wait_s: float) -> Iterator[int]:
    """Yield the number of each try of a read, ``READ_TRIES`` of them; leave the loop on success.

    Args:
        wait_s: pause before the second try in seconds; before each later one four times as long.
    """
    for attempt in range(READ_TRIES):
        if attempt:
            time.sleep(wait_s * 4 ** (attempt - 1))
        yield attempt


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as ``sha256sum`` does.

    Raises:
        OSError: if it cannot be read.
    """
    with naming_file(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
