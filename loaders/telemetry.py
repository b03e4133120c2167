"""What a loader measures of itself, and the sentence that names what holds it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..batch import Batch
from ..counts import spell_number
from ..stages import STAGES, CacheUse

STARVED_SHARE = 0.02
"""Share of a run's time spent waiting for data above which the loader counts as holding it up."""

REMEDIES = {
    "read": "read longer runs (--data.order chunked), keep the shards on a faster disk, or let "
    "more reads overlap (--data.num-threads)",
    "check": "give the loader more cores (--data.num-threads)",
    "decode": "give the loader more cores (--data.num-threads), store smaller pictures "
    "(fastssl make-shards --encode resized), or let fastssl bench-loaders --recommend compare back "
    "ends",
    "collate": "give the loader more cores (--data.num-threads), or ask for fewer or smaller views",
    "copy": "ask for fewer or smaller views, or see that the GPU's link has its full width",
}
"""What helps where a stage holds the run up."""


@dataclass(frozen=True)
class StageReport:
    """Sums over some batches."""

    batches: int = 0
    """Batches taken."""
    images: int = 0
    """Samples in them."""
    ready: int = 0
    """Finished batches that lay ready when one was asked for, summed over the batches taken."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work at each stage, summed over workers."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """Workers that each stage has."""
    entropy_decoded_mcus: int = 0
    """Minimum coded units of JPEGs whose bits were decoded; counted by the native loader alone."""
    total_mcus: int = 0
    """Those that the JPEGs have."""
    cache: CacheUse = field(default_factory=CacheUse)
    """What the cache of a remote dataset did."""

    @property
    def entropy_decoded_share(self) -> float | None:
        """Share of minimum coded units whose bits were decoded, None if nobody counted."""
        return self.entropy_decoded_mcus / self.total_mcus if self.total_mcus else None

    @property
    def queue_depth(self) -> float:
        """Mean number of finished batches that lay ready; below 1 the loader is behind."""
        return self.ready / self.batches if self.batches else 0.0

    def rates(self) -> dict[str, float]:
        """Return the images a second that each stage would reach if nothing else held it up."""
        return {
            stage: self.images * self.workers.get(stage, 1) / self.seconds[stage]
            for stage in STAGES
            if self.seconds.get(stage, 0.0) > 0
        }

    def bottleneck(self) -> str | None:
        """Return the stage of the lowest rate, or None if nothing was measured."""
        rates = self.rates()
        return min(rates, key=rates.__getitem__) if rates else None


def merge_reports(reports: Iterable[StageReport], are_ranks: bool = True) -> StageReport:
    """Add reports up.

    Args:
        reports: of several ranks over the same time, or of one rank over several times.
        are_ranks: whether they are of ranks, whose workers add up too.
    """
    merged = StageReport()
    for report in reports:
        stages = {*merged.seconds, *report.seconds}
        workers = dict(report.workers)
        if are_ranks:
            workers = {
                stage: merged.workers.get(stage, 0) + report.workers.get(stage, 0)
                for stage in {*merged.workers, *report.workers}
            }
        merged = StageReport(
            merged.batches + report.batches,
            merged.images + report.images,
            merged.ready + report.ready,
            {s: merged.seconds.get(s, 0.0) + report.seconds.get(s, 0.0) for s in stages},
            workers,
            merged.entropy_decoded_mcus + report.entropy_decoded_mcus,
            merged.total_mcus + report.total_mcus,
            merged.cache + report.cache,
        )
    return merged


class LoaderTelemetry:
    """Gathers what each batch of a loader's stream says, for an interval and for all time."""

    def __init__(self) -> None:
        """Start at zero."""
        self._interval = StageReport()
        self._before = StageReport()

    def add(self, batch: Batch, num_ready: int, workers: Mapping[str, int]) -> None:
        """Add a batch.

        Args:
            batch: the one handed over.
            num_ready: finished batches that lay ready when it was asked for.
            workers: of each stage.
        """
        one = StageReport(
            1,
            len(batch),
            num_ready,
            batch.stage_s,
            workers,
            batch.entropy_decoded_mcus,
            batch.total_mcus,
            batch.cache,
        )
        self._interval = merge_reports((self._interval, one), are_ranks=False)

    def take(self) -> StageReport:
        """Return the sums since the last call and begin the next interval."""
        interval = self._interval
        self._before = merge_reports((self._before, interval), are_ranks=False)
        self._interval = StageReport()
        return interval

    def total(self) -> StageReport:
        """Return the sums of all time."""
        return merge_reports((self._before, self._interval), are_ranks=False)


def describe_data(name: str, wait_share: float, report: StageReport) -> str:
    """Say in one sentence whether data held a run up, and if so where and what helps.

    Args:
        name: of the back end.
        wait_share: share of the run's time spent waiting for data, 0 .. 1.
        report: over all ranks.
    """
    stage = report.bottleneck()
    waited = f"the run waited {wait_share:.1%} of its time for data"
    if stage is None:
        return f"{waited}; loader {name} measured no stage"
    rates = report.rates()
    rate = f"{stage}, the slowest stage of loader {name}, does {rates[stage]:,.0f} images/s"
    rate += f" with {spell_number(report.workers.get(stage, 1), 'worker')}"
    if wait_share <= STARVED_SHARE:
        return f"{waited}: data is no bottleneck ({rate})"
    return f"{waited}: {rate}; remedy: {REMEDIES[stage]}"
