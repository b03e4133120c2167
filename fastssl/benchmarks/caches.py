"""Measure ours on a dataset of an object store through its cache, for fastssl bench-loaders.

A turn is the first epoch of a fresh process, or a part of it, from when its first batch has come:
from the folder, through a cache that has all of it, and through one that is empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..shards import open_dataset
from ..system.files import make_folder
from .harness import compare, run_rounds, summarize
from .peers import PeerSettings
from .process import ask, run_ours, sending_refusals

LOCAL, WARM, COLD = "local", "warm", "cold"
"""The folder; a cache that has it all; one that is empty."""


@dataclasses.dataclass(frozen=True)
class Caches:
    """Where the same dataset lies twice, and where it is kept."""

    settings: PeerSettings
    """What each loader is asked for, of the folder."""
    address: str
    """Of the same dataset in a store."""
    folder: Path
    """Where caches are made, and removed in the end; an empty path is the system's choice."""
    images: int
    """Of a turn, at most those of an epoch."""
    rounds: int
    """Turns of each."""


def measure_caches(config: Caches, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each loader and side: images a second, and the ratio to the folder's.

    Args:
        config: what to measure.
        names: of ours that read stores.

    Raises:
        InputError: if the two are not one dataset, a batch is larger, or a loader cannot run.
    """
    num_batches, num_bytes = _look(config)
    if config.folder != Path():
        make_folder(config.folder, "--cache-dir")
    place = None if config.folder == Path() else config.folder
    with tempfile.TemporaryDirectory(prefix="fastssl-bench-", dir=place) as root:
        take = partial(_take_turn, config, num_batches, num_bytes / 1e9 + 1)
        turns: dict[tuple[str, str], Callable[[], float]] = {}
        for name in names:
            kept = Path(root) / name
            # What one pass leaves is what the next finds.
            take(name, kept)
            turns[name, LOCAL] = partial(take, name, None)
            turns[name, WARM] = partial(take, name, kept)
            turns[name, COLD] = partial(_take_cold, take, name, root)
        rates = run_rounds(turns, config.rounds)
    return [
        {
            "loader": name,
            "side": side,
            "img_per_s": summarize(values).median,
            "spread": summarize(values).spread,
            "to_local": compare(values, rates[name, LOCAL]).median,
        }
        for (name, side), values in rates.items()
    ]


def _look(config: Caches) -> tuple[int, int]:
    """Return how many batches of a turn are counted, and the bytes of the dataset's shards."""
    with (
        contextlib.closing(open_dataset(config.settings.path)) as here,
        contextlib.closing(open_dataset(config.address)) as there,
    ):
        if here.digest != there.digest:
            raise InputError(
                f"--remote ({there.path}) has digest {there.digest[:12]}, DATASET "
                f"{here.digest[:12]}; name the same dataset twice, in a folder and in a store"
            )
        num_batches = min(config.images, len(here)) // config.settings.batch_size - 1
        if num_batches < 1:
            raise InputError(
                f"--batch-size ({config.settings.batch_size}) must be at most half of --images and "
                f"of the {len(here):,} samples, for a turn is a part of one epoch; set fewer"
            )
        return num_batches, sum(shard.bytes for shard in here.manifest.shards)


def _take_turn(
    config: Caches, num_batches: int, cache_gb: float, name: str, kept: Path | None
) -> float:
    """Return images a second of a part of an epoch, in a fresh process."""
    data: dict[str, Any] = {}
    if kept is not None:
        data = {"path": config.address, "cache_dir": kept, "cache_gb": cache_gb}
    answer = ask(_serve, name, config.settings, num_batches, data)
    if isinstance(answer, InputError):
        raise answer
    return config.settings.batch_size * num_batches / answer


def _take_cold(take: Callable[[str, Path], float], name: str, root: str) -> float:
    with tempfile.TemporaryDirectory(dir=root) as empty:
        return take(name, Path(empty))


def _serve(
    connection: Connection, name: str, settings: PeerSettings, num: int, data: dict[str, Any]
) -> None:
    """Send the seconds from when the first batch has come until so many others have."""
    with sending_refusals(connection):
        batches = run_ours(name, settings, data)
        next(batches)
        began = time.perf_counter()
        for _ in range(num):
            next(batches)
        seconds = time.perf_counter() - began
        batches.close()  # what was fetched is written down
        connection.send(seconds)
    os._exit(0)
