"""A store whose shards are kept on this machine as they are read, bounded by bytes.

What will be needed is announced by ``warm``, which makes room and has the missing pages fetched by
threads, in stretches, each held against the CRC-32 of the samples that lie whole in it before it
counts as there. Whoever reads waits for what is on its way, reads what is there as any file, and
what is not past the cache. So the cache decides about speed and never about bytes: callers check
what they read, and have what misses its CRC-32 dropped and read from the store
(``ShardDataset.mend``).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..address import CachePlace
from ..errors import InputError
from ..stages import CacheUse
from ..system.files import check_mapped, check_own_folder
from .checksum import crc32
from .manifest import Manifest
from .pages import (
    LOCKS_NAME,
    PAGE_BYTES,
    PRESENT,
    TABLE_NAME,
    PageTable,
    is_locked,
    list_pages,
    read_size,
)
from .remote import NUM_REQUESTS, REQUEST_TIMEOUT_S
from .store import FileState, LocalStore, Result, Store

BLOCK_BYTES = 1 << 20
"""What is fetched around a sample where its neighbours will be needed too: a request takes as long
for 64 KiB as for a megabyte."""

MAX_REQUEST_BYTES = 4 << 20
"""Longest stretch of one request."""

_FETCHES = 2
"""Requests for a stretch before its pages are given up; their readers then try for themselves."""
_NUM_CANDIDATES = 2048
"""Pages of which those go that are needed last: looking at all of them takes long."""
_LEAST_DROPPED = 256
"""Pages that go at once: choosing them takes as long as for one."""
_FOLDER = "data"

NextUse = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From sample ids (B,) to int64 (B,): how late each is needed next, 0 for those needed at once."""

_log = logging.getLogger(__name__)


class CachedStore(Store):
    """The shards of one dataset, those in object stores through pages on this machine."""

    is_remote = True

    def __init__(
        self,
        origin: Store,
        manifest: Manifest,
        place: CachePlace,
        index: np.ndarray,
    ) -> None:
        """Open the cache; nothing is requested yet.

        Args:
            origin: where the shards lie.
            manifest: of the dataset.
            place: where they are kept.
            index: the dataset's, memory-mapped.

        Raises:
            InputError: if nothing can be kept there.
        """
        self.place, self.address, self.patience = origin.place, origin.address, origin.patience
        self.origin = origin
        self.folder = _prepare(place, manifest)
        self._names = [shard.name for shard in manifest.shards]
        self._numbers = {name: n for n, name in enumerate(self._names) if origin.is_far(name)}
        self._is_far_shard = np.array([name in self._numbers for name in self._names], bool)
        self._sizes = np.array([shard.bytes for shard in manifest.shards], np.int64)
        try:
            self._table = PageTable(self.folder, manifest.digest, self._sizes)
        except OSError as error:
            raise _refuse(place.folder, error) from None
        self.num_bytes = place.num_bytes
        """What pages may take."""
        self.all_bytes = self._table.num_pages * PAGE_BYTES
        """What all pages of the dataset would take."""
        if manifest.entry_points is not None and not isinstance(origin.place, Path):
            self.num_bytes = max(place.num_bytes - manifest.entry_points.bytes, 0)  # beside pages
        self._most = self.num_bytes // PAGE_BYTES
        self._index = index
        self._ends = np.cumsum([shard.samples for shard in manifest.shards], dtype=np.int64)
        self._files = LocalStore(self.folder)
        self._lock = threading.Lock()
        self._use = CacheUse()
        self._pool: ThreadPoolExecutor | None = None
        self._candidates: NDArray[np.int64] = np.zeros(0, np.int64)
        self._rng = np.random.default_rng()
        self._is_full = False
        self._is_closed = False
        self.takes_along = True
        """Whether what lies beside a sample is fetched with it."""
        _stores.add(self)

    # ------------------------------------------------------------ a store as any

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a shard, out of the cache if it lies there."""
        shard = self._numbers.get(name, -1)
        if shard < 0 or offset + length > self._sizes[shard]:
            return self.origin.read_range(name, offset, length)
        if self._table.is_present(shard, offset, length) or self._wait_for(shard, offset, length):
            with contextlib.suppress(OSError):
                content = self._files.read_range(self._table.path_of(shard).name, offset, length)
                if len(content) == length:
                    return content
        return self.read_past(name, offset, length)

    def _wait_for(self, shard: int, offset: int, length: int) -> bool:
        return bool(self.wait(np.array([shard]), np.array([offset]), np.array([length]))[0])

    def read_past(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a shard from where it lies."""
        began = time.monotonic()
        content = self.origin.read_range(name, offset, length)
        stalled_s = time.monotonic() - began
        self._count(CacheUse(fetched_bytes=len(content), stalls=1, stall_s=stalled_s))
        return content

    def is_far(self, name: str) -> bool:
        """Tell whether the origin is."""
        return self.origin.is_far(name)

    def find_file(self, name: str) -> Path | None:
        """Return the file that holds a shard's pages, or of one on this machine its own."""
        if name in self._numbers:
            return self._table.path_of(self._numbers[name])
        return self.origin.find_file(name)

    def state(self, name: str) -> FileState:
        """Return what the origin says."""
        return self.origin.state(name)

    def forget(self, name: str) -> None:
        """Let go of what is held of a shard's file; its pages stay."""
        self.origin.forget(name)
        if name in self._numbers:
            self._files.forget(self._table.path_of(self._numbers[name]).name)

    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:
        """Run reads as the origin does."""
        return self.origin.run_ahead(jobs)

    def close(self) -> None:
        """Give up what is being fetched, and let go of everything."""
        self._is_closed = True
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        self.origin.close()
        self._table.close()
        self._files.close()
        self._index = self._index[:0].copy()

    # ------------------------------------------------------------ a cache

    def warm(
        self,
        shards: NDArray[np.int64],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        next_use: NextUse,
    ) -> None:
        """Have what is missing of samples fetched, in the order given; does not wait for it.

        Args:
            shards: (B,) numbers of samples' shards.
            offsets: (B,) of their first byte.
            lengths: (B,) bytes.
            next_use: tells what may go where there is no room.
        """
        shards, offsets, lengths = self._keep_far(shards, offsets, lengths)
        if not len(shards):
            return
        table = self._table
        firsts, lasts = table.span(shards, offsets, lengths)
        here = table.are_present(firsts, lasts)
        self._count(CacheUse(samples=len(here), hits=int(here.sum())))
        if here.all() or self._most == 0:
            return
        pages = np.unique(list_pages(firsts[~here], lasts[~here])[0])
        if self.takes_along:
            pages = table.widen(pages, BLOCK_BYTES // PAGE_BYTES)
        taken = table.claim(pages, self._most, lambda count: self._find_victims(count, next_use))
        stretches = table.split(np.sort(taken), MAX_REQUEST_BYTES // PAGE_BYTES)
        with self._lock:
            if self._pool is None and not self._is_closed:
                self._pool = ThreadPoolExecutor(NUM_REQUESTS, "fastssl-cache")
            if self._pool is not None:
                for stretch in stretches:
                    self._pool.submit(self._fetch, *stretch)

    def wait(
        self,
        shards: NDArray[np.int64],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        check_wanted: Callable[[], None] = lambda: None,
    ) -> NDArray[np.bool_]:
        """Wait until nothing of samples is on its way any more.

        Args:
            shards: (B,) numbers of their shards.
            offsets: (B,) of their first byte.
            lengths: (B,) bytes.
            check_wanted: called while it waits; raises where nobody wants the answer any more.

        Returns:
            bool (B,): whether a sample can be read from its shard's file on this machine.
        """
        firsts, lasts = self._table.span(shards, offsets, lengths)
        here = self._table.are_present(firsts, lasts) | ~self._is_far_shard[shards]
        missing = np.flatnonzero(~here)
        if len(missing):
            began = time.monotonic()
            limit_s = _FETCHES * (REQUEST_TIMEOUT_S + 10)
            found = self._table.wait(firsts[missing], lasts[missing], limit_s, check_wanted)
            here[missing] = found
            # What was not on its way is counted where it is read past the cache.
            self._count(CacheUse(stalls=int(found.sum()), stall_s=time.monotonic() - began))
        return here

    def is_kept(
        self, shards: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Say which samples lie on this machine or are on their way to it; bool (B,)."""
        kept = self._table.are_claimed(*self._table.span(shards, offsets, lengths))
        return kept | ~self._is_far_shard[shards]

    def drop(self, shard: int, offset: int, length: int) -> None:
        """Drop the pages of a sample that are not what was written."""
        firsts, lasts = self._table.span(*np.array([[shard], [offset], [length]]))
        self._files.forget(self._table.path_of(shard).name)  # it may be another file by now
        if self._table.drop(np.arange(firsts[0], lasts[0])):
            _log.debug("dropped %s at %d of the cache", self._names[shard], offset)

    def take_use(self) -> CacheUse:
        """Return what this process did with the cache since the last call."""
        with self._lock:
            use, self._use = self._use, CacheUse()
            return use

    # ------------------------------------------------------------ pieces

    def _fetch(self, first: int, last: int) -> None:
        """Fetch a stretch of pages and say which are there; runs in a thread of the pool."""
        is_whole = np.zeros(last - first, bool)
        try:
            arrived = self._fetch_checked(first, last)
            if arrived is not None:
                content, is_good = arrived
                self._table.write(first, content)
                is_whole = is_good
        except OSError as error:
            self._note(error)
        finally:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._table.settle(first, last, is_whole)

    def _fetch_checked(self, first: int, last: int) -> tuple[bytes, NDArray[np.bool_]] | None:
        """Return the bytes of pages, and of which of them no sample misses its CRC-32."""
        shard, offset, length = self._table.bytes_of(first, last)
        arrived = None
        for _ in range(_FETCHES):
            content = self._request(shard, offset, length)
            if content is None:
                continue
            is_good = np.ones(last - first, bool)
            for start, size in self._find_misses(shard, offset, content):
                begin, end = start - offset, start - offset + size - 1
                is_good[begin // PAGE_BYTES : end // PAGE_BYTES + 1] = False
            arrived = content, is_good
            if is_good.all():
                break
        return arrived

    def _request(self, shard: int, offset: int, length: int) -> bytes | None:
        try:
            content = self.origin.read_range(self._names[shard], offset, length)
        except OSError:
            return None  # who needs it asks again, and says what is wrong
        self._count(CacheUse(fetched_bytes=len(content)))
        return content if len(content) == length else None

    def _note(self, error: OSError) -> None:
        """Do with the room that there is."""
        if self._is_closed:
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._most = self._table.count_present()
        else:
            self._most = 0
        if not self._is_full:
            self._is_full = True
            _log.warning(
                "%s: %s; the cache goes on with the %.1f MB that it holds, and what has no room is "
                "read from %s each time: free some room, or lower --data.cache-gb",
                self.folder,
                error.strerror,
                self._table.count_present() * PAGE_BYTES / 1e6,
                self.place,
            )

    def _find_victims(self, excess: int, next_use: NextUse) -> NDArray[np.int64]:
        """Return the pages of a sample of those there that are needed last, or none too soon."""
        some = self._draw_candidates(max(_NUM_CANDIDATES, 2 * excess))
        if not len(some):
            return some
        # What lies between the two is needed sooner, perhaps: of tiny samples this is a guess.
        uses = next_use(self._find_ids(some).ravel()).reshape(2, -1).min(axis=0)
        order = np.argsort(-uses)[: max(excess, min(_LEAST_DROPPED, len(some) // 8))]
        return some[order[uses[order] > 0]]

    def _draw_candidates(self, count: int) -> NDArray[np.int64]:
        """Return about so many pages that are there, drawn from all of them."""
        states = self._table.states
        for _ in range(2):
            if len(self._candidates):
                some = np.unique(self._rng.choice(self._candidates, count))
                there = some[states[some] == PRESENT]
                if 2 * len(there) > len(some):
                    return there
            self._candidates = np.flatnonzero(states == PRESENT)
        return self._candidates

    def _find_misses(self, shard: int, offset: int, content: bytes) -> list[tuple[int, int]]:
        """Return offset and length of the samples whose bytes came whole and miss their CRC-32."""
        end = int(self._ends[shard])
        start = int(self._ends[shard - 1]) if shard else 0
        check_mapped(self._index)
        rows = self._index[start:end]
        begins, lengths = rows["offset"].astype(np.int64), rows["length"].astype(np.int64)
        is_whole = (begins >= offset) & (begins + lengths <= offset + len(content))
        misses = []
        view = memoryview(content)
        for row in np.flatnonzero(is_whole).tolist():
            begin, length = int(begins[row]) - offset, int(lengths[row])
            if crc32(view[begin : begin + length]) != rows["crc32"][row]:
                misses.append((begin + offset, length))
        return misses

    def _find_ids(self, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return two samples of each page, the first that begins on it and the one before.

        Args:
            pages: (P,).

        Returns:
            int64 (2, P).
        """
        shards, offsets = self._table.place(pages)
        check_mapped(self._index)
        index = self._index
        # By halves; samples of a shard stand in the order of their offsets, as a rule.
        first = np.where(shards > 0, self._ends[shards - 1], 0)
        low, high = first, np.maximum(self._ends[shards] - 1, first)
        while (low < high).any():
            middle = (low + high) // 2
            is_before = index["offset"][middle].astype(np.int64) < offsets
            low = np.where(is_before, np.minimum(middle + 1, high), low)
            high = np.where(is_before, high, middle)
        begins = index["offset"][low].astype(np.int64)
        before = np.maximum(low - 1, first)
        is_on = (begins >= offsets) & (begins < offsets + PAGE_BYTES)
        return np.stack([before, np.where(is_on, low, before)])

    def _keep_far(self, *part: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        is_far = self._is_far_shard[part[0]]
        return list(part) if is_far.all() else [column[is_far] for column in part]

    def _count(self, use: CacheUse) -> None:
        with self._lock:
            self._use += use

    def _leave_to_parent(self) -> None:
        """Begin anew in a child, which reads and fetches nothing ahead."""
        self._lock = threading.Lock()
        self._pool, self._use, self._most = None, CacheUse(), 0


def open_cache(
    origin: Store, manifest: Manifest, place: CachePlace, index: np.ndarray
) -> CachedStore | None:
    """Open the cache of a dataset; as ``CachedStore``.

    Returns:
        None, with a warning, where every shard lies on this machine.

    Raises:
        InputError: if nothing can be kept at the place, or it belongs to the dataset.
    """
    if not any(origin.is_far(shard.name) for shard in manifest.shards):
        _log.warning(
            "data.cache_dir (%s) is ignored: the shards of %s lie on this machine",
            place.folder,
            origin.place,
        )
        return None
    if isinstance(origin.place, Path) and place.folder.is_relative_to(origin.place):
        raise InputError(
            f"data.cache_dir ({place.folder}) lies in the dataset ({origin.place}), which never "
            "changes; set --data.cache-dir to a folder elsewhere"
        )
    return CachedStore(origin, manifest, place, index)


_stores: weakref.WeakSet[CachedStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


def _prepare(place: CachePlace, manifest: Manifest) -> Path:
    """Make the dataset's folder of a cache, and room for it; return it."""
    folder = place.folder / manifest.digest / _FOLDER
    try:
        check_own_folder(place.folder / manifest.digest)
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(place, folder, sum(shard.bytes for shard in manifest.shards))
        room = shutil.disk_usage(folder).free + read_size(folder / TABLE_NAME)
    except OSError as error:
        raise _refuse(place.folder, error) from None
    if room < place.num_bytes and room < sum(shard.bytes for shard in manifest.shards):
        _log.warning(
            "data.cache_gb (%g) is more than %s has room for (%.3g GB); the cache does with that",
            place.num_bytes / 1e9,
            place.folder,
            room / 1e9,
        )
    return folder


def _refuse(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"data.cache_dir ({folder}): nothing can be kept there: {error.strerror or error}; set "
        "--data.cache-dir to a folder of this machine that can be written and has room"
    )


def _make_room(place: CachePlace, folder: Path, num_bytes: int) -> None:
    """Remove pages of datasets that nobody uses, the longest unused first, beyond what may be."""
    others = []
    for table in place.folder.glob(f"*/{_FOLDER}/{TABLE_NAME}"):
        if table.parent != folder:
            others.append((table.stat().st_mtime, read_size(table), table))
    allowed = place.num_bytes - min(num_bytes, place.num_bytes)
    total = sum(size for _, size, _ in others)
    for _, size, table in sorted(others):
        if total <= allowed or is_locked(table.parent / LOCKS_NAME):
            continue
        _log.info("%s: %.1f MB of a dataset that nobody uses give way", table.parent, size / 1e6)
        shutil.rmtree(table.parent, ignore_errors=True)
        total -= size
