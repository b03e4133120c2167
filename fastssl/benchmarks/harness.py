"""How every command here measures: interleaved rounds, medians, spreads, ratios round by round.

A round gives each side one turn, another one first each time; a ratio is the median of the rounds'
own ratios, so that what slows the whole machine for a while slows both sides.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import InputError
from ..system.machine import describe_environment

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def rotate(turns: Sequence[T], number: int) -> list[T]:
    """Return all turns of a round, from another one on each time."""
    first = number % len(turns)
    return [*turns[first:], *turns[:first]]


def run_rounds(turns: Mapping[Key, Callable[[], T]], rounds: int) -> dict[Key, list[T]]:
    """Give every side a turn in each round; return what the turns gave, by side."""
    results: dict[Key, list[T]] = {key: [] for key in turns}
    for number in range(rounds):
        for key in rotate([*turns], number):
            results[key].append(turns[key]())
    return results


@dataclass(frozen=True)
class Figure:
    """A figure of all rounds."""

    median: float
    least: float
    greatest: float

    @property
    def spread(self) -> list[float]:
        """Least and greatest, for a file."""
        return [self.least, self.greatest]


def summarize(values: Iterable[float]) -> Figure:
    """Return median, least and greatest."""
    values = [*values]
    return Figure(statistics.median(values), min(values), max(values))


def compare(over: Sequence[float], under: Sequence[float]) -> Figure:
    """Return the rounds' own ratios of two sides."""
    return summarize(a / b for a, b in zip(over, under, strict=True))


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what figures of work on a device hold for: the environment, and torch's part."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    environment = describe_environment()
    return {
        **environment,
        "machine": gpu or environment["machine"],
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if gpu else None,
    }


def choose_device(wanted: str) -> torch.device:
    """Return the device to measure on.

    Args:
        wanted: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: if there is no GPU where one is wanted.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise InputError("--device (cuda) needs a GPU that torch can use; set --device cpu")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def write_result(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, if a file is asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")
