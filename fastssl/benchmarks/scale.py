"""Measure what the number of samples costs: opening, the first batch, going on, and the order.

A dataset of so many samples is made for the purpose: shards of 8,192 samples each, all of them one
file by hard links, and an index that names its samples again and again. It is real in all but what
the pictures show. Beside it the same figures of the dataset that it was made from, few samples.

The order is walked by simulated ranks whose number changes twice: every sample once an epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from ..commands.frame import check_json_path, parse_arguments
from ..config import LoaderConfig
from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import Checked, NumThreads, Range, Rounds
from ..loaders import build_loader
from ..sampling import ORDERS, SampleOrder, list_positions
from ..shards import open_dataset
from ..shards.index import INDEX_NAME, IndexHeader
from ..shards.manifest import MANIFEST_NAME
from ..system.files import make_folder
from ..system.machine import describe_environment, read_processor
from ..views import ViewSpec
from .harness import run_rounds, summarize, write_result
from .process import OURS, ask, family, memory_mb, sending_refusals

SAMPLES_PER_SHARD = 8192
EPOCHS = 2
"""Walked by the simulated ranks."""
_PIECE = 1 << 20
"""Positions at once."""


@dataclass(frozen=True)
class BenchScale(Checked):
    """What a hundred million samples cost whoever reads them."""

    dataset: tyro.conf.Positional[Path]
    """The folder that make-shards wrote; its first shard is named again and again."""
    samples: Annotated[int, Range(SAMPLES_PER_SHARD, 500_000_000)] = 100_000_000
    """N; 32 bytes of disk each."""
    loaders: str = "native,webdataset"
    """Of ours, comma-separated."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    """Images a batch."""
    threads: NumThreads = 1
    """Threads or workers of each loader; 0 takes all usable cores."""
    ranks: str = "64,48,96"
    """World sizes of the simulated ranks, one after the other, comma-separated."""
    rounds: Rounds = 3
    """Rounds, at least 3."""
    folder: Path | None = None
    """Where the dataset is made, and kept; without it a temporary folder."""
    json: Path | None = None
    """File for the results."""

    def check(self) -> None:
        """Refuse loaders that are not ours, and world sizes that are none."""
        for name in self.names:
            if name not in OURS:
                raise InputError(f"--loaders ('{name}') is not known{nearest(name, OURS)}")
        for word in self.ranks.split(","):
            if not word.strip().isdecimal() or not 1 <= int(word) <= 4096:
                raise InputError(f"--ranks ('{word}') must be world sizes, such as 64,48,96")

    @property
    def names(self) -> list[str]:
        """The loaders."""
        return [name.strip() for name in self.loaders.split(",") if name.strip()]

    @property
    def world_sizes(self) -> list[int]:
        """Of the simulated ranks, in turn."""
        return [int(word) for word in self.ranks.split(",")]


# ---- a long dataset ------------------------------------------------------------------------------


def repeat_samples(source: Path, target: Path, count: int) -> None:
    """Make a dataset of many samples from the first shard of another.

    Args:
        source: a dataset.
        target: an empty folder.
        count: N.
    """
    with contextlib.closing(open_dataset(source)) as dataset:
        shard, manifest = dataset.manifest.shards[0], dataset.manifest
        rows = np.resize(dataset.index[: shard.samples], SAMPLES_PER_SHARD)
    digest = hashlib.sha256(f"{manifest.digest} {count}".encode()).hexdigest()
    shutil.copyfile(source / shard.name, target / "shard-000000.tar")
    shards = []
    with (target / INDEX_NAME).open("wb") as file:
        file.write(IndexHeader(count, digest).pack())
        for number, start in enumerate(range(0, count, SAMPLES_PER_SHARD)):
            part = rows[: count - start]
            part.tofile(file)
            name = f"shard-{number:06d}.tar"
            if number:
                os.link(target / "shard-000000.tar", target / name)
            shards.append(dataclasses.replace(shard, name=name, samples=len(part), stored=None))
        # Pages that are not on the disk yet would count as memory of whoever maps them.
        file.flush()
        os.fsync(file.fileno())
    longer = dataclasses.replace(
        manifest,
        num_samples=count,
        digest=digest,
        shards=tuple(shards),
        targets=(),
        entry_points=None,
    )
    (target / MANIFEST_NAME).write_text(longer.to_json(), "ascii")


@contextlib.contextmanager
def long_dataset(config: BenchScale) -> Iterator[Path]:
    """Give the folder of a dataset of so many samples; one that is there is taken."""
    with contextlib.ExitStack() as stack:
        folder = config.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / MANIFEST_NAME).exists():
            make_folder(folder, "--folder")
            repeat_samples(config.dataset, folder, config.samples)
        with contextlib.closing(open_dataset(folder)) as dataset:
            if len(dataset) != config.samples:
                raise InputError(
                    f"--folder ({folder}) holds {spell_number(len(dataset), 'sample')}, --samples "
                    f"says {config.samples}; set --samples {len(dataset)}, or another --folder"
                )
        yield folder


# ---- a process that begins -----------------------------------------------------------------------


def serve_start(
    connection: Connection, name: str, path: Path, batch_size: int, threads: int
) -> None:
    """Send what it takes to open a dataset and to have a batch, at its start and far behind it."""
    with sending_refusals(connection):
        connection.send(time_start(name, path, batch_size, threads))
    os._exit(0)


def time_start(name: str, path: Path, batch_size: int, threads: int) -> dict[str, float]:
    """Return seconds and private memory of what ``serve_start`` is about, in this process."""
    importlib.import_module(f"fastssl.loaders.{name}")
    before = memory_mb("Private_Dirty")
    began = time.perf_counter()
    dataset = open_dataset(path)
    answer = {"open_s": time.perf_counter() - began}
    answer["open_mb"] = memory_mb("Private_Dirty") - before
    far = (37 * len(dataset) // 10) // batch_size * batch_size
    view = ViewSpec.random_resized_crop(224)
    config = LoaderConfig(
        path=path,
        loader=name,  # type: ignore[arg-type] # one of OURS
        global_batch_size=batch_size,
        num_threads=threads,
    )
    for key, position in (("first_batch_s", 0), ("again_s", 0), ("resume_s", far)):
        began = time.perf_counter()
        with contextlib.closing(build_loader(config, view, dataset=dataset)) as loader:
            loader.load_state_dict({**loader.state_dict(), "position": position})
            batch = next(iter(loader))
            answer[key] = time.perf_counter() - began
            wanted = loader.order.at(np.arange(position, position + batch_size))[1]
            if batch.sample_ids.tolist() != wanted.tolist():
                raise RuntimeError(f"{name} gave other samples at {position} than the order says")
            ours, *workers = (memory_mb("Private_Dirty", of=[p]) for p in family(os.getpid()))
    return {**answer, "mb": max(ours - before, *workers, 0.0), "imports_mb": before}


def measure_starts(config: BenchScale, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each loader, on many samples and on few."""
    with contextlib.closing(open_dataset(config.dataset)) as dataset:
        places = {len(dataset): config.dataset.absolute(), config.samples: folder.absolute()}

    def take_turn(name: str, count: int) -> dict[str, float]:
        answer = ask(serve_start, name, places[count], config.batch_size, config.threads)
        if isinstance(answer, InputError):
            raise answer
        return answer

    turns = {
        (name, count): lambda name=name, count=count: take_turn(name, count)
        for name in config.names
        for count in places
    }
    rows = []
    for (name, count), answers in run_rounds(turns, config.rounds).items():
        figures = {key: summarize(one[key] for one in answers) for key in answers[0]}
        rows.append(
            {
                "loader": name,
                "samples": count,
                **{key: figure.median for key, figure in figures.items()},
                "spreads": {key: figure.spread for key, figure in figures.items()},
            }
        )
    return rows


# ---- the order -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """What simulated ranks used of some epochs."""

    ids: int
    """Positions that were turned into ids."""
    lost: int
    """(epoch, sample) pairs that nobody used."""
    repeated: int
    """Uses beyond the first of an epoch."""
    seconds: float
    """CPU time of the order alone."""


def walk(order: SampleOrder, world_sizes: Sequence[int]) -> Walk:
    """Walk ``EPOCHS`` epochs by ranks whose number changes, each change in the midst of an epoch.

    Args:
        order: of the samples.
        world_sizes: of the lives, which take equal shares of the steps.
    """
    count = order.num_samples
    batch = 32 * math.lcm(*world_sizes)
    num_steps = -(-EPOCHS * count // batch)
    borders = [batch * (num_steps * n // len(world_sizes)) for n in range(len(world_sizes) + 1)]
    is_used = np.zeros((EPOCHS, count), np.bool_)
    num_used, seconds = 0, 0.0
    for world_size, start, stop in zip(world_sizes, borders[:-1], borders[1:], strict=True):
        for rank in range(world_size):
            for first in range(start, stop, _PIECE * world_size):
                last = min(first + _PIECE * world_size, stop)
                began = time.process_time()
                epochs, ids = order.at(list_positions(first, last, rank, world_size))
                seconds += time.process_time() - began
                inside = epochs < EPOCHS  # the last step goes beyond
                is_used[epochs[inside], ids[inside]] = True
                num_used += int(inside.sum())
    distinct = int(np.count_nonzero(is_used))
    return Walk(num_used, EPOCHS * count - distinct, num_used - distinct, seconds)


def measure_order(config: BenchScale, digest: str) -> list[dict[str, Any]]:
    """Return a row for each order: ids a second of one core, and what the ranks used."""
    torch.set_num_threads(1)
    orders = {kind: SampleOrder(digest, config.samples, 0, kind) for kind in ORDERS}

    def count_per_second(order: SampleOrder) -> float:
        positions = list_positions(config.samples // 3, config.samples // 3 + _PIECE, 0, 1)
        began = time.process_time()
        for _ in range(10):
            order.at(positions)
        return 10 * _PIECE / (time.process_time() - began)

    turns = {kind: lambda order=order: count_per_second(order) for kind, order in orders.items()}
    rows = []
    for kind, rates in run_rounds(turns, config.rounds).items():
        rate, walked = summarize(rates), walk(orders[kind], config.world_sizes)
        rows.append(
            {
                "order": kind,
                "ids_per_s": rate.median,
                "spread": rate.spread,
                "world_sizes": config.world_sizes,
                "epochs": EPOCHS,
                "walked": walked.ids,
                "walked_per_s": walked.ids / walked.seconds,
                "lost": walked.lost,
                "repeated": walked.repeated,
            }
        )
    return rows


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = parse_arguments(BenchScale, arguments)
    check_json_path(config.json)
    open_dataset(config.dataset).close()
    with long_dataset(config) as folder:
        with contextlib.closing(open_dataset(folder)) as dataset:
            digest, num_shards = dataset.digest, len(dataset.manifest.shards)
        starts = measure_starts(config, folder)
    orders = measure_order(config, digest)
    print(
        f"{spell_number(config.samples, 'sample')} in {spell_number(num_shards, 'shard')}, on "
        f"{read_processor()}"
    )
    for row in starts:
        print(
            f"{row['loader']}, {spell_number(row['samples'], 'sample')}: opened in "
            f"{row['open_s']:.3f} s with {row['open_mb']:.1f} MB; first batch "
            f"{row['first_batch_s']:.2f} s, another loader {row['again_s']:.2f}, resumed after 3.7 "
            f"epochs {row['resume_s']:.2f}; {row['mb']:.0f} MB private a process beside "
            f"{row['imports_mb']:.0f} of imports"
        )
    for row in orders:
        print(
            f"{row['order']}: {row['ids_per_s'] / 1e6:.1f} M ids/s a core; world sizes "
            f"{config.ranks} over {EPOCHS} epochs: {spell_number(row['walked'], 'use')}, "
            f"{row['lost']} lost, {row['repeated']} repeated"
        )
    result = {**describe_environment(), "processor": read_processor(), "shards": num_shards}
    write_result(config.json, {**result, "starts": starts, "orders": orders})
