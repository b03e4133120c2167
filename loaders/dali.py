"""The DALI back end: NVIDIA DALI decodes and resizes, on the CPU or the GPU; order is ours.

Readers fetch and check the bytes of coming batches, one thread feeds them to DALI, whose threads
decode the next batch while the trainer uses this one. Nothing of the stream's state is DALI's.

The picture is the reference picture: DALI's CPU decoder gives it bit for bit, its resampling is
0.2 of 255 away in the mean. What the reference decoder does instead:

* samples whose flags ask for it, and those that DALI refuses (counted as fallback decodes);
* raw pixels, which need no decoder (not counted).

Shape legend: B samples, V views of each, S side of a view.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..counts import spell_number
from ..errors import InputError
from ..shards import BadSample, Payload, SampleFlags
from ..shards.agreement import is_as_said
from ..views import ViewSpec
from .ahead import Ahead, StoppedError, close_all
from .base import Loader
from .dali_pipeline import (
    DaliPipeline,
    DaliRun,
    RefusedError,
    is_turned_sideways,
    resize_area,
    to_stored_boxes,
    turn_views,
)
from .device import Buffers, DeviceBuffers
from .plan import BatchPlan
from .reading import Done, PlanReading

NUM_READERS = 2
"""Threads that read ahead, a whole batch each: one read may be slow, and its bytes need no core."""

MAX_RUN_BYTES = 1 << 30
"""Decoded pixels that DALI holds for one run; a batch of larger pictures is decoded in parts."""

_RUNS_IN_FLIGHT = 2  # one that is decoded and one that waits, so that no thread ever idles
_WAITED_S = 1e-3
_unpack_flags = functools.lru_cache(maxsize=4096)(SampleFlags.unpack)


class DaliLoader(Loader):
    """Loads through a DALI pipeline that is fed by ``external_source``."""

    name = "dali"
    threaded_stages = ("decode",)
    decodes_on_device = True
    batches_at_work = _RUNS_IN_FLIGHT + 1  # those with DALI, and one that needs it not

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See that DALI can work here.

        Raises:
            InputError: if DALI is absent; on a GPU also if there is none or DALI was built for
                another CUDA than torch.
        """
        super().__init__(*args, **kwargs)
        self._prepare_device()
        # Raw pixels are cut by the readers.
        self.num_readers = self.num_threads if self.dataset.encoding == "raw" else NUM_READERS
        self.stage_workers.update(read=self.num_readers, check=self.num_readers)
        self.refused: set[int] = set()
        """Ids of samples that DALI has refused; they are not offered to it again."""

    def _prepare_device(self) -> None:
        dali_cuda = check_dali()
        device = torch.device(self.device)
        if device.type == "cpu":
            return
        if device.type != "cuda":
            raise InputError(f"device ('{self.device}') must be cpu or cuda with loader dali")
        check_cuda(dali_cuda, torch.version.cuda)
        num_gpus = torch.cuda.device_count()
        if (device.index or 0) >= num_gpus:
            raise InputError(
                f"device ('{self.device}') is not there, torch sees "
                f"{spell_number(num_gpus, 'GPU')}; use device cpu, or see that the driver runs and "
                "CUDA_VISIBLE_DEVICES names the GPU"
            )

    def _reserve(self) -> Buffers:
        device = torch.device(self.device)
        on_gpu = device.type == "cuda"
        return DeviceBuffers(self.batch_shape, device) if on_gpu else super()._reserve()

    def _run_ahead(self, plans: Iterator[BatchPlan], buffers: Buffers) -> Ahead[Done]:
        driver = _Driver(self, plans, buffers)
        return Ahead(driver.run(), self.config.prefetch_batches, driver.stopping.set)


def check_dali() -> int:
    """Import DALI.

    Returns:
        The major version of the CUDA that it was built for.

    Raises:
        InputError: if it is absent or cannot be imported.
    """
    try:
        import nvidia.dali as dali
        import nvidia.dali.fn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"data.loader ('dali') needs NVIDIA DALI, which cannot be imported ({error}); "
            f'pip install "fastssl[dali]" or pip install {_package_for(torch.version.cuda)}, or '
            "choose another --data.loader"
        ) from None
    # Streams are closed before DALI takes their pipelines down, which it does at exit too.
    atexit.unregister(close_all)
    atexit.register(close_all)
    _keep_memory_flat()
    return int(dali.__cuda_version__) // 1000


def check_cuda(dali_cuda: int, torch_cuda: str | None) -> None:
    """See that DALI and torch were built for the same CUDA.

    Args:
        dali_cuda: major version.
        torch_cuda: ``torch.version.cuda``; None for a build without.

    Raises:
        InputError: if they were not.
    """
    if torch_cuda is None:
        raise InputError(
            "device (cuda) needs a torch that was built for CUDA, this one was not; use device "
            "cpu, or install another: https://pytorch.org/get-started"
        )
    if int(torch_cuda.split(".")[0]) != dali_cuda:
        raise InputError(
            f"NVIDIA DALI was built for CUDA {dali_cuda}, torch for CUDA {torch_cuda}; "
            f"pip uninstall nvidia-dali-cuda{dali_cuda}0 and "
            f"pip install {_package_for(torch_cuda)}"
        )


def _package_for(torch_cuda: str | None) -> str:
    major = (torch_cuda or "13").split(".")[0]
    return f"nvidia-dali-cuda{major}0"


@functools.cache
def _keep_memory_flat() -> None:
    """Have glibc give large blocks back to the system as soon as they are freed, and keep the rest.

    DALI's buffers change their sizes with the pictures. By default glibc soon takes blocks of up to
    32 MiB from its heaps, which then hold on to them: 521 MB private after 2 passes over 300
    photographs and 551 after 20. With a fixed limit it is 487 and 502, then 513 after 40, as large
    as the largest pictures in each place of a run ask for. This is the process's own setting; one
    made by MALLOC_MMAP_THRESHOLD_ is left alone.

    A fixed limit also fixes how much may lie free at the end of a heap, at 128 KiB; the payloads of
    a batch would then be new pages each time, 66 us an image of 110 KB against 4.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has none
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass
class _Job:
    """A plan on its way to a batch."""

    reading: PlanReading
    pixels: dict[int, NDArray[np.uint8]]
    """uint8 (V, S, S, 3) by row, from the reference decoder."""
    runs: deque[DaliRun]
    """What DALI has not been given yet."""
    number: int = -1
    """Of the buffer to be filled, once DALI has begun."""
    num_decoded: int = 0
    """Rows that DALI has filled."""

    def is_done(self) -> bool:
        """Return whether every row is decoded."""
        return self.num_decoded + len(self.pixels) == len(self.reading.plan)


class _Driver:
    """One stream: reads ahead, feeds DALI and collates. All but reading is one thread's work."""

    def __init__(
        self,
        loader: DaliLoader,
        plans: Iterator[BatchPlan],
        buffers: Buffers,
    ) -> None:
        self.loader = loader
        self.device = torch.device(loader.device)
        self.stopping = threading.Event()
        """Set it and the readers end at their next sample."""
        self._plans = plans
        self._buffers = buffers
        self._stream = buffers.stream if isinstance(buffers, DeviceBuffers) else None
        self._reads: deque[Future[_Job]] = deque()
        self._jobs: deque[_Job] = deque()  # begun and not handed over, in order
        self._owners: deque[_Job] = deque()  # of the runs that DALI has, in order
        self._last_done = 0.0
        self._last_rate_s = math.inf  # seconds a sample

    def run(self) -> Generator[Done, None, None]:
        """Yield the plans when they are done; closing it stops readers and frees DALI."""
        loader, device = self.loader, self.device
        batch_size, num_threads = loader.batch_size_per_rank, loader.num_threads
        with (
            ThreadPoolExecutor(loader.num_readers, "dali-reader") as readers,
            contextlib.closing(
                DaliPipeline(loader.views, batch_size, num_threads, device)
            ) as pipeline,
        ):
            try:
                while True:
                    self._read_ahead(readers)
                    self._feed(pipeline)
                    if self._owners:
                        self._take_run(pipeline)
                    while self._jobs and self._jobs[0].is_done():
                        job = self._jobs.popleft()
                        self._fill_in(job)
                        yield job.reading.done(job.number)
                    if not self._jobs and not self._reads:
                        return
            finally:
                self.stopping.set()
                for read in self._reads:
                    read.cancel()

    # ------------------------------------------------------------ read

    def _read_ahead(self, readers: ThreadPoolExecutor) -> None:
        while len(self._reads) <= self.loader.num_readers:
            plan = next(self._plans, None)
            if plan is None:
                return
            self._reads.append(readers.submit(self._read, plan))

    def _read(self, plan: BatchPlan) -> _Job:
        reading = self.loader.reader.begin(plan)
        payloads: dict[int, bytes] = {}
        pixels: dict[int, NDArray[np.uint8]] = {}
        for row in range(len(plan)):
            payload, views = self._read_row(reading, row)
            if views is None:
                payloads[row] = payload
            else:
                pixels[row] = views
        return _Job(reading, pixels, self._cut_runs(reading, payloads))

    def _read_row(self, reading: PlanReading, row: int) -> tuple[bytes, NDArray[np.uint8] | None]:
        """Read the sample of a row; its views too, (V, S, S, 3), where they are not DALI's work."""
        while True:
            if self.stopping.is_set():
                raise StoppedError
            payload, sample_id = reading.read(row), int(reading.sample_ids[row])
            stored = self.loader.dataset.index[sample_id]
            flags = _unpack_flags(int(stored["flags"]))
            try:
                if flags.payload == Payload.NPY:
                    return payload, reading.decode_reference(row, payload)
                if flags.use_reference or sample_id in self.loader.refused:
                    return payload, reading.fall_back(row, payload)
                # DALI cuts boxes that were drawn by the row, turns by its flags, and takes memory
                # for whatever the picture says of itself.
                width, height = int(stored["width"]), int(stored["height"])
                if is_turned_sideways(flags.orientation):
                    width, height = height, width
                if not is_as_said(payload, width, height, flags.orientation):
                    return payload, reading.fall_back(row, payload)
            except BadSample as bad:
                reading.replace(row, bad.reason)
            else:
                return payload, None

    def _cut_runs(self, reading: PlanReading, payloads: dict[int, bytes]) -> deque[DaliRun]:
        runs: deque[DaliRun] = deque()
        if not payloads:
            return runs
        rows = list(payloads)
        index = self.loader.dataset.index[reading.sample_ids[rows]]
        widths, heights = index["width"].astype(np.int64), index["height"].astype(np.int64)
        orientations = np.array([_unpack_flags(bits).orientation for bits in index["flags"]])
        boxes = to_stored_boxes(reading.boxes[rows], widths, heights, orientations)
        swapped = np.array([is_turned_sideways(o) for o in orientations.tolist()])[:, None, None]
        sizes = np.where(swapped, reading.sizes[rows][..., ::-1], reading.sizes[rows])
        num_views = boxes.shape[1]
        decoded = boxes[:, 0, 2].astype(np.int64) * boxes[:, 0, 3]
        if num_views > 1:
            decoded = widths * heights + boxes[:, :, 2:].prod(axis=2, dtype=np.int64).sum(axis=1)
        # A sample belongs to the run that the pixels before it have filled up to.
        before = (decoded.cumsum() - decoded) * 3 // MAX_RUN_BYTES
        for number in np.unique(before):
            places = np.flatnonzero(before == number)
            runs.append(
                DaliRun(
                    [rows[i] for i in places],
                    [np.frombuffer(payloads[rows[i]], np.uint8) for i in places],
                    boxes[places],
                    orientations[places],
                    sizes[places],
                )
            )
        return runs

    # ------------------------------------------------------------ decode

    def _feed(self, pipeline: DaliPipeline) -> None:
        """Give DALI the next runs; wait for one only if it has none."""
        while len(self._owners) < _RUNS_IN_FLIGHT:
            job = next((job for job in self._jobs if job.runs), None)
            if job is None:
                job = self._next_job(wait=not self._owners)
                if job is None:
                    return
                self._jobs.append(job)
                job.number = self._buffers.take()
                if not job.runs:  # the reference decoder took all of it
                    return
            pipeline.submit(job.runs.popleft())
            self._owners.append(job)

    def _next_job(self, wait: bool) -> _Job | None:
        if not self._reads:
            return None
        if not wait and (not self._reads[0].done() or self._reads[0].exception() is not None):
            return None  # a failure waits until the batches before it are handed over
        return self._reads.popleft().result()

    def _take_run(self, pipeline: DaliPipeline) -> None:
        job = self._owners.popleft()
        asked = time.perf_counter()
        try:
            with pipeline.taking(self._stream) as (run, outputs):
                self._synchronize()
                self._count_time(job, run, asked)
                with job.reading.clock.time("collate"), torch.cuda.stream(self._stream):
                    self._collate(job, run, outputs)
                    del outputs
                    # What DALI gave is copied; its memory must stay until then.
                    self._synchronize()
        except RefusedError as refused:
            self._replace_refused(job, refused)

    def _count_time(self, job: _Job, run: DaliRun, asked: float) -> None:
        done = time.perf_counter()
        busy_s = done - max(run.began, self._last_done)
        if done - asked > _WAITED_S:
            self._last_rate_s = busy_s / len(run.rows)
        else:
            # It was done before it was asked for, nobody knows when: as fast as the last one.
            busy_s = min(busy_s, self._last_rate_s * len(run.rows))
        self._last_done = done
        job.reading.clock.add("decode", busy_s * self.loader.num_threads)

    def _replace_refused(self, job: _Job, refused: RefusedError) -> None:
        """Have the refused samples decoded by the reference decoder, and the rest once more."""
        run = refused.run
        for place in refused.places:
            row = run.rows[place]
            self.loader.refused.add(int(job.reading.sample_ids[row]))
            try:
                job.pixels[row] = job.reading.fall_back(row, run.payloads[place].tobytes())
            except BadSample as bad:
                # The substitute is the reference decoder's: DALI has its run of this batch already.
                job.reading.replace(row, bad.reason)
                job.pixels[row] = job.reading.read_reference(row)
        rest = [i for i in range(len(run.rows)) if i not in refused.places]
        if rest:
            job.runs.append(run.part(rest))

    # ------------------------------------------------------------ collate

    def _collate(self, job: _Job, run: DaliRun, outputs: list[Any]) -> None:
        """Copy what DALI made of a run into its batch, upright."""
        images, views = self._images(job), self.loader.views
        has_area = any(spec.filter == "area" for spec in views)
        is_whole = len(run.rows) == len(job.reading.plan)
        for v, output in enumerate(outputs):
            if has_area and views[v].filter == "area":
                _cut_area(images, v, views[v], run, output)
            elif has_area:
                images[run.rows, v] = _to_torch(output)
            elif is_whole:
                _copy(_to_torch(output).view(images.shape), images)
            else:
                images[run.rows] = _to_torch(output).view(-1, *images.shape[1:])
        for i in np.flatnonzero(run.orientations != 1):
            _turn(images[run.rows[i]], views, run.sizes[i].tolist(), int(run.orientations[i]))
        run.payloads.clear()
        job.num_decoded += len(run.rows)

    def _fill_in(self, job: _Job) -> None:
        """Copy what the reference decoder made into its batch."""
        images = self._images(job)
        with job.reading.clock.time("collate"), torch.cuda.stream(self._stream):
            for row, pixels in job.pixels.items():
                images[row] = torch.from_numpy(pixels)
            self._synchronize()

    def _images(self, job: _Job) -> Tensor:
        return self._buffers[job.number][: len(job.reading.plan)]

    def _synchronize(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


def _cut_area(images: Tensor, v: int, spec: ViewSpec, run: DaliRun, output: Any) -> None:
    for i, row in enumerate(run.rows):
        pixels = torch.from_dlpack(output[i])
        height, width = pixels.shape[:2]
        first = spec.intermediate_size(width, height)
        if first is not None:
            pixels = resize_area(pixels, *first)
        width, height = run.sizes[i, v].tolist()
        if spec.kind == "fit":
            images[row, v].zero_()
        images[row, v, :height, :width] = resize_area(pixels, width, height)


def _turn(
    pixels_VSSC: Tensor, views: Sequence[ViewSpec], sizes: list[list[int]], orientation: int
) -> None:
    """Turn the views of a sample upright where they lie; what is black stays right and below."""
    if all(spec.kind != "fit" for spec in views):
        _copy(turn_views(pixels_VSSC, orientation), pixels_VSSC)
        return
    for view, (width, height) in zip(pixels_VSSC, sizes, strict=True):
        turned = turn_views(view[None, :height, :width], orientation)[0]
        _copy(torch.zeros_like(view[:1, :1]).expand_as(view), view)
        _copy(turned, view[: turned.shape[0], : turned.shape[1]])


def _copy(source: Tensor, target: Tensor) -> None:
    if target.is_cuda:
        target.copy_(source)
    else:
        # By NumPy: torch would wake threads of its own, which then spin on the cores of DALI's.
        np.copyto(target.numpy(), source.numpy())


def _to_torch(dense: Any) -> Tensor:
    return torch.from_dlpack(dense.as_tensor())
