"""Which pages of a dataset's shards lie on this machine, and their bytes: what processes share.

A folder holds a sparse file for each shard, of which only the pages that were fetched take room,
and a table of a byte a page, mapped by every process of the machine: absent, present, or the number
of the process that is fetching it. Whoever changes the table holds a lock; whoever fetches holds
one for as long as it lives, so that what a killed process had begun is seen to be nobody's. Neither
the table nor a page needs to be right after a loss of power: whoever reads holds the bytes against
their CRC-32, and what misses it is dropped and fetched again.

Shape legend: P pages.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..system.files import check_mapped, free_part, published

PAGE_BYTES = 1 << 16
"""Bytes of a page; a multiple of every file system's block."""

TABLE_NAME = "pages.bin"
LOCKS_NAME = "locks"

_MAGIC = b"FSSLPAG1"
_HEADER = struct.Struct("<8sI4x32sQ8x")
_USED_AT = 48
"""Where the header counts the pages that are not absent."""

_ABSENT = 0
PRESENT = 1
"""State of a page that is there."""
_FIRST_OWNER, _LAST_OWNER = 2, 255

_LIVENESS_S = 0.5
"""Wait for a page before it is asked whether the process that fetches it lives."""


class PageTable:
    """The pages of one dataset's shards. For several threads and processes; lives through fork."""

    def __init__(self, folder: Path, digest: str, shard_bytes: NDArray[np.int64]) -> None:
        """Open the table; make one where there is none for these shards.

        Args:
            folder: the dataset's own, which is there; files of other names in it are left alone.
            digest: of the dataset, 64 hex digits.
            shard_bytes: (S,) sizes of its shards.

        Raises:
            InputError: if the file system cannot free a part of a file, or too many processes share
                the table.
            OSError: if the folder cannot be written.
        """
        self.folder = folder
        self._shard_bytes = shard_bytes
        counts = -(-shard_bytes // PAGE_BYTES)
        self._begins: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        """(S + 1,) number of each shard's first page."""
        self._locks = _Locks(folder / LOCKS_NAME)
        _opened.add(self)
        with self._changing(is_checked=False):
            self._map = self._open_table(digest)
            self.states: NDArray[np.uint8] = np.asarray(self._map)[_HEADER.size :]
            self._used = np.asarray(self._map)[_USED_AT : _USED_AT + 8].view("<u8")
            self._owner = self._locks.take_number()
            self._give_up(self._owner)  # what a killed process of this number had begun
            self._forget_the_dead()
            self._used[0] = np.count_nonzero(self.states)

    @property
    def num_pages(self) -> int:
        """Pages of all shards."""
        return int(self._begins[-1])

    @property
    def num_used(self) -> int:
        """Pages that take room, those that are being fetched included."""
        return int(self._used[0])

    def count_present(self) -> int:
        """Return how many pages are there."""
        return int(np.count_nonzero(self.states == PRESENT))

    def path_of(self, shard: int) -> Path:
        """Return the file that holds a shard's pages; not there before its first page is."""
        return self.folder / f"{shard:06d}.pages"

    def span(
        self, shards: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first page of parts of shards, and the one behind the last; int64 (B,) each.

        Args:
            shards: (B,) numbers.
            offsets: (B,) of the first byte.
            lengths: (B,) bytes, at least 1.
        """
        begins = self._begins[shards]
        return begins + offsets // PAGE_BYTES, begins + (offsets + lengths - 1) // PAGE_BYTES + 1

    def place(self, pages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shard of each page and the offset in it, int64 (P,) each."""
        shards = np.searchsorted(self._begins, pages, side="right") - 1
        return shards, (pages - self._begins[shards]) * PAGE_BYTES

    def widen(self, pages: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return the blocks of pages that pages lie in, each pages once, in order.

        Args:
            pages: (P,).
            count: pages of a block; blocks begin with their shard.
        """
        shards, offsets = self.place(pages)
        begins = self._begins[shards]
        firsts, inverse = np.unique(
            begins + offsets // PAGE_BYTES // count * count, return_index=True
        )
        ends = np.minimum(firsts + count, self._begins[shards[inverse] + 1])
        wide = firsts[:, None] + np.arange(count)
        return wide[wide < ends[:, None]]

    def bytes_of(self, first: int, last: int) -> tuple[int, int, int]:
        """Return shard, offset and length of the pages first .. last - 1 of one shard."""
        (shard,), (offset,) = self.place(np.array([first]))
        stop = min(int(offset) + (last - first) * PAGE_BYTES, int(self._shard_bytes[shard]))
        return int(shard), int(offset), stop - int(offset)

    def split(self, pages: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
        """Return the stretches of neighbouring pages: first, and the one behind the last.

        Args:
            pages: (P,) ascending.
            most: pages that a stretch may have; none crosses a shard's end.
        """
        if not len(pages):
            return []
        shards = self.place(pages)[0]
        is_border = (np.diff(pages) > 1) | (np.diff(shards) > 0)
        stretches = []
        for part in np.split(pages, np.flatnonzero(is_border) + 1):
            stretches += [(int(p[0]), int(p[-1]) + 1) for p in _cut(part, most)]
        return stretches

    # ------------------------------------------------------------ changes

    def claim(
        self,
        pages: NDArray[np.int64],
        most: int,
        find_victims: Callable[[int], NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """Take the absent ones among pages upon this process, which fetches them then.

        Args:
            pages: (P,).
            most: pages that may take room in all.
            find_victims: gives pages to drop where so many are too many; all that it gives go.

        Returns:
            int64 (Q,) those it has taken, as many as there is room for.
        """
        with self._changing():
            wanted = pages[self.states[pages] == _ABSENT]
            if len(wanted) == 0:
                return wanted
            excess = self.num_used + len(wanted) - most
            if excess > 0:
                self._drop(find_victims(excess))
            wanted = wanted[: max(most - self.num_used, 0)]
            self.states[wanted] = self._owner
            self._used[0] += len(wanted)
            return wanted

    def write(self, first: int, content: bytes) -> None:
        """Put the bytes of pages that this process has taken, from one on, in their place.

        Raises:
            OSError: if there is no room for them.
        """
        shard, offset, _ = self.bytes_of(first, first + 1)
        path = self.path_of(shard)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if os.fstat(descriptor).st_size < self._shard_bytes[shard]:
                os.ftruncate(descriptor, int(self._shard_bytes[shard]))
            view = memoryview(content)
            while view:
                count = os.pwrite(descriptor, view, offset)
                view, offset = view[count:], offset + count
        finally:
            os.close(descriptor)

    def settle(self, first: int, last: int, is_whole: NDArray[np.bool_]) -> None:
        """Say which of the pages first .. last - 1 are there now; the others are given up."""
        pages = np.arange(first, last)
        with self._changing():
            is_own = self.states[pages] == self._owner
            self.states[pages[is_own & is_whole]] = PRESENT
            self._drop(pages[is_own & ~is_whole])

    def drop(self, pages: NDArray[np.int64]) -> bool:
        """Drop the present ones among pages; return whether there were any."""
        with self._changing():
            there = pages[self.states[pages] == PRESENT]
            self._drop(there)
            return len(there) > 0

    def _drop(self, pages: NDArray[np.int64]) -> None:
        """Free what pages take; for who holds the lock."""
        self.states[pages] = _ABSENT  # before their bytes go: whoever is killed here leaves no lie
        for first, last in self.split(np.sort(pages), len(pages)):
            shard, offset, length = self.bytes_of(first, last)
            with contextlib.suppress(FileNotFoundError):  # the user may have removed it
                _free(self.path_of(shard), offset, length)
        self._used[0] -= len(pages)

    # ------------------------------------------------------------ waiting

    def is_present(self, shard: int, offset: int, length: int) -> bool:
        """Return whether a part of a shard is there whole; for one NumPy takes ten times as long.

        Args:
            shard: its number.
            offset: of the first byte.
            length: bytes, at least 1.
        """
        check_mapped(self._map)
        begin = int(self._begins[shard])
        first, last = begin + offset // PAGE_BYTES, begin + (offset + length - 1) // PAGE_BYTES + 1
        return self.states[first:last].tobytes().count(PRESENT) == last - first

    def are_present(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which parts are there whole.

        Args:
            firsts: (B,) first page of each.
            lasts: (B,) page behind its last.

        Returns:
            bool (B,).
        """
        check_mapped(self._map)
        pages, begins = list_pages(firsts, lasts)
        return np.logical_and.reduceat(self.states[pages] == PRESENT, begins)

    def are_claimed(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say the same of parts that are there or being fetched."""
        check_mapped(self._map)
        pages, begins = list_pages(firsts, lasts)
        return np.logical_and.reduceat(self.states[pages] != _ABSENT, begins)

    def wait(
        self,
        firsts: NDArray[np.int64],
        lasts: NDArray[np.int64],
        limit_s: float,
        check_wanted: Callable[[], None],
    ) -> NDArray[np.bool_]:
        """Do the same once nothing of the parts is being fetched any more, by whatever process.

        Args:
            firsts: (B,) first page of each.
            lasts: (B,) page behind its last.
            limit_s: longest wait.
            check_wanted: called while it waits; raises where nobody wants the answer any more.
        """
        pages, _ = list_pages(firsts, lasts)
        began, pause_s = time.monotonic(), 0.0005
        while (waited := time.monotonic() - began) < limit_s:
            check_mapped(self._map)
            states = self.states[pages]
            owners = np.unique(states[states > PRESENT]).tolist()
            if not owners:
                break
            if waited > _LIVENESS_S and not all(map(self._locks.is_alive, owners)):
                with self._changing():
                    self._forget_the_dead()
            check_wanted()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)
        return self.are_present(firsts, lasts)

    def close(self) -> None:
        """Give up what this process was fetching, and its number."""
        if self._owner:
            with contextlib.suppress(OSError), self._changing():
                self._give_up(self._owner)
        self._locks.close()
        _opened.discard(self)

    # ------------------------------------------------------------ pieces

    @contextlib.contextmanager
    def _changing(self, is_checked: bool = True) -> Iterator[None]:
        locks = self._locks
        with locks.thread:
            locks.wait_for(0)
            try:
                if is_checked:
                    check_mapped(self._map)
                yield
            finally:
                locks.unlock(0)

    def _open_table(self, digest: str) -> np.memmap:
        path, count = self.folder / TABLE_NAME, int(self._begins[-1])
        head = _HEADER.pack(_MAGIC, PAGE_BYTES, bytes.fromhex(digest), 0)
        with contextlib.suppress(FileNotFoundError):
            found = path.open("rb").read(_HEADER.size)
            if found[:_USED_AT] == head[:_USED_AT] and path.stat().st_size == len(head) + count:
                return np.memmap(path, np.uint8, "r+")
        _check_holes(self.folder)
        for left in self.folder.glob("*.pages"):
            left.unlink()
        with published(path) as file:
            file.write(head)
            file.flush()
            # With its room: to write to a mapped hole of a full disk is SIGBUS.
            os.posix_fallocate(file.fileno(), 0, len(head) + count)
        return np.memmap(path, np.uint8, "r+")

    def _forget_the_dead(self) -> None:
        """Give up what killed processes were fetching; for who holds the lock."""
        for owner in np.unique(self.states[self.states > PRESENT]).tolist():
            if not self._locks.is_alive(owner):
                self._give_up(owner)

    def _give_up(self, owner: int) -> None:
        self._drop(np.flatnonzero(self.states == owner))

    def _leave_to_parent(self) -> None:
        """Begin anew in a child: it fetches nothing, and its locks are its own."""
        self._locks.close()
        self._locks = _Locks(self.folder / LOCKS_NAME)
        self._owner = 0  # nobody


_opened: weakref.WeakSet[PageTable] = weakref.WeakSet()


def _after_fork() -> None:
    for table in list(_opened):
        table._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


class _Locks:
    """A process's locks on the bytes of a file: byte 0 guards the table, the others are owners.

    Such locks ("open file description") are between openings of the file rather than processes, go
    when the last process with that opening ends, and know of ranges.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
        self.thread = threading.Lock()

    def wait_for(self, number: int) -> None:
        """Take a lock as soon as nobody else has it."""
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "closed")
        _control(self._descriptor, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, number, 1)

    def unlock(self, number: int) -> None:
        _control(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, number, 1)

    def take_number(self) -> int:
        """Return the number of an owner that nobody else is."""
        for number in range(_FIRST_OWNER, _LAST_OWNER + 1):
            with contextlib.suppress(BlockingIOError):
                _control(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, number, 1)
                return number
        raise InputError(
            f"{self._path.parent}: {_LAST_OWNER - 1} processes share this cache already; give "
            "--data.cache-dir another folder"
        )

    def is_alive(self, number: int) -> bool:
        """Return whether some process holds an owner's lock, this one included."""
        return is_locked(self._path, number, 1)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def is_locked(path: Path, start: int = _FIRST_OWNER, count: int = _LAST_OWNER - 1) -> bool:
    """Return whether some process holds locks on bytes of a file; all owners' by default."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        _control(descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, start, count)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_size(path: Path) -> int:
    """Return the bytes that the pages of a table take, 0 where it is none."""
    try:
        head = path.open("rb").read(_HEADER.size)
    except OSError:
        return 0
    if len(head) < _HEADER.size or head[:8] != _MAGIC:
        return 0
    return _HEADER.unpack(head)[3] * PAGE_BYTES


def list_pages(
    firsts: NDArray[np.int64], lasts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pages first .. last - 1 of parts, part behind part, and where each part begins."""
    counts = lasts - firsts
    begins = np.cumsum(counts) - counts
    return np.repeat(firsts - begins, counts) + np.arange(counts.sum()), begins


def _cut(pages: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    return [pages[i : i + most] for i in range(0, len(pages), most)]


def _control(descriptor: int, command: int, kind: int, start: int, count: int) -> None:
    # struct flock of 64-bit Linux; the process must be 0.
    fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0))


def _free(path: Path, offset: int, length: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        free_part(descriptor, offset, length)
    finally:
        os.close(descriptor)


def _check_holes(folder: Path) -> None:
    """See that a part of a file can be given back before anybody counts on it."""
    path = folder / f".probe.{os.getpid()}"
    try:
        path.write_bytes(bytes(2 * PAGE_BYTES))
        _free(path, 0, PAGE_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise InputError(
            f"{folder}: its file system cannot free a part of a file; give --data.cache-dir a "
            "folder on another one (ext4, XFS, btrfs, tmpfs)"
        ) from None
    finally:
        path.unlink(missing_ok=True)
