"""The contract of every loader, and all that no back end may do differently.

The base class owns the order, the boxes, the position and the state (laws 1 and 2), the memory of
batches, their way to the device, and what is measured of it. A back end turns plans into pixels,
ahead and in the order given, and keeps law 3 and law 4 while it does.

Shape legend: B samples of this rank in a step, V views of each, S side of a view.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import logging
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch import Batch
from ..config import LoaderConfig, check_batch_size
from ..counts import spell_number
from ..errors import InputError, nearest
from ..sampling import HoldOut, SampleOrder, count_remaining, list_positions
from ..shards import ShardDataset
from ..shards.target_files import ENDING, open_target_file
from ..stages import STAGES
from ..system.cpus import cpus_per_rank
from ..system.files import sha256_of
from ..views import Views, draw_boxes, list_views
from .ahead import LookAhead
from .buffers import BatchBuffers
from .device import Buffers, move_batches
from .ids import read_ids
from .plan import BatchPlan
from .reading import Done, SampleReader
from .telemetry import LoaderTelemetry
from .warming import Warming

_log = logging.getLogger(__name__)

_SAMPLES_PLANNED = 512
"""At once, in steps of a rank's stream."""


class Loader(abc.ABC):
    """An endless stream of batches with a position that can be saved and set.

    * Step k takes positions kB .. (k+1)B-1, B the global batch; rank r of W takes those with
      s mod W = r. So world size, workers and back end never change which samples a step uses.
    * The state is {seed, order, position, dataset digest}, valid for any world size.
    * How long a batch lives: see ``Batch``.
    """

    name: str
    """The back end's name in ``LoaderConfig.loader``."""
    can_scale = False
    """Whether it takes ``LoaderConfig.dct``."""
    decodes_on_device = False
    """Whether pixels are made on the device where they are wanted."""
    threaded_stages: tuple[str, ...] = ("read", "check", "decode")
    """Stages (``fastssl.stages.STAGES``) that all its threads or processes take part in."""
    batches_at_work = 2
    """Batches that are being made at any time; two, so that threads do not idle at one's end."""

    def __init__(
        self,
        dataset: ShardDataset,
        config: LoaderConfig,
        views: Views,
        rank: int = 0,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        """Check that the batch fits the dataset.

        Args:
            dataset: the one at ``config.path``, opened.
            config: what to load.
            views: one ViewSpec or several of equal output size.
            rank: 0 .. world_size - 1.
            world_size: W, number of ranks.
            device: where the images shall lie.

        Raises:
            InputError: for a target that the dataset does not have, a batch that does not divide or
                is larger than the dataset.
        """
        if not 0 <= rank < world_size:
            raise InputError(f"rank ({rank}) must lie in 0 .. world_size - 1 ({world_size - 1})")
        self.batch_size_per_rank = check_batch_size(config.global_batch_size, world_size, 1)
        if config.dct != "exact" and not self.can_scale:
            _log.warning(
                "data.dct (%s) is ignored: loader %s decodes pictures in full; --data.loader "
                "native can scale them",
                config.dct,
                self.name,
            )
        self.config = config
        self.views = list_views(views)
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.dataset = dataset
        self.owns_dataset = False
        """Whether closing the loader closes the dataset too."""
        _check_targets(config, dataset)
        self.num_ids = count_ids(config, dataset.num_samples)
        """Ids of samples lie below this: ``num_samples``, and more where some are held out."""
        self.num_samples = count_samples(config, dataset.num_samples)
        """N, samples in use."""
        find_ids = _choose_part(config, dataset.digest, self.num_ids)
        check_count(config, self.num_samples)
        _warn_of_size(config, self.num_samples)
        self.order = SampleOrder(
            dataset.digest, self.num_samples, config.seed, config.order, config.layout, find_ids
        )
        self.reader = SampleReader(
            dataset, self.views, self.order, config.targets, _open_files(config, dataset)
        )
        self.position = 0
        self.num_threads = config.num_threads or cpus_per_rank()
        self._warming = self._open_warming()
        self.stage_workers = {
            stage: self.num_threads if stage in self.threaded_stages else 1 for stage in STAGES
        }
        self.telemetry = LoaderTelemetry()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ahead: LookAhead[Done] | None = None
        self._generation = 0
        self._closed = False

    def __len__(self) -> int:
        """Return the steps of one epoch, rounded up: ceil(N / B)."""
        return -(-self.num_samples // self.config.global_batch_size)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield the endless stream from the current position; a newer iterator ends an older."""
        self._check_open()
        self._generation += 1
        return self._stream(self._generation)

    def one_pass(self) -> Generator[Batch, None, None]:
        """Yield every sample once in id order, with epoch 0's draws; does not move the stream.

        Ranks take contiguous splits that differ by at most one sample; the last batch is short.
        """
        start = self.rank * self.num_samples // self.world_size
        stop = (self.rank + 1) * self.num_samples // self.world_size
        return self._read_in_parts(start, stop, self.order.find_ids)

    def read(self, sample_ids: NDArray[np.int64]) -> Generator[Batch, None, None]:
        """Yield given samples in their order, with epoch 0's draws; does not move the stream.

        Args:
            sample_ids: int64, all for this rank.
        """
        return self._read_in_parts(0, len(sample_ids), sample_ids.__getitem__)

    def read_step(self, position: int) -> Batch:
        """Return this rank's share of the step that begins at a position, decoded once more.

        It does not move the stream.

        Args:
            position: of the global stream.
        """
        self._check_open()
        with contextlib.closing(self._fetch(iter([self.plan_step(position)]))) as batches:
            self._streams.add(batches)
            return next(batches)

    def _read_in_parts(
        self, start: int, stop: int, find_ids: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    ) -> Generator[Batch, None, None]:
        self._check_open()
        step = self.batch_size_per_rank
        plans = (
            self.plan_ids(find_ids(np.arange(first, min(first + step, stop))))
            for first in range(start, stop, step)
        )
        batches = self._fetch(plans)
        self._streams.add(batches)
        return batches

    def plan_step(self, position: int) -> BatchPlan:
        """Plan this rank's share of the step that begins at a position of the global stream."""
        return self.plan_steps(position, 1)[0]

    def plan_steps(self, position: int, count: int) -> list[BatchPlan]:
        """Plan several steps in a row, which takes hardly longer than one of few samples.

        Args:
            position: of the global stream, where the first one begins.
            count: steps.

        Returns:
            This rank's share of each.
        """
        stop = position + count * self.config.global_batch_size
        positions = list_positions(position, stop, self.rank, self.world_size)
        whole = self._plan(*self.order.at(positions))
        # Copies: what belongs to a batch must not keep the others' memory alive.
        return [
            BatchPlan(ids.copy(), epochs.copy(), boxes.copy(), faults.copy())
            for ids, epochs, boxes, faults in zip(
                np.split(whole.sample_ids, count),
                np.split(whole.epochs, count),
                np.split(whole.boxes, count),
                np.split(whole.faults, count),
                strict=True,
            )
        ]

    def plan_ids(self, sample_ids: NDArray[np.int64]) -> BatchPlan:
        """Plan a batch of given ids with the draws of epoch 0."""
        return self._plan(np.zeros_like(sample_ids), sample_ids)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands: plain values, under 1 KB, for any world size."""
        return {**self._stream_identity(), "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the stream's position.

        Args:
            state: from ``state_dict`` of any world size and back end.

        Raises:
            InputError: if the state belongs to another stream; lists the differences.
        """
        expected = self._stream_identity()
        wrong = [
            f"{key}: state {state.get(key)!r}, here {value!r}"
            for key, value in expected.items()
            if state.get(key) != value
        ]
        if wrong:
            raise InputError(f"loader state is of another stream: {'; '.join(wrong)}")
        position = state.get("position")
        if not isinstance(position, int) or position < 0:
            raise InputError(f"loader state: position ({position!r}) must be an integer from 0")
        self.position = position
        self._generation += 1  # iterators under way end here

    def close(self) -> None:
        """Stop every worker and release files and buffers; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._generation += 1
        for stream in list(self._streams):
            stream.close()
        if self.owns_dataset:
            self.dataset.close()

    def num_ready(self) -> int:
        """Return how many finished batches of the stream lie ready."""
        return 0 if self._ahead is None else self._ahead.num_ready()

    @property
    def batch_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of a full batch's pixels, (B, V, S, S, 3)."""
        size = self.views[0].size
        return self.batch_size_per_rank, len(self.views), size, size, 3

    # ------------------------------------------------------------ what a back end does

    @abc.abstractmethod
    def _run_ahead(self, plans: Iterator[BatchPlan], buffers: Buffers) -> LookAhead[Done]:
        """Begin to fill buffers with the pixels of plans, ``prefetch_batches`` ahead, in order.

        Args:
            plans: of one stream or pass.
            buffers: from ``_reserve``; take one for each plan.
        """

    def _reserve(self) -> Buffers:
        """Return memory for one stream or pass: being filled, on its way, and lying ready."""
        return BatchBuffers(
            self._num_in_flight,
            self.batch_shape,
            is_pinned=torch.device(self.device).type == "cuda",
        )

    @property
    def _num_in_flight(self) -> int:
        """Batches that are being made, on their way, or lie ready."""
        return self.batches_at_work + 1 + self.config.prefetch_batches

    # ------------------------------------------------------------ from plans to batches

    def _open_warming(self) -> Warming | None:
        """Open the look-ahead of a dataset that is kept on this machine."""
        cache = self.dataset.cache
        if cache is None:
            return None
        size = self.batch_size_per_rank
        return Warming(self.dataset, cache, self.order, self.config, self._num_in_flight, size)

    def _fetch(
        self, plans: Iterable[BatchPlan], is_stream: bool = False
    ) -> Generator[Batch, None, None]:
        """Turn plans into batches on the device, in order. Closing the iterator stops the work."""
        plans = iter(plans)
        if self._warming is not None:
            plans = self._warming.ahead(plans, lambda: self.position, is_stream)
        batches = self._assemble(plans, is_stream)
        return batches if self.decodes_on_device else move_batches(batches, self.device)

    def _assemble(
        self, plans: Iterator[BatchPlan], is_stream: bool
    ) -> Generator[Batch, None, None]:
        buffers = self._reserve()
        with contextlib.closing(self._run_ahead(plans, buffers)) as ahead:
            if is_stream:
                self._ahead = ahead
            for plan, outcome, number in ahead:
                # Nothing here may refer to the pixels while somebody else uses them.
                yield self.reader.to_batch(plan, outcome, buffers.hand_over(number, len(plan)))

    def _stream(self, generation: int) -> Generator[Batch, None, None]:
        batches = self._training_batches(self.position)
        self._streams.add(batches)
        try:
            while True:
                num_ready = self.num_ready()
                batch = next(batches, None)
                if batch is None or generation != self._generation:
                    return
                self.telemetry.add(batch, num_ready, self.stage_workers)
                self.position += self.config.global_batch_size
                yield batch
                if generation != self._generation:
                    return
        finally:
            batches.close()

    def _plans_from(self, position: int) -> Iterator[BatchPlan]:
        # At 64 samples a batch 1.1 of the 1.7 ms that Python takes for one went into planning, most
        # of it NumPy's cost of a call.
        count = max(1, _SAMPLES_PLANNED // self.batch_size_per_rank)
        while True:
            yield from self.plan_steps(position, count)
            position += count * self.config.global_batch_size

    def _training_batches(self, position: int) -> Generator[Batch, None, None]:
        return self._fetch(self._plans_from(position), is_stream=True)

    def _plan(self, epochs: NDArray[np.int64], ids: NDArray[np.int64]) -> BatchPlan:
        rows, faults = self.dataset.look_up(ids)
        if faults.any():  # they get a substitute, and its boxes
            rows["width"][faults > 0] = rows["height"][faults > 0] = 1
        boxes = draw_boxes(self.views, rows["width"], rows["height"], self.config.seed, epochs, ids)
        return BatchPlan(ids, epochs, boxes, faults)

    def _stream_identity(self) -> dict[str, Any]:
        config = self.config
        layout = dataclasses.astuple(config.layout) if config.order == "chunked" else ()
        identity = {
            "seed": config.seed,
            "order": ":".join(map(str, (config.order, *layout))),
            "num_samples": self.num_samples,
            "dataset_digest": self.dataset.digest,
        }
        if config.hold_out:  # states from before samples could be held out do not know of it
            part = (config.part, config.hold_out, config.hold_out_seed)
            identity["part"] = ":".join(map(str, part))
        if config.ids_file != Path():
            identity["part"] = f"ids of {config.ids_sha256[:16]}"
        return identity

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("loader (closed) must be open; build a new one")


def _check_targets(config: LoaderConfig, dataset: ShardDataset) -> None:
    """Map what batches shall carry; of a remote dataset this fetches it."""
    for name in config.targets:
        if name not in dataset.targets:
            known = "; it has none: see docs/shards.md, Targets"
            raise InputError(
                f"data.targets: {dataset.path} has no target {name!r}"
                f"{nearest(name, dataset.targets) if dataset.targets else known}"
            )
        _ = dataset.targets[name]


def _open_files(config: LoaderConfig, dataset: ShardDataset) -> dict[str, np.memmap]:
    """Map the targets from outside the dataset, by name."""
    for path, sha256 in zip(config.target_files, config.target_sha256, strict=True):
        if sha256_of(path.with_suffix(ENDING)) != sha256:
            raise InputError(
                f"data.target_files: {path.with_suffix(ENDING)} has changed since the run began; "
                "restore it, or choose another --output-dir"
            )
    return {path.stem: open_target_file(path, dataset) for path in config.target_files}


def count_ids(config: LoaderConfig, available: int) -> int:
    """Return what the ids of samples lie below.

    Args:
        config: what to load.
        available: samples of the dataset.

    Raises:
        InputError: if there are not so many.
    """
    if config.max_samples > available:
        raise InputError(
            f"data.max_samples ({config.max_samples}) must not exceed the dataset's "
            f"{spell_number(available, 'sample')}; set --data.max-samples to {available} or less"
        )
    return config.max_samples or available


def _choose_part(
    config: LoaderConfig, digest: str, num_ids: int
) -> Callable[[NDArray[np.int64]], NDArray[np.int64]] | None:
    """Return what turns the ranks of the samples in use into ids; None where they are equal."""
    if config.ids_file != Path():
        return read_ids(config, num_ids).__getitem__
    if not config.hold_out:
        return None
    parts = HoldOut(digest, num_ids, config.hold_out, config.hold_out_seed)
    return parts.find_held_out if config.part == "held_out" else parts.find_remaining


def count_samples(config: LoaderConfig, available: int) -> int:
    """Return how many samples are in use.

    Args:
        config: what to load.
        available: samples of the dataset.

    Raises:
        InputError: if there are not so many.
    """
    num_ids = count_ids(config, available)
    if config.ids_file != Path():
        return len(read_ids(config, num_ids))
    if not config.hold_out:
        return num_ids
    remaining = count_remaining(num_ids, config.hold_out)
    return config.hold_out if config.part == "held_out" else remaining


def check_count(config: LoaderConfig, num_samples: int, multiple: int = 1) -> None:
    """Refuse a batch that is larger than the dataset.

    Args:
        config: what to load.
        num_samples: N, samples in use.
        multiple: what a global batch has to be one of.

    Raises:
        InputError: names the largest batch that it can be.
    """
    if config.global_batch_size > num_samples and not config.allow_repeat_in_batch:
        most = num_samples // multiple * multiple
        remedy = f"set --data.global-batch-size to {most} or less" if most else "take fewer ranks"
        raise InputError(
            f"global_batch_size ({config.global_batch_size}) is larger than the dataset "
            f"({spell_number(num_samples, 'sample')}), so samples would repeat in a batch; "
            f"{remedy}, or allow it by --data.allow-repeat-in-batch true"
        )


def _warn_of_size(config: LoaderConfig, num_samples: int) -> None:
    nominal = config.nominal_samples
    if nominal and not _is_near(num_samples, nominal):
        _log.warning(
            "the recipe is meant for %s samples and this run uses %s: it has the same epochs and "
            "other steps",
            f"{nominal:,}",
            f"{num_samples:,}",
        )


def _is_near(given: int, nominal: int) -> bool:
    """Tell whether a dataset may pass for one of that size: files get lost, a tenth does not."""
    return 0.9 * nominal <= given <= 1.1 * nominal
