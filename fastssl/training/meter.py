"""What a logged interval of steps comes to: means of scalars, times, and the loader's rates."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..loaders.telemetry import StageReport, merge_reports
from ..world import World


class Meter:
    """Gathers scalars on the device and times on the host; asks for them at logged steps only."""

    def __init__(self, world: World, global_batch_size: int) -> None:
        """Start at zero.

        Args:
            world: the ranks.
            global_batch_size: B, images of a step.
        """
        self._world = world
        self._batch = global_batch_size
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._life_began: float | None = None
        self._life_wait_s = 0.0
        self.reset()

    def waited(self, seconds: float) -> None:
        """Add time spent waiting for a batch."""
        self._wait_s += seconds
        if self._life_began is None:  # the first batch waits for workers to start
            self._life_began = time.perf_counter()
        else:
            self._life_wait_s += seconds

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Leave the time of the block out: it belongs to no step."""
        began = time.perf_counter()
        yield
        elapsed = time.perf_counter() - began
        self._began += elapsed
        if self._life_began is not None:
            self._life_began += elapsed

    def data_wait_share(self) -> float:
        """Return the share of this life, its first batch apart, spent waiting for data.

        Of the rank that waited longest; a collective call.
        """
        began = self._life_began
        elapsed = 0.0 if began is None else time.perf_counter() - began
        (share,) = self._world.max(self._life_wait_s / elapsed if elapsed else 0.0)
        return share

    def add(self, means: dict[str, Tensor], is_finite: Tensor, fallback_decodes: int) -> None:
        """Add one step.

        Args:
            means: scalars over all ranks, on the device.
            is_finite: bool scalar; a step whose loss is not finite does not enter the means.
            fallback_decodes: of this rank's batch.
        """
        values = torch.stack([value.double() for value in means.values()])
        values = torch.where(is_finite, values, 0.0)
        count = is_finite.double()[None]
        self._names = list(means)
        row = torch.cat([count, values])
        self._sums = row if self._sums is None else self._sums + row
        self._num_steps += 1
        self._fallback_decodes += fallback_decodes

    def collect(self, loader: StageReport) -> dict[str, Any]:
        """Return what was measured since the last call and begin anew; a collective call.

        Args:
            loader: what this rank's loader measured over the interval.
        """
        sums = [] if self._sums is None else self._sums.tolist()
        elapsed = time.perf_counter() - self._began
        steps = max(self._num_steps, 1)
        step_ms, wait_ms = self._world.max(elapsed * 1e3 / steps, self._wait_s * 1e3 / steps)
        (fallback_decodes,) = self._world.sum(self._fallback_decodes)()
        count, *totals = sums or [0.0] * (1 + len(self._names))
        means = {n: s / count if count else None for n, s in zip(self._names, totals, strict=True)}
        measured = {
            "images_per_s": self._batch * 1e3 / step_ms if step_ms else math.inf,
            "data_wait_ms": wait_ms,
            "step_ms": step_ms,
            "data_wait_share": min(wait_ms / step_ms, 1.0) if step_ms else 0.0,
            **_describe_loader(merge_reports(self._world.gather(loader))),
            "fallback_decodes": fallback_decodes,
            **means,
        }
        self.reset()
        return measured

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of an interval that a checkpoint falls into; times start anew."""
        sums = [] if self._sums is None else self._sums.tolist()
        return {"names": list(self._names), "sums": sums, "fallbacks": self._fallback_decodes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the sums of an interval."""
        self.reset()
        self._names = state["names"]
        if state["sums"]:
            device = self._world.device
            self._sums = torch.tensor(state["sums"], dtype=torch.float64, device=device)
        if self._world.is_zero:  # whose count it was
            self._fallback_decodes = state["fallbacks"]

    def reset(self) -> None:
        """Begin a new interval."""
        self._sums = None
        self._num_steps = 0
        self._wait_s = 0.0
        self._fallback_decodes = 0
        self._began = time.perf_counter()


def _describe_loader(report: StageReport) -> dict[str, float]:
    """Return the loader's part of a line: batches that lay ready, and each stage's rate."""
    rates = {f"loader_{stage}_images_per_s": rate for stage, rate in report.rates().items()}
    share = report.entropy_decoded_share
    shares = {} if share is None else {"loader_entropy_decoded_share": share}
    cache = report.cache
    if cache.samples:
        shares |= {
            "cache_hit_share": cache.hits / cache.samples,
            "cache_fetched_mb": cache.fetched_bytes / 1e6,
            "cache_stalls": cache.stalls,
            "cache_stall_s": cache.stall_s,
        }
    return {"loader_ready_batches": report.queue_depth, **rates, **shares}
