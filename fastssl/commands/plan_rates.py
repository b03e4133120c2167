"""The rates that ``fastssl plan`` reckons with: measured on a machine, kept in a file.

Photographs are converted and loaded in every encoding by the very functions that a long job calls,
with all cores, for some seconds each. What counts is the time of the processor: others that share
it do not change what a core can do. The photographs lie in the page cache: what disks and networks
do is what the user says of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from ..config import LoaderConfig, RunConfig
from ..errors import InputError, nearest_beside
from ..loaders import build_loader
from ..shards.making.convert import ConvertConfig, convert
from ..shards.making.encode import Encoding, EncodingName, encode_picture
from ..shards.making.entries import LeftOut
from ..shards.making.report import ConversionReport
from ..shards.making.sources import EntryReader, open_source
from ..shards.picture import PictureError
from ..studies.cost import measure_device
from ..system.cpus import available_cpus
from ..system.files import publish_bytes
from ..system.machine import describe_environment, read_processor
from ..system.workers import Progress
from ..training.memory import outline_task
from .planning import FAITHFUL_FIRST, EncodingRates

_MAX_LISTED = 100_000
_MAX_PHOTOGRAPHS = 256
_PER_SHARD = 64
_BATCH = 64
_WARM_BATCHES = 4
_GUESSED = 16
"""Photographs whose encoding tells how many fill the time of a measurement."""
_NUM_CLASSES = 1000


@dataclass(frozen=True)
class Rates:
    """What was measured, of what, and where."""

    date: str
    machine: str
    """Processor."""
    cores: int
    """That worked."""
    source: str
    """Where the photographs are from."""
    photographs: int
    """How many different ones."""
    source_kb: float
    """Their mean size in kB."""
    recipe: str
    """Whose views were loaded."""
    views: str
    """These views."""
    device: str
    """What would train here."""
    gflops: float
    """10^9 operations a second that it does."""
    encodings: dict[str, EncodingRates]
    """By name."""

    def save(self, path: Path) -> None:
        """Write them to a file."""
        publish_bytes(path, (json.dumps(asdict(self), indent=1) + "\n").encode("ascii"))

    @classmethod
    def load(cls, path: Path) -> Rates:
        """Read what ``save`` wrote.

        Raises:
            InputError: if it is not there, or no such file.
        """
        remedy = f"measure: fastssl plan {path} --measure PHOTOGRAPHS"
        try:
            fields = json.loads(path.read_text("ascii"))
            found = fields.pop("encodings").items()
            encodings = {name: EncodingRates(**one) for name, one in found}
            return cls(**fields, encodings=encodings)
        except FileNotFoundError:
            raise InputError(
                f"RATES ({path}) is not there{nearest_beside(path)}; {remedy}"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"RATES ({path}) holds no rates of fastssl plan; {remedy}") from None


def spell_views(config: RunConfig[Any]) -> str:
    """Return a recipe's views as text that tells different ones apart."""
    return repr(outline_task(config, _NUM_CLASSES).views)


def measure_rates(
    source: Path,
    config: RunConfig[Any],
    encodings: Sequence[str],
    seconds: float,
    advance: Progress = lambda done, total: None,  # noqa: ARG005
) -> Rates:
    """Measure conversion and loading on this machine.

    Args:
        source: photographs, anything that make-shards takes.
        config: of the recipe whose views are loaded.
        encodings: names, each measured.
        seconds: of each measurement.
        advance: is told of each encoding that is measured, of how many.

    Raises:
        InputError: if the source has no photographs that can be converted.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sizes = _copy_photographs(source, work)
        gflops, device = measure_device()
        names = [name for name in FAITHFUL_FIRST if name in encodings]
        measured = {}
        advance(0, len(names))
        for name in names:
            measured[name] = _measure_encoding(work, len(sizes), config, name, seconds)
            advance(1, len(names))
        return Rates(
            date=describe_environment()["date"],
            machine=read_processor(),
            cores=available_cpus(),
            source=str(source),
            photographs=len(sizes),
            source_kb=sum(sizes) / len(sizes) / 1e3,
            recipe=config.recipe,
            views=spell_views(config),
            device=device,
            gflops=gflops,
            encodings=measured,
        )


def _copy_photographs(source: Path, work: Path) -> list[int]:
    """Copy some photographs from all over a source; return their sizes."""
    opened = open_source(source)
    reader = EntryReader(opened.root)
    entries = list(itertools.islice(opened.entries(), _MAX_LISTED))
    sizes: list[int] = []
    for entry in entries[:: max(1, len(entries) // _MAX_PHOTOGRAPHS)][:_MAX_PHOTOGRAPHS]:
        with contextlib.suppress(LeftOut):
            data = reader.begin(entry)().data
            (work / f"{len(sizes)}").write_bytes(data)
            sizes.append(len(data))
    if not sizes:
        raise InputError(f"--measure ({source}) has no file that can be read; name photographs")
    return sizes


def _convert(
    work: Path, num_photographs: int, encoding: str, count: int
) -> tuple[Path, float, ConversionReport]:
    """Convert photographs, again and again; return the dataset, the CPU's seconds, the report."""
    source, out = work / f"{encoding}-{count}.txt", work / f"{encoding}-{count}"
    source.write_text("".join(f"{n % num_photographs}\n" for n in range(count)))
    before = sum(os.times()[:4])  # with the processes that were waited for
    config = ConvertConfig(source, out, cast(EncodingName, encoding), samples_per_shard=_PER_SHARD)
    report = convert(config)
    return out, sum(os.times()[:4]) - before, report


def _guess_convert_s(work: Path, num_photographs: int, encoding: str) -> float:
    """Return roughly the CPU's seconds that an image takes."""
    began, count = time.process_time(), min(num_photographs, _GUESSED)
    for number in range(count):
        with contextlib.suppress(PictureError):
            data = (work / f"{number}").read_bytes()
            encode_picture(data, Encoding(cast(EncodingName, encoding)))
    return (time.process_time() - began) / count


def _load(dataset: Path, config: RunConfig[Any], seconds: float) -> float:
    """Return images that the native loader hands over in a second of a core."""
    loading = LoaderConfig(path=dataset, loader="native", global_batch_size=_BATCH)
    views = outline_task(config, _NUM_CLASSES).views
    with contextlib.closing(build_loader(loading, views)) as loader:
        batches: Iterator[Any] = iter(loader)
        for _ in range(_WARM_BATCHES):
            next(batches)
        began, cpu, images = time.monotonic(), time.process_time(), 0
        while time.monotonic() - began < seconds or not images:
            images += len(next(batches).sample_ids)
        return images / (time.process_time() - cpu)


def _measure_encoding(
    work: Path, num_photographs: int, config: RunConfig[Any], encoding: str, seconds: float
) -> EncodingRates:
    # What starting takes is in both conversions, and so not in what one takes more.
    least = max(num_photographs, 2 * _BATCH)
    guess_s = _guess_convert_s(work, num_photographs, encoding)
    more = max(least, int(seconds * available_cpus() / guess_s))
    _, short_s, few = _convert(work, num_photographs, encoding, least)
    dataset, long_s, many = _convert(work, num_photographs, encoding, least + more)
    return EncodingRates(
        stored_kb=many.bytes_out / many.written / 1e3,
        convert_img_per_s=(many.read - few.read) / (long_s - short_s),
        load_img_per_s=_load(dataset, config, seconds),
    )
