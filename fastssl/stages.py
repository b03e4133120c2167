"""Where a loader's time goes: seconds of work at each stage between a shard and a batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

STAGES = ("read", "check", "decode", "collate", "copy")
"""read: bytes from the store; check: their CRC-32; decode: decode, cut and resize; collate: into
the batch; copy: to the training device."""


class StageClock:
    """Adds up the seconds that each stage of one batch took.

    Seconds are those of a worker: two workers that decode for a second make two.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds of work.

        Args:
            stage: one of ``STAGES``.
            seconds: of one worker, or summed over several.
        """
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes, be its end an exception or not."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)


@dataclass(frozen=True)
class CacheUse:
    """What the cache of a remote dataset did; sums over samples."""

    samples: int = 0
    """Looked for, as they came into the look-ahead."""
    hits: int = 0
    """Those of them that lay there."""
    fetched_bytes: int = 0
    """That came from the store."""
    stalls: int = 0
    """Samples that were wanted before they were there, or had to be read past the cache."""
    stall_s: float = 0.0
    """Seconds that their readers waited."""

    def __add__(self, other: CacheUse) -> CacheUse:
        """Add up."""
        return CacheUse(
            self.samples + other.samples,
            self.hits + other.hits,
            self.fetched_bytes + other.fetched_bytes,
            self.stalls + other.stalls,
            self.stall_s + other.stall_s,
        )
