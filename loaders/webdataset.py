"""The portable back end: DataLoader workers, webdataset's decoders, our index and order.

Needs no compiler and no GPU. Each worker reads a sample by one pread, decodes it once with the
reference decoder and cuts all its views.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
import webdataset.autodecode
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..batch import Batch
from ..errors import InputError, RunFailed
from ..shards.picture import open_picture, to_upright_rgb
from ..system.cpus import cpus_per_rank, local_world_size
from ..system.lifelines import die_with
from ..system.signals import postponing_ctrl_c
from .base import Loader, Plan
from .buffers import BatchBuffers
from .device import move_batches
from .reading import Outcome, SampleReader
from .reference import cut_views


class WebDatasetLoader(Loader):
    """Loads through ``torch.utils.data.DataLoader`` worker processes."""

    name = "webdataset"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the dataset and see that the workers' shared memory suffices."""
        super().__init__(*args, **kwargs)
        self.num_workers = self.config.num_threads or cpus_per_rank()
        # Each worker does all of these, one after the other.
        for stage in ("read", "check", "decode", "collate"):
            self.stage_workers[stage] = self.num_workers
        self._progress = _Progress(None)
        self._check_shared_memory()

    def num_ready(self) -> int:
        """Return the batches that workers have finished and nobody has taken."""
        return self._progress.num_ready()

    def _fetch(self, plans: Iterable[Plan]) -> Generator[Batch, None, None]:
        return move_batches(self._read(plans), self.device)

    def _read(self, plans: Iterable[Plan]) -> Generator[Batch, None, None]:
        context = multiprocessing.get_context("fork")
        is_closing = context.Value("b", False, lock=False)
        num_finished = context.Value("q", 0)
        progress = self._progress = _Progress(num_finished)
        reader = SampleReader(self.dataset, self.views, self.order, self.config.targets)
        buffers = BatchBuffers(self._num_in_flight, self._batch_shape, is_shared=True)
        under_way: deque[tuple[Plan, int]] = deque()

        def hand_out() -> Iterator[tuple[Plan, int]]:
            for plan in plans:
                under_way.append((plan, buffers.take()))
                yield under_way[-1]

        workers = DataLoader(
            _PlanReader(reader, buffers, num_finished),
            batch_size=None,
            sampler=hand_out(),
            num_workers=self.num_workers,
            prefetch_factor=self.config.prefetch_batches,
            collate_fn=_as_it_is,
            worker_init_fn=_WorkerSetup(os.getpid(), is_closing),
            multiprocessing_context="fork",
        )
        outcomes = _start(workers)
        try:
            for outcome in outcomes:
                if isinstance(outcome, RunFailed):
                    raise outcome
                progress.num_taken += 1
                plan, number = under_way.popleft()
                yield reader.to_batch(plan, outcome, buffers.hand_over(number, len(plan)))
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RunFailed(
                f"a loader worker was killed ({error}); the machine may be out of memory: lower "
                "--data.num-threads or --data.prefetch-batches and start again"
            ) from None
        finally:
            # The iterator's workers stop when it is gone; nothing else may hold it. One that hangs
            # in a read gets SIGTERM after five seconds, and may die of it now.
            is_closing.value = True
            del outcomes

    @property
    def _num_in_flight(self) -> int:
        """Batches that are with the workers or ready; one more where one is being handed over."""
        return self.num_workers * self.config.prefetch_batches

    @property
    def _batch_shape(self) -> tuple[int, int, int, int, int]:
        size = self.views[0].size
        return self.batch_size_per_rank, len(self.views), size, size, 3

    def _check_shared_memory(self) -> None:
        """Find too small a /dev/shm before it kills a worker with SIGBUS."""
        if not os.path.isdir("/dev/shm"):
            return
        batch_bytes = math.prod(self._batch_shape)
        num_ranks = local_world_size()  # of this machine
        num_batches = num_ranks * BatchBuffers.count(self._num_in_flight)
        room = os.statvfs("/dev/shm")
        available = room.f_bavail * room.f_frsize
        if num_batches * batch_bytes > available:
            workers = f"{self.num_workers} workers x {self.config.prefetch_batches} ready"
            others = BatchBuffers.count(0)
            raise InputError(
                f"/dev/shm ({available >> 20} MiB free) must hold {num_batches} batches of "
                f"{batch_bytes / 2**20:.1f} MiB, {num_ranks} rank(s) x ({workers} + {others}); "
                f"enlarge it (docker run --shm-size=8g) or lower --data.num-threads, "
                f"--data.prefetch-batches or the batch"
            )


class _Progress:
    """Batches that the workers of one stream have finished, and those that were taken."""

    def __init__(self, num_finished: Any) -> None:
        self.num_finished = num_finished
        self.num_taken = 0

    def num_ready(self) -> int:
        return 0 if self.num_finished is None else self.num_finished.value - self.num_taken


class _PlanReader(Dataset):
    """Runs in the workers: turns a plan into a batch on the CPU."""

    def __init__(self, reader: SampleReader, buffers: BatchBuffers, num_finished: Any) -> None:
        self.reader = reader
        self.buffers = buffers
        self.num_finished = num_finished
        # The package decodes a sample's members by handlers; ours gives the reference picture.
        self.decode = webdataset.autodecode.Decoder([_decode_member])

    def __getitem__(self, job: tuple[Plan, int]) -> Outcome | RunFailed:
        try:
            return self._load(*job)
        except RunFailed as failure:
            return failure  # raised in the rank; DataLoader would wrap it into a traceback
        finally:
            with self.num_finished.get_lock():
                self.num_finished.value += 1

    def _load(self, plan: Plan, number: int) -> Outcome:
        images = self.buffers[number]
        reading = self.reader.begin(plan)
        for row in range(len(plan)):
            payload = reading.read(row)
            with reading.clock.time("decode"):
                picture = self._decode(int(reading.sample_ids[row]), payload)
                pixels = cut_views(picture, self.reader.views, reading.boxes[row])
            with reading.clock.time("collate"):
                images[row] = torch.from_numpy(pixels)
        return reading.outcome()

    def _decode(self, sample_id: int, payload: bytes) -> Image.Image:
        sample = {"__key__": f"{sample_id:09d}", _EXTENSION: payload}
        return self.decode(sample)[_EXTENSION]


_EXTENSION = "picture"


def _decode_member(key: str, data: bytes) -> Image.Image | None:
    return to_upright_rgb(open_picture(data)) if key.endswith(_EXTENSION) else None


def _start(workers: DataLoader) -> Iterator[Any]:
    """Start the workers without torch's handler of SIGCHLD.

    It raises wherever the rank happens to be when a worker is killed, in the middle of a step as
    likely as not. A dead worker is also found where its batch is waited for, within five seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    with postponing_ctrl_c():
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
