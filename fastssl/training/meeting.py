"""Whether all ranks of a run do the same: code, data, settings and run directory of each machine.

Machines of a cluster are set up one by one, and one of them may have been forgotten.
"""

from __future__ import annotations

import platform
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.files import publish_bytes
from ..system.machine import describe_code
from ..world import World


@dataclass(frozen=True)
class Sight:
    """What a rank sees of the run that it takes part in."""

    machine: str
    """Its host name."""
    code: str
    """From ``describe_code``."""
    has_run: bool
    """Whether its ``--output-dir`` is the folder that rank 0 writes to."""
    settings: dict[str, Any]
    """What makes the run itself, dataset and weights by their digests."""


def check_ranks(world: World, folder: Path, settings: dict[str, Any]) -> None:
    """See that every rank has the same code, data, settings and run directory; all ranks call it.

    Rank 0 may be on another machine after each restart, so the run directory has to be one.

    Args:
        world: the ranks.
        folder: the run directory.
        settings: what makes the run itself.

    Raises:
        InputError: on all ranks; names the first that differs, its machine, and in what.
    """
    if world.size == 1:
        return
    mark = folder / world.on_zero(lambda: _leave_mark(folder))
    mine = Sight(platform.node(), describe_code(), mark.exists(), settings)
    sights = world.gather(mine)
    world.on_zero(lambda: mark.unlink(missing_ok=True))
    world.on_zero(lambda: compare_sights(folder, sights))


def _leave_mark(folder: Path) -> str:
    """Write a file that no other folder has; one that is left over goes at the next start."""
    name = f".ranks-{secrets.token_hex(8)}.tmp"
    publish_bytes(folder / name, b"")
    return name


def compare_sights(folder: Path, sights: list[Sight]) -> None:
    """Compare what all ranks see with what rank 0 does.

    Args:
        folder: the run directory.
        sights: in the order of ranks.

    Raises:
        InputError: names the first that differs.
    """
    first, *others = sights
    for rank, sight in enumerate(others, 1):
        who = f"rank {rank} on {sight.machine}"
        if sight.code != first.code:
            raise InputError(
                f"{who} runs {sight.code}; rank 0 on {first.machine} runs {first.code}: install "
                "the same on both"
            )
        if not sight.has_run:
            raise InputError(
                f"{who} does not see what rank 0 on {first.machine} writes to --output-dir "
                f"({folder}); all machines have to share that folder"
            )
        for name in {**first.settings, **sight.settings}:
            here, there = first.settings.get(name), sight.settings.get(name)
            if here != there:
                raise InputError(
                    f"{who} has {name} {there!r}, rank 0 on {first.machine} has {here!r}; give all "
                    "machines the same data and command line"
                )
