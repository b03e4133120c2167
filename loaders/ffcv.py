"""The FFCV back end: pictures of a beton, decoded and resized by libffcv; order is ours.

FFCV's own loader builds Python dictionaries of all samples, ignores what its decoder returns and
reads through a memory map, in which a truncated file kills the process. Here everything is read by
pread and checked against its CRC-32, and the decoder's return code counts: what it refuses goes to
the reference decoder.

The picture is libffcv's: fast integer DCT, OpenCV's area interpolation. docs/betons.md states its
distance from the reference picture.

Shape legend: B samples, V views of each, S side of a view, H W pixels.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError
from ..shards import BadSample
from ..shards.agreement import decode_as_said, is_as_said
from ..shards.beton import BETON_NAME, JPG, RAW, ROW, Beton
from ..shards.checksum import crc32
from ..shards.picture import PictureError
from ..shards.reader import RETRY_WAIT_S
from ..stages import StageClock
from ..system.files import retried
from ..views import intermediate_sizes, scale_boxes
from .ahead import Ahead, overlap
from .base import Loader
from .device import Buffers
from .plan import BatchPlan
from .reading import Done, PlanReading
from .reference import cut_views

_log = logging.getLogger(__name__)

_ROWS_PER_TASK = 4


class FfcvLoader(Loader):
    """Loads from a beton by threads that libffcv serves without the GIL."""

    name = "ffcv"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the dataset's beton.

        Raises:
            InputError: if ffcv is absent, or the beton is not one of this dataset.
        """
        super().__init__(*args, **kwargs)
        named = self.config.beton
        path = self.dataset.folder / BETON_NAME if named == Path() else named
        self.decode = _build_decoder()
        self.beton = Beton(path, self.dataset.digest, self.dataset.num_samples)
        _log.info(
            "beton: %s (%s); their rows, %d bytes each, take %.1f MB of page cache, once for all "
            "ranks of a machine",
            spell_number(self.beton.num_samples, "sample"),
            self.beton.about.encode,
            ROW.itemsize,
            self.beton.num_samples * ROW.itemsize / 1e6,
        )

    def close(self) -> None:
        """Stop every thread and release files and buffers; may be called twice."""
        super().close()
        self.beton.close()

    def _run_ahead(self, plans: Iterator[BatchPlan], buffers: Buffers) -> Ahead[Done]:
        pool = ThreadPoolExecutor(self.num_threads, "ffcv")
        drop_tasks = functools.partial(pool.shutdown, wait=False, cancel_futures=True)
        work = self._decode_all(plans, buffers, pool)
        return Ahead(work, self.config.prefetch_batches, drop_tasks)

    def _decode_all(
        self, plans: Iterator[BatchPlan], buffers: Buffers, pool: ThreadPoolExecutor
    ) -> Generator[Done, None, None]:
        try:
            begun = (self._begin(pool, self.reader.begin(plan), buffers) for plan in plans)
            yield from overlap(begun, self.batches_at_work)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, reading: PlanReading, buffers: Buffers
    ) -> Callable[[], Done]:
        number = buffers.take()
        images = buffers[number].numpy()
        rows = range(len(reading.plan))
        with reading.clock.time("read"):
            stored = self._find(reading, rows)
        tasks = [
            pool.submit(self._do, reading, rows[i : i + _ROWS_PER_TASK], stored, images)
            for i in range(0, len(rows), _ROWS_PER_TASK)
        ]
        return functools.partial(_finish, reading, number, tasks)

    def _find(self, reading: PlanReading, rows: Sequence[int]) -> _Stored:
        """Say where the samples of some rows lie, and which boxes of them to cut.

        For a whole batch at once: what is done sample by sample holds the GIL, and at the speed of
        raw pixels that is what threads would wait for.
        """
        ids = reading.sample_ids[list(rows)]
        lost: dict[int, BadSample] = {}
        found = np.zeros(len(ids), ROW)
        for place, sample_id in enumerate(ids.tolist()):
            try:
                found[place] = self.beton.locate(sample_id)
            except OSError as error:
                lost[place] = self._bad(sample_id, error)
        source = self.dataset.index[ids]
        for place in np.flatnonzero(self.beton.find_wrong(found, source)).tolist():
            reason = self.beton.describe(found[place])
            lost.setdefault(place, self._bad(int(ids[place]), reason))
            found[place]["image"] = (RAW, 1, 1, 0)
        image = found["image"]
        widths, heights = image["width"].astype(np.int64), image["height"].astype(np.int64)
        boxes = reading.boxes[list(rows)]
        return _Stored(
            ids.tolist(),
            image["mode"].tolist(),
            widths.tolist(),
            heights.tolist(),
            image["data_ptr"].tolist(),
            (found["stored"] >> 32).tolist(),
            (found["stored"] & 0xFFFFFFFF).tolist(),
            scale_boxes(boxes, source["width"], source["height"], widths, heights),
            intermediate_sizes(self.views, boxes).astype(np.int64),
            reading.sizes[list(rows)].astype(np.int64),
            lost,
        )

    def _do(
        self,
        reading: PlanReading,
        rows: Iterable[int],
        stored: _Stored,
        images: NDArray[np.uint8],
    ) -> _Work:
        work = _Work(StageClock())
        for row in rows:
            own, place = stored, row
            while True:
                try:
                    self._read(own, place, work)
                    self._decode_row(own, place, images[row], work)
                    break
                except BadSample as bad:
                    reading.replace(row, bad.reason)
                    own, place = self._find(reading, [row]), 0
        return work

    def _read(self, stored: _Stored, place: int, work: _Work) -> None:
        """Read a picture's bytes into the thread's scratch and check them.

        Raises:
            BadSample: if they cannot be had, or are not those that were written.
        """
        if place in stored.lost:
            raise stored.lost[place]
        sample_id = stored.sample_ids[place]
        content = _scratch.get("content", stored.sizes[place])
        with work.clock.time("read"):
            try:
                self._read_content(content, stored.offsets[place])
            except OSError as error:
                raise self._bad(sample_id, error) from None
        with work.clock.time("check"):
            found, wanted = crc32(content), stored.crcs[place]
        if found != wanted:
            raise self._bad(sample_id, f"CRC-32 {found:08x}, wanted {wanted:08x}")

    def _bad(self, sample_id: int, reason: str | OSError) -> BadSample:
        if isinstance(reason, OSError):
            reason = reason.strerror or str(reason)
        return BadSample(sample_id, f"{self.beton.path.name}: {reason}")

    def _read_content(self, content: NDArray[np.uint8], offset: int) -> None:
        for _ in retried(RETRY_WAIT_S):
            try:
                done = 0
                while done < len(content):
                    got = os.preadv(self.beton.descriptor, [content[done:]], offset + done)
                    if not got:
                        size = len(content)
                        raise OSError(f"{done} of {size} bytes at {offset}, then the file ends")
                    done += got
                return
            except OSError as error:
                failure = error
        raise failure

    def _decode_row(
        self, stored: _Stored, place: int, out_VSSC: NDArray[np.uint8], work: _Work
    ) -> None:
        """Decode a picture and cut its views.

        Raises:
            BadSample: if it is none, or of another size than its row says.
        """
        mode, width, height = (
            column[place] for column in (stored.modes, stored.widths, stored.heights)
        )
        content = _scratch.get("content", stored.sizes[place])
        boxes, middles, sizes = (
            column[place] for column in (stored.boxes, stored.middles, stored.sizes_out)
        )
        with work.clock.time("decode"):
            if mode == RAW or is_as_said(content, width, height, orientation=1):
                pixels = _scratch.get("pixels", width * height * 3 if mode == JPG else 0)
                middle = _scratch.get("middle", int(middles.prod(axis=1).max()) * 3)
                fitted = _scratch.get("fitted", int(sizes.prod(axis=1).max()) * 3)
                picture = content, mode, height, width, pixels
                if not self.decode(*picture, boxes, middles, middle, sizes, fitted, out_VSSC):
                    return
            try:
                decoded = decode_as_said(content.tobytes(), width, height)
            except PictureError as error:
                raise self._bad(stored.sample_ids[place], f"no picture: {error}") from None
            out_VSSC[:] = cut_views(decoded, self.views, boxes, sizes)
            work.num_refused += 1


@dataclass(frozen=True)
class _Stored:
    """What a beton holds of some rows of a batch, column by column."""

    sample_ids: list[int]
    modes: list[int]
    widths: list[int]
    heights: list[int]
    offsets: list[int]
    sizes: list[int]
    crcs: list[int]
    boxes: NDArray[np.int32]
    """(B, V, 4) in stored pixels."""
    middles: NDArray[np.int64]
    """(B, V, 2) width and height of the first of two resamplings; 0 where there is one."""
    sizes_out: NDArray[np.int64]
    """(B, V, 2) width and height of what boxes are resized to."""
    lost: dict[int, BadSample]
    """Samples whose rows cannot be read, by their place here."""


@dataclass
class _Work:
    """What a task measured."""

    clock: StageClock
    num_refused: int = 0


def _finish(reading: PlanReading, number: int, tasks: Iterable[Future[_Work]]) -> Done:
    """Wait for the tasks of a batch and add up what they measured."""
    for task in tasks:
        work = task.result()
        reading.fallback_decodes += work.num_refused
        for stage, seconds in work.clock.seconds.items():
            reading.clock.add(stage, seconds)
    return reading.done(number)


class _Scratch(threading.local):
    """Memory of each thread, as large as its largest picture was."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[np.uint8]] = {}

    def get(self, name: str, size: int) -> NDArray[np.uint8]:
        array = self.arrays.get(name)
        if array is None or len(array) < size:
            array = self.arrays[name] = np.empty(max(size, 1), np.uint8)
        return array[:size]


_scratch = _Scratch()


@functools.cache
def _build_decoder() -> Callable[..., int]:
    """Compile what decodes one picture and cuts its views; a second or two, once a process.

    Returns:
        A function of (content, mode, height, width, pixels, boxes (V, 4), middles (V, 2), middle,
        sizes (V, 2), fitted, out (V, S, S, 3)) that gives 0, or 1 where libffcv refuses the
        picture; middle and fitted are scratch. It runs without the GIL.
    """
    try:
        import numba
        from ffcv.libffcv import ctypes_imdecode, ctypes_resize
    except ImportError as error:
        raise InputError(
            f"data.loader ('ffcv') needs ffcv, which cannot be imported ({error}); apt-get install "
            'pkg-config libopencv-dev libturbojpeg0-dev, then pip install "fastssl[ffcv]", or '
            "choose another --data.loader"
        ) from None

    @numba.njit(nogil=True)
    def decode(content, mode, height, width, pixels, boxes, middles, middle, sizes, fitted, out):
        source = content
        if mode == JPG:
            # Whole picture, full scale, no flip: its own cropping encodes the picture anew.
            code = ctypes_imdecode(
                content.ctypes.data,
                content.size,
                height,
                width,
                pixels.ctypes.data,
                height,
                width,
                0,
                0,
                1,
                1,
                False,
                False,
            )
            if code != 0:
                return 1
            source = pixels
        side = out.shape[1]
        for v in range(len(boxes)):
            left, top, box_width, box_height = boxes[v]
            data, rows, columns = source.ctypes.data, height, width
            if middles[v, 0] > 0:
                ctypes_resize(
                    0,
                    data,
                    rows,
                    columns,
                    top,
                    top + box_height,
                    left,
                    left + box_width,
                    middle.ctypes.data,
                    middles[v, 1],
                    middles[v, 0],
                )
                data, rows, columns = middle.ctypes.data, middles[v, 1], middles[v, 0]
                left, top, box_width, box_height = 0, 0, columns, rows
            out_width, out_height = sizes[v]
            is_whole = out_width == side and out_height == side
            ctypes_resize(
                0,
                data,
                rows,
                columns,
                top,
                top + box_height,
                left,
                left + box_width,
                out[v].ctypes.data if is_whole else fitted.ctypes.data,
                out_height,
                out_width,
            )
            if not is_whole:  # libffcv writes rows without gaps
                filled = fitted[: out_height * out_width * 3]
                out[v, :out_height, :out_width] = filled.reshape(out_height, out_width, 3)
                out[v, :out_height, out_width:] = 0
                out[v, out_height:] = 0
        return 0

    return decode
