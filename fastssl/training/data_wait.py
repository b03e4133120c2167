"""At the end of a run: did it wait for data, where, and is that more than the user allows."""

from __future__ import annotations

import logging

from ..errors import RunFailed
from ..loaders import Loader
from ..loaders.telemetry import describe_data, merge_reports
from ..world import World
from .metrics import Meter

_log = logging.getLogger(__name__)


def judge_data(world: World, meter: Meter, loader: Loader, max_share: float) -> None:
    """Say in one sentence whether data held this life of a run up; a collective call.

    Args:
        world: the ranks.
        meter: which measured the waiting.
        loader: which measured its stages.
        max_share: share of the time spent waiting that the user allows, 0 .. 1.

    Raises:
        RunFailed: if the run waited longer; everything is saved by then.
    """
    share = meter.data_wait_share()
    report = merge_reports(world.gather(loader.telemetry.total()))
    if not report.batches:  # a run that was at its end already
        return
    sentence = describe_data(loader.name, share, report)
    if world.is_zero:
        _log.info("data: %s", sentence)
    if share > max_share:
        raise RunFailed(f"log.max_data_wait_share ({max_share}) was exceeded: {sentence}")
