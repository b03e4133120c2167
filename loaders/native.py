"""The native back end: threads of the extension read, check, decode, crop and resize.

The picture is the reference picture to the bit, unless scaled DCT is asked for. Of a file that is
tiled only the restart segments under the views are decoded, of one with entry points little more
than what lies under them, of any other what libjpeg-turbo cannot skip. What the extension's decoder
does not take (PNG, CMYK, 12 bits, whatever libjpeg warns of) the reference decoder does, and does
not scale.

A thread of Python's plans batches and hands them to the extension whole, one crossing each; it
sees rows again only where their bytes are bad.

Shape legend: B samples of this rank in a step, V views of each, S side of a view.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..ops.jpeg import pack_views, require_jpeg
from ..shards import BadSample
from ..shards.entry_reader import open_entry_points
from ..shards.index import Payload
from ..shards.rows import describe_short_read
from ..shards.store import MAX_OPEN_FILES
from ..system.cpus import cpus_per_rank
from .ahead import Ahead, StoppedError, overlap
from .base import Loader
from .device import Buffers
from .plan import BatchPlan
from .reading import Done, PlanReading
from .spill import Spill

_log = logging.getLogger(__name__)

_STALL_S = 30.0


class _Kind:
    """``fastssl::jpeg::Kind``: what the extension does with a row's bytes."""

    JPEG = 0
    RAW = 1
    HAND_OVER = 2


class _Status:
    """``fastssl::jpeg::RowStatus``: what became of a row."""

    OK = 0
    UNREADABLE = 1
    SHORT_READ = 2
    WRONG_CRC = 3
    REFUSED = 4
    HANDED_OVER = 5


class NativeLoader(Loader):
    """Loads by threads of the extension, which need the GIL for nothing."""

    name = "native"
    can_scale = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See that the extension can decode what the dataset holds.

        Raises:
            InputError: if the extension is missing or was built without libjpeg-turbo, or the
                dataset is not in a folder.
        """
        super().__init__(*args, **kwargs)
        try:
            require_jpeg()
            self.paths = [str(path) for path in self.dataset.list_paths()]
        except ImportError as error:
            raise InputError(
                f"data.loader ('native'): {error}; or choose another --data.loader"
            ) from None
        except InputError as error:
            raise InputError(
                f"data.loader ('native') reads from folders alone: {error}, have it kept as it is "
                "read (--data.cache-dir), or set --data.loader to webdataset"
            ) from None
        self.entry_points = open_entry_points(self.dataset)
        self._has_told_of_refused = False
        available = cpus_per_rank()
        if self.num_threads > available:
            _log.warning(
                "data.num_threads (%d) is more than the cores of this rank (%d); they gain nothing "
                "unless the disk is what they wait for",
                self.num_threads,
                available,
            )

    def _run_ahead(self, plans: Iterator[BatchPlan], buffers: Buffers) -> Ahead[Done]:
        # A pool a stream: what a stream leaves undone goes with it.
        spill = None if self.dataset.cache is None else Spill()
        try:
            pool = torch.classes.fastssl.DecodePool(
                [*self.paths, spill.path] if spill else self.paths,
                "" if self.entry_points is None else str(self.entry_points.path),
                self.num_threads,
                MAX_OPEN_FILES,
                self.config.dct == "scaled",
            )
        except RuntimeError as error:
            raise RunFailed(
                f"loader native: {spell_number(self.num_threads, 'thread')} cannot be started "
                f"({error}); lower --data.num-threads, or raise the limit (ulimit -u)"
            ) from None
        # Stopping the pool ends the waiting in the other thread, however long a disk stalls.
        work = self._work(plans, buffers, pool, spill)
        return Ahead(work, self.config.prefetch_batches, pool.stop)

    def _work(
        self, plans: Iterator[BatchPlan], buffers: Buffers, pool: Any, spill: Spill | None
    ) -> Generator[Done, None, None]:
        with contextlib.closing(spill) if spill else contextlib.nullcontext():
            begun = (_Work(self.reader.begin(plan), buffers, pool, spill, self) for plan in plans)
            yield from overlap((one.finish for one in begun), self.batches_at_work)

    def tell_of_refused(self, count: int) -> None:
        """Warn, once, that entry points are of no use.

        Args:
            count: samples of a batch whose own are damaged, or of other images.
        """
        if self._has_told_of_refused:
            return
        self._has_told_of_refused = True
        _log.warning(
            "loader native: entry points of %s of a batch are damaged or of other images; what "
            "has none is decoded more slowly: make them again by fastssl entry-points %s",
            spell_number(count, "sample"),
            self.dataset.path,
        )


class _Work:
    """One batch with the extension's threads."""

    def __init__(
        self,
        reading: PlanReading,
        buffers: Buffers,
        pool: Any,
        spill: Spill | None,
        loader: NativeLoader,
    ) -> None:
        self.reading = reading
        self._spill = spill
        self._spilled: dict[int, tuple[int, int]] = {}  # offset and length there, by row
        self._number = buffers.take()
        self._images = buffers[self._number]
        self._pool = pool
        self._loader = loader
        self._dataset = loader.dataset
        self._ticket = self._submit(np.arange(len(reading.plan)), is_urgent=False)

    def finish(self) -> Done:
        """Wait until every row holds good pixels.

        Raises:
            RunFailed: if too many substitutes are bad.
            StoppedError: if the pool was stopped before.
        """
        rows = np.arange(len(self.reading.plan))
        while len(rows):
            self._wait()
            bad = self._take_results(rows)
            self._pool.forget(self._ticket)
            rows = np.array(bad, np.int64)
            if bad:
                self._ticket = self._submit(rows, is_urgent=True)
        for row in list(self._spilled):
            self._let_go(row)
        return self.reading.done(self._number)

    def _submit(self, rows: NDArray[np.int64], is_urgent: bool) -> int:
        if self._spill is not None:
            with self.reading.clock.time("read"):
                self._bring(np.array([r for r in rows.tolist() if r not in self._spilled], int))
        ids = self.reading.sample_ids[rows]
        with self.reading.clock.time("collate"):
            shards, offsets, lengths = self._dataset.locate_many(ids)
            for place, row in enumerate(rows.tolist() if self._spilled else []):
                if row in self._spilled:  # it is the file behind the shards
                    shards[place], offsets[place] = len(self._loader.paths), self._spilled[row][0]
            stored = self._dataset.index[ids]
            records = np.zeros((2, len(ids)), np.int64)
            if (entry_points := self._loader.entry_points) is not None:
                records[:] = entry_points.locate(ids, lengths)
            jobs = np.stack(
                [
                    shards,
                    offsets,
                    lengths,
                    stored["crc32"],
                    _list_kinds(stored["flags"]),
                    stored["width"],
                    stored["height"],
                    rows,
                    *records,
                ],
                axis=1,
            ).astype(np.int64)
            reading = self.reading
            views = pack_views(reading.views, reading.boxes[rows], reading.sizes[rows])
        return self._pool.submit(
            torch.from_numpy(jobs), torch.from_numpy(views), self._images, is_urgent
        )

    def _bring(self, rows: NDArray[np.int64]) -> None:
        """Read past the cache what it does not have of rows; replace what cannot be had."""
        cache = self._dataset.cache
        while len(rows) and cache is not None:
            ids = self.reading.sample_ids[rows]
            missing = ~cache.wait(*self._dataset.locate_many(ids), self._check_wanted)
            if not missing.any():
                return
            rows, ids = rows[missing], ids[missing]
            ahead = self._dataset.fetch_ahead(ids)
            replaced = []
            for place, (row, sample_id) in enumerate(zip(rows.tolist(), ids.tolist(), strict=True)):
                try:
                    read = ahead[place].result if place in ahead else None
                    payload = read() if read else self._dataset.fetch_payload(sample_id)
                    self._hold(row, self._dataset.mend(sample_id, payload))
                except BadSample as bad:
                    self.reading.replace(row, bad.reason)
                    replaced.append(row)
            rows = np.array(replaced, np.int64)

    def _check_wanted(self) -> None:
        if self._pool.is_stopped():
            raise StoppedError

    def _hold(self, row: int, payload: bytes) -> None:
        assert self._spill is not None
        self._spilled[row] = self._spill.hold(payload), len(payload)

    def _let_go(self, row: int) -> None:
        if self._spill is not None and row in self._spilled:
            self._spill.let_go(*self._spilled.pop(row))

    def _wait(self) -> None:
        began = time.monotonic()
        told = False
        while not self._pool.wait(self._ticket, 1000):
            if self._pool.is_stopped():
                raise StoppedError
            if not told and time.monotonic() - began > _STALL_S:
                told = True
                _log.warning(
                    "loader native: a batch of samples %d, ... is not there after %.0f s; the "
                    "disk of %s may have stalled",
                    self.reading.plan.sample_ids[0],
                    _STALL_S,
                    self._dataset.path,
                )

    def _take_results(self, rows: NDArray[np.int64]) -> list[int]:
        """Count the cost, decode what was handed over, replace what is bad.

        Returns:
            Rows that have a substitute now, or other bytes than a cache gave.
        """
        reading = self.reading
        read_ns, check_ns, decode_ns, entropy_decoded, total, refused = self._pool.cost(
            self._ticket
        )
        for stage, ns in (("read", read_ns), ("check", check_ns), ("decode", decode_ns)):
            reading.clock.add(stage, ns / 1e9)
        reading.entropy_decoded_mcus += entropy_decoded
        reading.total_mcus += total
        if refused:
            self._loader.tell_of_refused(refused)
        results = self._pool.results(self._ticket).numpy()
        again = []
        for place in np.flatnonzero(results[:, 0] != _Status.OK).tolist():
            row, (status, detail) = int(rows[place]), results[place].tolist()
            try:
                if status not in (_Status.REFUSED, _Status.HANDED_OVER):
                    again.append(row)
                    self._read_anew(row, status, detail)
                    continue
                payload = self._pool.payload(self._ticket, place).numpy().tobytes()
                self._images[row] = torch.from_numpy(reading.fall_back(row, payload))
            except BadSample as bad:
                self._let_go(row)
                reading.replace(row, bad.reason)
                again.append(row)
        return list(dict.fromkeys(again))

    def _read_anew(self, row: int, status: int, detail: int) -> None:
        """Have the store's own bytes of a row at hand where those of a cache were wrong.

        Raises:
            BadSample: if they are no better, or no cache was asked.
        """
        sample_id = int(self.reading.sample_ids[row])
        bad = self._bad(sample_id, status, detail)
        if self._spill is None or row in self._spilled:
            raise bad
        self._hold(row, self._dataset.fetch_anew(sample_id))

    def _bad(self, sample_id: int, status: int, detail: int) -> BadSample:
        if status == _Status.WRONG_CRC:
            return BadSample(sample_id, self._dataset.describe_wrong_crc(sample_id, detail))
        shard, offset, length = self._dataset.locate(sample_id)
        name = self._dataset.manifest.shards[shard].name
        if status == _Status.SHORT_READ:
            reason = describe_short_read(detail, offset, length)
        elif detail == errno.ENOMEM:
            raise RunFailed(
                f"no memory to decode sample {sample_id} of {name}; lower --data.num-threads and "
                "start again"
            )
        else:
            reason = "no regular file" if detail == errno.EINVAL else os.strerror(detail)
        return BadSample(sample_id, f"{name}: {reason}")


def _list_kinds(flags: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return what the extension shall do with each payload, by the flags in its index."""
    payload = flags >> 5 & 7
    kinds = np.full(len(flags), _Kind.HAND_OVER, np.int64)
    kinds[payload == int(Payload.JPEG)] = _Kind.JPEG  # int: see fastssl.shards.rows.find_faults
    kinds[flags >> 11 & 1 == 1] = _Kind.HAND_OVER
    kinds[payload == int(Payload.NPY)] = _Kind.RAW
    return kinds
