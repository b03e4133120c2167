"""What is measured of a run between two of its steps, without a trace in it."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Sequence

from ..config import RunConfig
from ..errors import InputError
from ..system.signals import StopSignals
from ..tasks import Task
from ..world import World
from .hangs import Phase
from .watchdog import Watchdog

NEVER = 1 << 62
"""Steps between two measurements of which there is one alone, at the end."""


def never() -> bool:
    """Return false: nobody asks to stop."""
    return False


class Measure(abc.ABC):
    """Measures what was learnt, now and then.

    Nothing of the run is touched: with and without it is equal to the last bit.
    """

    phase: Phase = "validation"
    """What the watchdog calls it."""

    def __init__(self, every_steps: int, log_every_steps: int) -> None:
        """Say when it is due.

        Args:
            every_steps: steps between two measurements.
            log_every_steps: steps between lines of metrics.jsonl, which hold the results.
        """
        self._every = every_steps
        self._log_every = log_every_steps

    def is_due(self, step: int) -> bool:
        """Tell whether a step has the first line of metrics.jsonl after it was due."""
        return step % self._every < self._log_every

    @abc.abstractmethod
    def measure(self, is_stopping: Callable[[], bool] = never) -> dict[str, float | None]:
        """Return numbers by their names, None for one that is not finite; a collective call.

        Args:
            is_stopping: asked now and then; where it is so on a rank, all may come to an end with
                no number at all.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of what is open."""


OpenProbe = Callable[[RunConfig, World, Task], Measure | None]
"""Opens what probes the trunk of a run, if its config asks for that."""


def refuse_probe(
    config: RunConfig,
    world: World,  # noqa: ARG001 - as OpenProbe has it
    task: Task,  # noqa: ARG001
) -> None:
    """Refuse a config that asks for a probe where nobody gave one; an ``OpenProbe``.

    Raises:
        InputError: says what gives one.
    """
    if config.probe.is_on:
        raise InputError(
            f"probe.data_path ({config.probe.data_path}) asks for a probe, and train was given "
            "none; call train(config, open_probe=fastssl.evaluation.open_probe)"
        )


def open_measures(
    files: contextlib.ExitStack, *openers: Callable[[], Measure | None]
) -> list[Measure]:
    """Open what measures a run.

    Args:
        files: closes what was opened, also where a later one fails.
        openers: each opens one, or None where there is nothing to measure.
    """
    measures = []
    for open_one in openers:
        if (measure := open_one()) is not None:
            files.callback(measure.close)
            measures.append(measure)
    return measures


def take_measures(
    measures: Sequence[Measure],
    step: int,
    is_last: bool,
    signals: StopSignals,
    watchdog: Watchdog,
) -> dict[str, float | None]:
    """Return the numbers of all that are due; a collective call.

    Args:
        measures: from ``open_measures``.
        step: steps done.
        is_last: whether this life ends with it.
        signals: what asks for a stop: torchrun waits 30 seconds for a rank to end.
        watchdog: what looks for hangs.
    """

    def is_stopping() -> bool:
        watchdog.beat()
        return signals.received is not None

    found: dict[str, float | None] = {}
    for measure in measures:
        if measure.is_due(step) or is_last:
            watchdog.enter(measure.phase, step)
            found |= measure.measure(is_stopping)
    return found
