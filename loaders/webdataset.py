"""The portable back end: DataLoader workers, webdataset's decoders, our index and order.

Needs no compiler and no GPU. Each worker reads a sample by one pread, decodes it once with the
reference decoder and cuts all its views.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
import webdataset.autodecode
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..shards.picture import open_picture
from ..system.cpus import local_world_size
from ..system.lifelines import die_with
from ..system.signals import postponing_signals
from .base import Loader
from .buffers import BatchBuffers
from .device import Buffers
from .plan import BatchPlan
from .reading import Done, Outcome, SampleReader

_GRACE_S = 2.0
"""What a worker that hangs in a read, or was stopped, has before it is killed."""


class WebDatasetLoader(Loader):
    """Loads through ``torch.utils.data.DataLoader`` worker processes."""

    name = "webdataset"
    threaded_stages = ("read", "check", "decode", "collate")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See that the workers' shared memory suffices."""
        super().__init__(*args, **kwargs)
        self._check_shared_memory()

    def _run_ahead(self, plans: Iterator[BatchPlan], buffers: Buffers) -> _Workers:
        return _Workers(self, plans, buffers)

    def _reserve(self) -> BatchBuffers:
        return BatchBuffers(self._num_in_flight, self.batch_shape, is_shared=True)

    @property
    def _num_in_flight(self) -> int:
        """Batches that are with the workers or ready; one more where one is being handed over."""
        return self.num_threads * self.config.prefetch_batches

    def _check_shared_memory(self) -> None:
        """Find too small a /dev/shm before it kills a worker with SIGBUS."""
        if not os.path.isdir("/dev/shm"):
            return
        batch_bytes = math.prod(self.batch_shape)
        num_ranks = local_world_size()  # of this machine
        num_batches = num_ranks * BatchBuffers.count(self._num_in_flight)
        room = os.statvfs("/dev/shm")
        available = room.f_bavail * room.f_frsize
        if num_batches * batch_bytes > available:
            workers = (
                f"{spell_number(self.num_threads, 'worker')} x {self.config.prefetch_batches} ready"
            )
            others = BatchBuffers.count(0)
            raise InputError(
                f"/dev/shm ({available >> 20} MiB free) must hold "
                f"{spell_number(num_batches, 'batch', 'batches')} of {batch_bytes / 2**20:.1f} "
                f"MiB, {spell_number(num_ranks, 'rank')} x ({workers} + {others}); enlarge it "
                "(docker run --shm-size=8g) or lower --data.num-threads, --data.prefetch-batches "
                "or the batch"
            )


class _Workers:
    """Worker processes that run ahead of their consumer: a ``LookAhead`` of processes."""

    def __init__(self, loader: Loader, plans: Iterator[BatchPlan], buffers: Buffers) -> None:
        context = multiprocessing.get_context("fork")
        self._is_closing = context.Value("b", False, lock=False)
        self._num_finished = context.Value("q", 0)
        self._num_taken = 0
        self._under_way: deque[tuple[BatchPlan, int]] = deque()
        workers = DataLoader(
            _PlanReader(loader.reader, buffers, self._num_finished),
            batch_size=None,
            sampler=_hand_out(plans, buffers, self._under_way),
            num_workers=loader.num_threads,
            prefetch_factor=loader.config.prefetch_batches,
            collate_fn=_as_it_is,
            worker_init_fn=_WorkerSetup(os.getpid(), self._is_closing),
            multiprocessing_context="fork",
        )
        before = set(multiprocessing.active_children())
        try:
            self._outcomes = _start(workers)
        except BaseException as error:
            # What has begun ignores SIGTERM until it is told that the end has come, and DataLoader
            # waits for it.
            self._is_closing.value = True
            _kill(set(multiprocessing.active_children()) - before)
            _drop_frames(error)
            if not isinstance(error, OSError):
                raise
            raise RunFailed(
                f"loader webdataset: {spell_number(loader.num_threads, 'worker')} cannot be "
                f"started ({error.strerror}); lower --data.num-threads, or raise the limit (ulimit "
                "-n: each takes a few files, ulimit -u: each is a process)"
            ) from None
        self._processes = set(multiprocessing.active_children()) - before

    def __iter__(self) -> _Workers:
        return self

    def __next__(self) -> Done:
        try:
            outcome = next(self._outcomes)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RunFailed(
                f"a loader worker was killed ({error}); the machine may be out of memory: lower "
                "--data.num-threads or --data.prefetch-batches and start again"
            ) from None
        if isinstance(outcome, RunFailed):
            raise outcome
        self._num_taken += 1
        plan, number = self._under_way.popleft()
        return Done(plan, outcome, number)

    def num_ready(self) -> int:
        # Past the lock, which a worker that was killed may hold.
        return self._num_finished.get_obj().value - self._num_taken

    def close(self) -> None:
        # Not left to the iterator's end: the frames of an error may hold it. It waits five seconds
        # for each worker, and again after SIGTERM, which one that was stopped does not hear.
        self._is_closing.value = True
        killer = threading.Timer(_GRACE_S, _kill, [self._processes])
        killer.start()
        outcomes, self._outcomes = self._outcomes, iter(())
        if isinstance(outcomes, _MultiProcessingDataLoaderIter):
            outcomes._shutdown_workers()
        killer.cancel()
        killer.join()
        self._processes = set()  # each keeps two files open


def _drop_frames(error: BaseException) -> None:
    """Let go of what the frames of an error hold: of DataLoader an iterator that is half built.

    It then fails to stop the workers that it has not noted yet, and would say so.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = hook


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _hand_out(
    plans: Iterator[BatchPlan], buffers: Buffers, under_way: deque[tuple[BatchPlan, int]]
) -> Iterator[tuple[BatchPlan, int]]:
    for plan in plans:
        under_way.append((plan, buffers.take()))
        yield under_way[-1]


class _PlanReader(Dataset):
    """Runs in the workers: turns a plan into a batch on the CPU."""

    def __init__(self, reader: SampleReader, buffers: Buffers, num_finished: Any) -> None:
        self.reader = reader
        self.buffers = buffers
        self.num_finished = num_finished
        # The package decodes a sample's members by handlers; ours opens the reference picture.
        self.decoder = webdataset.autodecode.Decoder([_open_member])

    def __getitem__(self, job: tuple[BatchPlan, int]) -> Outcome | RunFailed:
        try:
            return self._load(*job)
        except RunFailed as failure:
            return failure  # raised in the rank; DataLoader would wrap it into a traceback
        finally:
            with self.num_finished.get_lock():
                self.num_finished.value += 1

    def _load(self, plan: BatchPlan, number: int) -> Outcome:
        images = self.buffers[number]
        reading = self.reader.begin(plan)
        for row in range(len(plan)):
            pixels = reading.read_reference(row, self._open)
            with reading.clock.time("collate"):
                images[row] = torch.from_numpy(pixels)
        return reading.outcome()

    def _open(self, payload: bytes) -> Image.Image:
        return self.decoder.decode1(_EXTENSION, payload)


_EXTENSION = "picture"


def _open_member(key: str, data: bytes) -> Image.Image | None:
    return open_picture(data) if key.endswith(_EXTENSION) else None


def _start(workers: DataLoader) -> Iterator[Any]:
    """Start the workers without torch's handler of SIGCHLD.

    It raises wherever the rank happens to be when a worker is killed, in the middle of a step as
    likely as not. A dead worker is also found where its batch is waited for, within five seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    with postponing_signals():
        outcomes = iter(workers)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return outcomes


def _as_it_is(batch: Any) -> Any:
    return batch


class _WorkerSetup:
    """Makes a worker die with its rank, and leave signals to it."""

    def __init__(self, parent: int, is_closing: Any) -> None:
        self.parent = parent
        self.is_closing = is_closing

    def __call__(self, _worker: int) -> None:
        # A signal to the whole group is the rank's to judge; it needs its workers to end the step.
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end_if_closing)
        die_with(self.parent)

    def _end_if_closing(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_closing.value:
            os._exit(0)
