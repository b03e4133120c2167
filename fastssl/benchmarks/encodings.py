"""Measure what each encoding costs in bytes and gives in speed, so that a user can choose one.

Makes datasets of one folder of photographs, brought to several sizes, in every encoding, and loads
them in turn: a round gives each encoding one turn, in another order each time; figures are medians.
A photograph that is smaller than the size asked for is not enlarged, which would make it smooth:
several are laid side by side.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image
from tqdm import tqdm

from ..commands.frame import check_json_path, parse_arguments
from ..errors import InputError, nearest
from ..fields import Checked, Count, NumThreads, Rounds
from ..shards import open_dataset
from ..shards.making.convert import ConvertConfig, convert
from ..system.cpus import available_cpus
from ..system.machine import describe_environment
from .harness import run_rounds, summarize, write_result
from .loaders import VIEWS, drop_from_cache
from .peers import PeerSettings
from .process import OURS, Contender

ENCODINGS = ("keep", "tiled", "resized", "raw")
_SAMPLING = {"444": 0, "422": 1, "420": 2}
_QUALITY = 90


@dataclass(frozen=True)
class BenchEncodings(Checked):
    """Bytes and images a second of every encoding."""

    source: tyro.conf.Positional[Path]
    """Folder tree of photographs."""
    loader: str = "native"
    """Back end that loads them."""
    sides: str = "500,1024,2048"
    """Longer sides in pixels that photographs are brought to, comma-separated."""
    sampling: str = "444,420"
    """Chroma sampling of the JPEGs, comma-separated: 444, 422, 420."""
    encodings: str = ",".join(ENCODINGS)
    """Of make-shards, comma-separated; resized and raw have a short side of 256 px."""
    views: str = "rrc224,rrc96,jigsaw255,color224"
    """As bench-loaders has them, comma-separated."""
    images: Count = 256
    """Photographs at the smallest side; larger ones are fewer, of as many pixels in all."""
    turn: Count = 512
    """Images of a turn that are counted."""
    threads: NumThreads = 0
    """Threads of the loader; 0 takes all usable cores."""
    rounds: Rounds = 5
    """Rounds, at least 3."""
    cold: bool = False
    """Drop the files from the page cache before each turn."""
    work: Path | None = None
    """Folder for the datasets, kept; without it a temporary one."""
    json: Path | None = None
    """File for the results."""

    def check(self) -> None:
        """Refuse names that are not known, and sides that no photograph is brought to."""
        known: dict[str, Sequence[str]] = {
            "sampling": tuple(_SAMPLING),
            "encodings": ENCODINGS,
            "views": tuple(VIEWS),
            "loader": OURS,
        }
        for name, names in known.items():
            for value in split(getattr(self, name)):
                if value not in names:
                    raise InputError(f"--{name} ('{value}') is not known{nearest(value, names)}")
        for side in split(self.sides):
            if not side.isdecimal() or not 256 <= int(side) <= 16384:
                raise InputError(f"--sides ('{side}') must be pixels, 256 .. 16384")


def split(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


# ---- photographs ---------------------------------------------------------------------------------


def list_photographs(folder: Path) -> list[Path]:
    """Return the JPEGs of a folder tree, in an order that does not depend on the disk.

    Raises:
        InputError: if there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise InputError(f"{folder}: no .jpg or .jpeg in it; name a folder of photographs")
    return found


def bring_to(photographs: Iterator[Path], side: int) -> Image.Image:
    """Return a picture of 4:3 with the longer side asked for, of one photograph or several."""
    with Image.open(next(photographs)) as opened:
        picture = opened.convert("RGB")
    if max(picture.size) >= side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    out = Image.new("RGB", (side, side * 3 // 4))
    top = 0
    while top < out.height:
        left, shortest = 0, out.height
        while left < out.width:
            out.paste(picture, (left, top))
            left, shortest = left + picture.width, min(shortest, picture.height)
            with Image.open(next(photographs)) as opened:
                picture = opened.convert("RGB")
        top += shortest  # the next row covers what hangs lower
    return out


def make_sources(config: BenchEncodings, work: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield side, sampling and folder of photographs."""
    photographs = list_photographs(config.source)
    sides = sorted(map(int, split(config.sides)))
    for side in sides:
        count = max(16, config.images * sides[0] ** 2 // side**2)
        for sampling in split(config.sampling):
            folder = work / f"photographs-{side}-{sampling}"
            folder.mkdir(parents=True)
            paths = itertools.cycle(photographs)
            for number in range(count):
                bring_to(paths, side).save(
                    folder / f"{number:06d}.jpg",
                    quality=_QUALITY,
                    subsampling=_SAMPLING[sampling],
                )
            yield side, sampling, folder


# ---- rounds --------------------------------------------------------------------------------------


def measure(
    config: BenchEncodings, datasets: dict[str, Path], views: str
) -> dict[str, list[float]]:
    """Return images a second of each round by encoding."""
    crop, resize, side = VIEWS[views]
    threads = config.threads or available_cpus()
    turns = {}
    with contextlib.ExitStack() as stack:
        for name, path in datasets.items():
            with contextlib.closing(open_dataset(path)) as dataset:
                batch_size = min(64, len(dataset))
            settings = PeerSettings(path, Path(), crop, resize, side, batch_size, threads)
            contender = Contender(config.loader, settings)
            stack.callback(contender.close)
            turns[name] = functools.partial(take_turn, config, path, contender, settings)
        return run_rounds(turns, config.rounds)


def take_turn(
    config: BenchEncodings, path: Path, contender: Contender, settings: PeerSettings
) -> float:
    """Return images a second of one turn."""
    if config.cold:
        drop_from_cache(path.iterdir())
    count = -(-config.turn // settings.batch_size)
    images, seconds, _, _ = contender.measure(3 * settings.threads + 4, count)
    return images / seconds


def measure_all(config: BenchEncodings, work: Path) -> list[dict[str, Any]]:
    """Return a row for each size, sampling, encoding and kind of view."""
    rows: list[dict[str, Any]] = []
    groups = len(split(config.sides)) * len(split(config.sampling))
    for side, sampling, photographs in tqdm(
        make_sources(config, work), "sources", groups, unit="source", disable=None
    ):
        datasets = {}
        for encoding in split(config.encodings):
            datasets[encoding] = work / f"{encoding}-{side}-{sampling}"
            convert(ConvertConfig(photographs, datasets[encoding], encode=encoding))  # type: ignore[arg-type]
        for views in split(config.views):
            rates = measure(config, datasets, views)
            for encoding, values in rates.items():
                with contextlib.closing(open_dataset(datasets[encoding])) as dataset:
                    kilobytes = float(dataset.index["length"].mean()) / 1e3
                rate = summarize(values)
                rows.append(
                    {
                        "side": side,
                        "sampling": sampling,
                        "encoding": encoding,
                        "views": views,
                        "kb_per_image": round(kilobytes, 1),
                        "img_per_s": rate.median,
                        "spread": rate.spread,
                        "cold": config.cold,
                    }
                )
    return rows


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table: a line for each source and encoding, a column for each kind of view."""
    views = list(dict.fromkeys(row["views"] for row in rows))
    lines = [
        f"| side, px | sampling | encoding | kB an image | {' | '.join(views)} |",
        "|---" * (4 + len(views)) + "|",
    ]
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("side", "sampling", "encoding", "kb_per_image"))
        groups.setdefault(key, {})[row["views"]] = row["img_per_s"]
    for key, rates in groups.items():
        cells = [*map(str, key), *(f"{rates[name]:,.0f}" for name in views)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Make datasets, measure, print, write."""
    config = parse_arguments(BenchEncodings, arguments)
    check_json_path(config.json)
    list_photographs(config.source)
    with contextlib.ExitStack() as stack:
        work = config.work
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        elif work.exists() and any(work.iterdir()):
            raise InputError(f"--work ({work}) must be new or empty; name another folder")
        rows = measure_all(config, work)
    print(to_markdown(rows))
    write_result(config.json, {**describe_environment(), "loader": config.loader, "rows": rows})
