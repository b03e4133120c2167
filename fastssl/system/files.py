"""Files: opened by their own name, published whole, locked, read with retries, and hashed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from ..errors import InputError, RunFailed

if TYPE_CHECKING:
    # Commands that say how to install what is missing come here too.
    import numpy as np

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


def open_own(path: Path, mode: str = "rb") -> BinaryIO:
    """Open a regular file by its own name: no link is followed, no pipe or device is waited for.

    Args:
        path: the file.
        mode: ``rb``; ``r+b`` or ``ab`` write in place, and then no other name may lead to the file;
            ``w+b`` too, and makes it where there is none, but empties nothing.

    Raises:
        InputError: if the name stands for something else.
        OSError: if it cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS[mode] | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        # Of a link; of a pipe that nobody reads, or a socket; of a folder.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            _refuse_entry(path, path.lstat().st_mode)
        raise
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (mode == "rb" or found.st_nlink < 2):
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    os.close(descriptor)
    _refuse_entry(path, found.st_mode)


_FLAGS = {
    "rb": os.O_RDONLY | os.O_CLOEXEC,
    "r+b": os.O_RDWR | os.O_CLOEXEC,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
    "w+b": os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
}
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _describe_entry(mode: int) -> str:
    """Say what an entry of a folder is that is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _refuse_entry(path: Path, mode: int) -> NoReturn:
    if stat.S_ISREG(mode):
        raise InputError(
            f"{path} has other names too (hard links), and what is written to it would be written "
            f"there; give it one of its own: cp {path} {path}.own && mv {path}.own {path}"
        )
    kind = _describe_entry(mode)
    raise InputError(f"{path} is {kind}, wanted a regular file; remove it, or put the file there")


def check_own_folder(path: Path) -> None:
    """See that what is written below a folder is written there: the folder is no link elsewhere.

    Args:
        path: the folder, which need not be there yet.

    Raises:
        InputError: if the name stands for something else.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(kind):
        what = _describe_entry(kind) if stat.S_ISLNK(kind) else "no folder"
        raise InputError(
            f"{path} is {what}; a run changes nothing outside its own directory: put the folder "
            "itself there, or name another one by the command's option for it"
        )


def read_own(path: Path, most: int) -> bytes:
    """Read a small file as ``open_own`` opens it.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        InputError: if it is no regular file, or a larger one.
        OSError: if it cannot be read.
    """
    with naming_file(path), open_own(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} has more than {most:,} bytes; restore it, or remove it")
    return content


def make_folder(folder: Path, option: str, given: Path | None = None) -> None:
    """Make a folder where the user wants it, and those above it; one that is there is taken.

    Args:
        folder: to make.
        option: that named it.
        given: what it named, where the folder is one in or beside that.

    Raises:
        InputError: if no folder can be there: /proc, below a file, a name too long.
        OSError: if the machine forbids it or has no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        what = "is a file" if folder.is_file() else f"cannot be made ({error.strerror})"
        raise InputError(
            f"{option} ({given or folder}) {what}, wanted a folder; choose another place"
        ) from None


def check_file_place(path: Path, option: str) -> None:
    """See, before hours of work, that a file can be written where the user wants it.

    Args:
        path: of the file; one that is there will be replaced.
        option: that named it.

    Raises:
        InputError: if it cannot be there.
        OSError: if the machine forbids it or has no room.
    """
    if path.is_dir():
        what = "is a folder"
    elif not path.parent.is_dir():
        what = "lies in no folder"
    else:
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                return
        except OSError as error:
            error.filename = str(path)
            if error.errno not in _NO_PLACE:
                raise
            what = f"cannot be made ({error.strerror})"
    raise InputError(
        f"{option} ({path}) {what}, wanted a file in a folder that is there; make the folder, or "
        "name a file elsewhere"
    )


# Where nothing of that name can be, whoever asks; what is forbidden or full is the machine's.
_NO_PLACE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


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
            # What a killed process of this number left; a link that waits there is not followed.
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
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
def locked(path: Path, busy: str, patience_s: float = 0.0) -> Iterator[int]:
    """Keep other processes out of what a lock stands for, for as long as the block lasts.

    Args:
        path: a file, made if there is none and left behind, or a folder.
        busy: what to say where another process holds it.
        patience_s: how long to wait for that process; ``math.inf`` for as long as it takes.

    Yields:
        The descriptor that holds it. A child that inherits it holds it too, until both have ended
        where this process is killed in the block.

    Raises:
        InputError: with ``busy``, if another process still holds it then; if a link stands there.
        OSError: if the file cannot be opened.
    """
    # Read and write: NFS grants an exclusive lock on nothing less. A folder opens for neither.
    mode = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, mode | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _refuse_entry(path, stat.S_IFLNK)
        raise
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
            yield descriptor
        finally:
            # Closing is not enough: a forked worker that still lives holds the same open file.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def refusing_unreadable(path: Path, remedy: str) -> Iterator[None]:
    """Make what is wrong with a file that was given to us the user's to know, in one line.

    Args:
        path: of the file.
        remedy: what to do.

    Raises:
        InputError: for every OSError inside the block but that the file is not there, or not ours.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; {remedy}") from None


def open_regular(path: Path) -> int:
    """Open a regular file for reading.

    A pipe would be waited for until somebody writes to it, and a device may do anything.

    Args:
        path: of the file, or of a link to it.

    Returns:
        Its descriptor.

    Raises:
        OSError: if there is none, it cannot be opened, or it is a folder, a pipe, a device or a
            socket.
    """
    # Looked at first, for opening alone has effects on a device; and again, it may have changed.
    kind = os.stat(path).st_mode
    if stat.S_ISREG(kind):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EINVAL, f"{_describe_entry(kind)}, wanted a regular file", str(path))


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a regular file whole.

    Args:
        path: of the file, or of a link to it.
        max_bytes: that it may have.

    Raises:
        InputError: if it is longer.
        OSError: if it cannot be read, or is no regular file.
    """
    with open(open_regular(path), "rb") as file, naming_file(path):
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        size = path.stat().st_size
        raise InputError(f"{path}: {size:,} bytes, wanted at most {max_bytes:,}")
    return content


def free_part(descriptor: int, offset: int, length: int) -> None:
    """Give back the room of a part of a file, which reads as zeros then; its size stays.

    Args:
        descriptor: of the file, open for writing.
        offset: of the part, a multiple of the file system's block.
        length: bytes, likewise, or to the file's end.

    Raises:
        OSError: EOPNOTSUPP if the file system knows no such thing.
    """
    part = ctypes.c_int64(offset), ctypes.c_int64(length)
    if _libc.fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, *part):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_PUNCH_HOLE_KEEP_SIZE = 3  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)


def retried(wait_s: float) -> Iterator[int]:
    """Yield the number of each try of a read, ``READ_TRIES`` of them; leave the loop on success.

    Args:
        wait_s: pause before the second try in seconds; before each later one four times as long.
    """
    for attempt in range(READ_TRIES):
        if attempt:
            time.sleep(wait_s * 4 ** (attempt - 1))
        yield attempt


def check_mapped(array: np.ndarray) -> None:
    """See that a mapped file is as long as it was: to look behind its end is SIGBUS.

    Takes half a microsecond, so that it may be done before every use.

    Args:
        array: made by ``np.memmap``, or a part of one; of memory, nothing is looked at.

    Raises:
        RunFailed: if it was cut.
    """
    file: Any = array
    mapped = getattr(file, "_mmap", None)
    if mapped is None:
        return
    size, wanted = mapped.size(), file.offset + file.nbytes
    if size < wanted:
        raise RunFailed(
            f"{file.filename}: {size} bytes, {wanted} when it was opened; it was cut while in "
            "use: restore it and start again"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as ``sha256sum`` does.

    Raises:
        OSError: if it cannot be read.
    """
    with naming_file(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
