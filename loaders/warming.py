"""Keeps the cache of a remote dataset ahead of the loader, in the loader's own order.

The order is a pure function of the position, so what will be needed is known: plans are made some
megabytes before they are handed to the back end, and what they miss is fetched meanwhile. Where the
cache is full, those pages go whose next use lies furthest away (Belady 1966), and none that a plan
under way needs. A pass beside the stream drops nothing: what it would drop is the stream's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..config import LoaderConfig
from ..counts import spell_number
from ..errors import InputError
from ..sampling import NEVER, SampleOrder
from ..shards import ShardDataset
from ..shards.cached import CachedStore
from ..shards.pages import PAGE_BYTES
from ..system.cpus import local_world_size
from .plan import BatchPlan

MAX_AHEAD_BYTES = 256 << 20
"""Images that are looked ahead, at most; a quarter of the cache, over the machine's ranks, if that
is less."""

_log = logging.getLogger(__name__)


class Warming:
    """The look-ahead of one loader."""

    def __init__(
        self,
        dataset: ShardDataset,
        cache: CachedStore,
        order: SampleOrder,
        config: LoaderConfig,
        batches_under_way: int,
        batch_size: int,
    ) -> None:
        """See that the cache takes what is under way, and choose how much a request takes along.

        Args:
            dataset: whose shards are kept.
            cache: that keeps them.
            order: of the stream.
            config: of the loader.
            batches_under_way: that the loader makes, or keeps ready, at any time.
            batch_size: B, samples of this rank in one.

        Raises:
            InputError: if it does not.
        """
        self._dataset, self._cache, self._order = dataset, cache, order
        self._step = config.global_batch_size
        ranks = local_world_size()
        mean = cache.all_bytes // max(dataset.num_samples, 1) + PAGE_BYTES
        under_way = ranks * (batches_under_way + 2) * batch_size * mean
        least = min(under_way, cache.all_bytes)
        if least > cache.num_bytes:
            beside = int(config.cache_gb * 1e9) - cache.num_bytes
            raise InputError(
                f"data.cache_gb ({config.cache_gb:g}) is less than what the batches under way take "
                f"({spell_number(ranks, 'rank')} x "
                f"{spell_number(batches_under_way + 2, 'batch', 'batches')} x "
                f"{spell_number(batch_size, 'sample')} of {mean / 1e6:.2f} MB); set "
                f"--data.cache-gb to {_round_up(least + beside)} or more, or make batches smaller"
            )
        self._ahead_bytes = min(MAX_AHEAD_BYTES, cache.num_bytes // (4 * ranks))
        cache.takes_along = self._fits_along(config)

    def _fits_along(self, config: LoaderConfig) -> bool:
        """Tell whether what lies beside a sample is needed before it has to go again."""
        most, total = self._cache.num_bytes, self._cache.all_bytes
        if total <= most:
            return True
        if config.order != "chunked":
            return False
        layout = config.layout
        share = layout.chunk_size * layout.window_chunks * layout.num_lanes
        windows = min(share / max(self._dataset.num_samples, 1), 1.0) * total
        if windows > most:
            _log.warning(
                "data.cache_gb (%g) is less than the windows of the order's lanes hold (%.2f GB), "
                "so that samples are fetched one by one; raise it, or set --data.num-lanes or "
                "--data.window-chunks lower",
                config.cache_gb,
                windows / 1e9,
            )
        return windows <= most

    def ahead(
        self,
        plans: Iterator[BatchPlan],
        find_position: Callable[[], int],
        is_stream: bool,
    ) -> Iterator[BatchPlan]:
        """Yield plans, what they need being there or on its way.

        Args:
            plans: in their order.
            find_position: tells the position of the stream, behind which all is needed again.
            is_stream: whether they are the stream's.
        """
        window: deque[tuple[BatchPlan, int]] = deque()
        planned, horizon = 0, find_position()
        for plan in plans:
            horizon += self._step
            size = self._warm(plan, find_position(), horizon if is_stream else NEVER + 1)
            window.append((plan, size))
            planned += size
            while planned > self._ahead_bytes:
                first, size = window.popleft()
                planned -= size
                yield first
        yield from (plan for plan, _ in window)

    def _warm(self, plan: BatchPlan, position: int, horizon: int) -> int:
        ids = plan.sample_ids[plan.faults == 0]
        if not len(ids):
            return 1
        shards, offsets, lengths = self._dataset.locate_many(ids)

        def next_use(some: NDArray[np.int64]) -> NDArray[np.int64]:
            uses = self._order.next_use(some, position)
            return np.where(uses < horizon, 0, uses)

        self._cache.warm(shards, offsets, lengths, next_use)
        return int(lengths.sum())


def _round_up(num_bytes: int) -> str:
    """Write bytes as GB that are no less, to a megabyte."""
    return f"{-(-num_bytes // 1_000_000) / 1000:g}"
