"""Files that appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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
