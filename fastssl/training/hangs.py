"""Who holds a run up: what ranks tell each other of themselves, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..counts import spell_number
from ..loaders import Loader

Phase = Literal[
    "start",
    "data",
    "forward",
    "backward",
    "collective",
    "optimiser",
    "logs",
    "validation",
    "probe",
    "pictures",
    "checkpoint",
    "end",
]
"""What a rank does; collective is what it waits for the other ranks in, data for a batch."""

_OF_BATCH: tuple[Phase, ...] = ("data", "forward", "backward", "optimiser")
_SHOWN = 8


@dataclass(frozen=True)
class Status:
    """What a rank tells of itself now and then, whatever its main thread does."""

    rank: int
    ticks: int
    """How often it has told: of a rank that was stopped, or is gone, this stands still."""
    phase: Phase
    step: int
    """That it is at, from 1."""
    stuck_s: float
    """Seconds that it has been in the phase, or since its last sign of life there."""
    limit_s: float
    """Seconds that it may be."""
    collectives: int
    """That it has begun: whom the others wait for has begun fewer."""
    has_left: bool = False
    """Whether its part of the run has ended."""


@dataclass(frozen=True)
class Hang:
    """Why a run does not get on."""

    culprits: tuple[Status, ...]
    """The ranks that hold it up."""
    is_silent: bool
    """Whether these answer no more."""
    waiting: tuple[Status, ...]
    """The other ranks."""

    @property
    def step(self) -> int:
        """The step that does not end."""
        return min(status.step for status in self.culprits)


def find_hang(statuses: Sequence[Status], silent_s: Sequence[float]) -> Hang | None:
    """Say which ranks hold the run up, if any does so for longer than it may.

    A rank that waits for another may wait as long as that one may take.

    Args:
        statuses: the last of each rank.
        silent_s: seconds since each rank told it.
    """
    here = [status for status in statuses if not status.has_left]
    silent = [status for status in here if silent_s[status.rank] >= status.limit_s]
    culprits = silent
    if not silent and here:
        # Collectives are begun by all ranks in one order.
        behind = min((status.collectives, status.step) for status in here)
        culprits = [status for status in here if (status.collectives, status.step) == behind]
        if any(status.stuck_s < status.limit_s for status in culprits):
            return None
    if not culprits:
        return None
    waiting = [status for status in statuses if status not in culprits]
    return Hang(tuple(culprits), bool(silent), tuple(waiting))


def describe_hang(hang: Hang, locate: Callable[[int, int], str]) -> str:
    """Say it in one line.

    Args:
        hang: what was found.
        locate: names the samples of (rank, step); asked where the batch has to do with it.
    """
    said = []
    for status in hang.culprits:
        where = f"{status.phase} of step {status.step}" if status.step else status.phase
        if hang.is_silent:
            what = f"does not answer (stopped, or its machine is gone); last heard of in {where}"
        else:
            what = f"hangs: in {where} for {status.stuck_s:.0f} s ({status.limit_s:.0f} allowed)"
        samples = locate(status.rank, status.step) if status.phase in _OF_BATCH else ""
        said.append(f"rank {status.rank} {what}{samples and ', '}{samples}")
    for status in hang.waiting:
        waits = "has ended" if status.has_left else f"waits for it in {status.phase}"
        said.append(f"rank {status.rank} {waits}")
    more = len(said) - _SHOWN
    return "; ".join([*said[:_SHOWN], *([spell_number(more, "more rank")] if more > 0 else [])])


def locate_samples(loader: Loader, rank: int, step: int) -> str:
    """Name the samples that a rank learns from in a step, and the shards that hold them.

    Args:
        loader: of any rank.
        rank: whose samples.
        step: from 1.
    """
    size = loader.config.global_batch_size
    positions = np.arange((step - 1) * size, step * size, dtype=np.int64)
    _, ids = loader.order.at(positions[positions % loader.world_size == rank])
    numbers = np.unique(loader.dataset.locate_many(ids)[0]).tolist()
    shards = [loader.dataset.manifest.shards[number].name for number in numbers]
    return f"samples {_list(ids.tolist())} of {_list(shards)}"


def _list(names: Sequence[object]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(str, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def encode(status: Status) -> list[object]:
    """Return it as plain values, for ``decode`` of another rank."""
    return list(dataclasses.astuple(status))


def decode(values: Sequence[object]) -> Status:
    """Return what ``encode`` was given."""
    return Status(*values)  # type: ignore[arg-type]
