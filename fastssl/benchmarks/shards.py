"""Measure how many photographs a second one worker of make-shards converts, and what takes time.

A round converts the photographs once in every encoding, in another order each time; figures are
medians. The parts are measured in this process, by the functions that a worker calls, file by file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from ..commands.frame import check_json_path, parse_arguments
from ..errors import InputError, nearest
from ..fields import Checked, Rounds
from ..shards.making.convert import ConvertConfig, convert
from ..shards.making.encode import ENCODINGS, EncodedPicture, Encoding, encode_picture
from ..shards.making.entries import LeftOut
from ..shards.making.sources import read_entry
from ..shards.making.writer import ShardWriter
from ..shards.picture import PictureError
from ..system.machine import describe_environment
from .harness import rotate, summarize, write_result

T = TypeVar("T")


@dataclass(frozen=True)
class BenchShards(Checked):
    """Photographs a second of one worker of make-shards."""

    source: tyro.conf.Positional[Path]
    """Folder tree of photographs."""
    encodings: str = "keep,tiled"
    """Of make-shards, comma-separated."""
    rounds: Rounds = 5
    """Rounds, at least 3."""
    json: Path | None = None
    """File for the results."""

    def check(self) -> None:
        """Refuse a source that is not there and encodings that are not known."""
        if not self.source.exists():
            raise InputError(f"SOURCE ({self.source}) is not there; name a folder of photographs")
        if not self.names:
            raise InputError(f"--encodings ('{self.encodings}') names none{nearest('', ENCODINGS)}")
        for name in self.names:
            if name not in ENCODINGS:
                raise InputError(f"--encodings ('{name}') is not known{nearest(name, ENCODINGS)}")

    @property
    def names(self) -> list[str]:
        """The encodings."""
        return [name.strip() for name in self.encodings.split(",") if name.strip()]


class Conversion(NamedTuple):
    """A conversion."""

    images: int
    """Entries that were read."""
    seconds: float
    """From the start of the worker to the manifest."""
    cpu_s: float
    """CPU time of both processes."""


def waited_cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


class Stopwatch:
    """Adds up the time of calls by name."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.seconds: dict[str, float] = {}

    def time(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function and add its time, be its end an exception or not."""
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            passed = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + passed


def measure_parts(config: ConvertConfig) -> dict[str, float]:
    """Return milliseconds an image of reading, encoding and writing."""
    watch, source, count = Stopwatch(), config.open_source(), 0
    with tempfile.TemporaryFile() as file:
        writer = ShardWriter(file)
        for number, entry in enumerate(source.entries()):
            count += 1
            with contextlib.suppress(LeftOut, PictureError):
                sample = watch.time("read", read_entry, config.source, entry)
                picture: EncodedPicture = watch.time(
                    "encode", encode_picture, sample.data, Encoding(config.encode)
                )
                watch.time("write", writer.add, number, picture, 0, {"source": entry.name})
    return {name: 1e3 * seconds / count for name, seconds in watch.seconds.items()}


def convert_once(source: Path, encoding: str) -> Conversion:
    """Convert all with one worker."""
    with tempfile.TemporaryDirectory() as work:
        cpu = waited_cpu_seconds()
        report = convert(ConvertConfig(source, Path(work) / "all", encoding, workers=1))  # type: ignore[arg-type]
        cpu = waited_cpu_seconds() - cpu
        return Conversion(report.read, report.seconds, cpu)


def measure(config: BenchShards) -> list[dict[str, Any]]:
    """Return a row for each encoding."""
    runs: dict[str, list[Conversion]] = {name: [] for name in config.names}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in config.names}
    for number in range(config.rounds):
        for name in rotate(config.names, number):
            runs[name].append(convert_once(config.source, name))
            parts[name].append(measure_parts(ConvertConfig(config.source, Path(), name)))  # type: ignore[arg-type]
    return [describe_row(name, runs[name], parts[name]) for name in config.names]


def describe_row(
    name: str, runs: list[Conversion], parts: list[dict[str, float]]
) -> dict[str, Any]:
    """Return the figures of an encoding."""
    rate = summarize(run.images / run.seconds for run in runs)
    return {
        "encoding": name,
        "images": runs[0].images,
        "img_per_s": rate.median,
        "spread": rate.spread,
        "worker_img_per_s": summarize(1e3 / sum(ms.values()) for ms in parts).median,
        "cpu_ms_per_image": summarize(1e3 * run.cpu_s / run.images for run in runs).median,
        **{
            f"{part}_ms": summarize(ms[part] for ms in parts).median
            for part in ("read", "encode", "write")
        },
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = parse_arguments(BenchShards, arguments)
    check_json_path(config.json)
    rows = measure(config)
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['encoding']}: {row['img_per_s']:.0f} images/s ({low:.0f}-{high:.0f}), "
            f"{row['worker_img_per_s']:.0f} by a worker that has begun; CPU "
            f"{row['cpu_ms_per_image']:.2f} ms an image, of which read {row['read_ms']:.2f}, "
            f"encode {row['encode_ms']:.2f}, write {row['write_ms']:.2f}"
        )
    write_result(config.json, {**describe_environment(), "rows": rows})
