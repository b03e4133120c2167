"""Measure loaders on a dataset: ours beside their peers used plainly, or which of ours to take.

Every loader runs in a process of its own and is asked for batches in turn, while the others wait;
what a turn begins with was ready before and is not counted. A round gives each loader one turn, in
another order each time; ratios are medians of the rounds' own ratios, so that what slows the whole
machine for a while slows both sides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from ..commands.frame import check_json_path, parse_arguments
from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import Checked, Count, NumThreads, Range, Rounds
from ..shards import open_dataset
from ..shards.beton import BETON_NAME
from ..system.cpus import available_cpus
from ..system.machine import describe_environment
from .caches import Caches, measure_caches
from .harness import compare, run_rounds, summarize, write_result
from .peers import NOTES, PEERS, PeerError, PeerSettings
from .process import OURS, Contender, ask, serve_passes

VIEWS = {"rrc224": ("rrc", 256, 224), "jigsaw255": ("resize", 256, 255)}
VIEWS |= {"color224": ("resize", 256, 224), "rrc96": ("rrc", 0, 96)}


@dataclass(frozen=True)
class BenchLoaders(Checked):
    """Images a second of loaders, in interleaved rounds."""

    dataset: tyro.conf.Positional[Path]
    """The folder that make-shards wrote."""
    loaders: str = ""
    """Names, comma-separated: ours (webdataset, native, dali, ffcv) and peers (torchvision,
    wds-plain, dali-plain, ffcv-plain, spdl); without it all that can run here."""
    views: Literal["rrc224", "rrc96", "jigsaw255", "color224"] = "rrc224"
    """RandomResizedCrop to 224 or 96; short side 256, a random 255 or 224."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    """Images a batch."""
    threads: NumThreads = 0
    """Threads or workers of each loader; 0 takes all usable cores."""
    rounds: Rounds = 5
    """Rounds, at least 3."""
    images: Count = 2048
    """Images of a turn that are counted."""
    cold: bool = False
    """Drop the dataset's files from the page cache before each turn."""
    beton: Path = Path()
    """Beton for ffcv and ffcv-plain; without it dataset.beton in the dataset's folder."""
    recommend: bool = False
    """Measure ours alone and say what to set."""
    needed: Annotated[float, Range(0, 1_000_000_000)] = 0.0
    """With --recommend: images a second that the training takes; 0 if unknown."""
    passes: Annotated[int, Range(0, 1_000_000)] = 0
    """Instead: private memory of each of ours after 2 passes and after this many."""
    scaling: str = ""
    """Instead: images a second of each of ours at these numbers of threads, comma-separated, beside
    threads that compute and touch no memory: more than these no loader can gain on the machine."""
    remote: str = ""
    """Instead: each of ours on the same dataset at this address of a store (https://, s3://),
    through a cache that is empty and one that has it all, beside the folder; a turn is a part of
    the first epoch."""
    cache_dir: Path = Path()
    """With --remote: where the caches are made, and removed in the end."""
    json: Path | None = None
    """File for the results."""
    plot: Path | None = None
    """File for a bar chart (.png, .svg)."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        if self.passes and self.passes < 3:
            raise InputError(f"--passes ({self.passes}) must be at least 3; 0 does not measure it")
        for number in self.scaling.split(",") if self.scaling else ():
            if not number.strip().isdecimal() or not 1 <= int(number) <= 1024:
                raise InputError(f"--scaling ('{number}') must be numbers of threads, such as 1,2")

    @property
    def settings(self) -> PeerSettings:
        """What every loader is asked for."""
        crop, resize, side = VIEWS[self.views]
        beton = self.dataset / BETON_NAME if self.beton == Path() else self.beton
        threads = self.threads or available_cpus()
        return PeerSettings(
            self.dataset.absolute(), beton, crop, resize, side, self.batch_size, threads
        )


# ---- rounds --------------------------------------------------------------------------------------


def find_lack(name: str, settings: PeerSettings) -> str:
    """Return why a loader cannot run here, or nothing."""
    packages = {"dali": ("nvidia.dali",), "ffcv": ("ffcv",)}
    for package in packages.get(name, ()) if name in OURS else PEERS[name][1]:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(package) is not None:
                continue
        return f"{package} is not installed"
    if name in ("ffcv", "ffcv-plain") and not settings.beton.exists():
        return f"there is no {settings.beton}; make it: fastssl make-beton {settings.path}"
    return ""


def choose_names(config: BenchLoaders) -> list[str]:
    """Return the loaders that were asked for, or all.

    Raises:
        InputError: for a name that is none.
    """
    known = (*OURS, *PEERS)
    names = [name.strip() for name in config.loaders.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"--loaders ('{name}') is not known{nearest(name, known)}")
    if config.recommend or config.passes or config.scaling or config.remote:
        known = OURS
        names = [name for name in names if name in OURS]
    return list(dict.fromkeys(names or known))


def start(config: BenchLoaders, notes: dict[str, str]) -> Iterator[Contender]:
    """Yield the loaders that run here, and note why others do not."""
    asked = config.loaders != ""
    for name in choose_names(config):
        lack = find_lack(name, config.settings)
        if not lack:
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            try:
                yield Contender(name, config.settings)
                continue
            except (InputError, PeerError) as error:
                lack = str(error)
        notes[name] = f"not measured: {lack}"
        if asked or name in OURS:
            print(f"{name}: {notes[name]}", file=sys.stderr, flush=True)


def drop_from_cache(paths: Iterable[Path]) -> None:
    """Have the system forget files."""
    for path in paths:
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class Turn(NamedTuple):
    """What a loader did in one turn."""

    images: int
    seconds: float
    cpu_s: float
    memory_mb: float


def measure(config: BenchLoaders) -> dict[str, Any]:
    """Run all rounds and return rows, ratios and notes."""
    notes: dict[str, str] = {}
    settings = config.settings
    with contextlib.ExitStack() as stack:
        contenders = []
        for contender in start(config, notes):
            stack.callback(contender.close)
            contenders.append(contender)
            notes |= {contender.name: NOTES[contender.name]} if contender.name in NOTES else {}
        if not contenders:
            raise InputError(f"--loaders: none can run here: {'; '.join(notes.values())}")
        count = -(-config.images // config.batch_size)
        # More than lies ready anywhere: workers x 2 of a DataLoader, and what is half done.
        skip = 3 * settings.threads + 4

        def take_turn(contender: Contender) -> Turn:
            if config.cold:
                drop_from_cache((*config.dataset.iterdir(), settings.beton))
            return Turn(*contender.measure(skip, count))

        turns = {contender.name: partial(take_turn, contender) for contender in contenders}
        taken = run_rounds(turns, config.rounds)
    rates = {name: [turn.images / turn.seconds for turn in turns] for name, turns in taken.items()}
    rows = []
    for name, turns_taken in taken.items():
        rate = summarize(rates[name])
        rows.append(
            {
                "loader": name,
                "views": config.views,
                "img_per_s": rate.median,
                "img_per_s_per_core": rate.median / min(settings.threads, available_cpus()),
                "spread": rate.spread,
                "cold": config.cold,
                "cpu_ms_per_image": summarize(
                    1e3 * turn.cpu_s / turn.images for turn in turns_taken
                ).median,
                "memory_mb": max(turn.memory_mb for turn in turns_taken),
            }
        )
    ratios = {
        f"{a}/{b}": compare(rates[a], rates[b]).median
        for a, b in itertools.permutations(rates, 2)
        if a in OURS
    }
    return {**describe(config), "rows": rows, "ratios": ratios, "notes": notes}


def describe(config: BenchLoaders) -> dict[str, Any]:
    """Return what the figures hold for."""
    with contextlib.closing(open_dataset(config.dataset)) as dataset:
        samples, encoding = len(dataset), dataset.encoding
        kilobytes = float(dataset.index["length"].mean()) / 1e3
    return {
        **describe_environment(),
        "threads": config.settings.threads,
        "samples": samples,
        "encoding": encoding,
        "kb_per_image": round(kilobytes, 1),
        "batch_size": config.batch_size,
        "rounds": config.rounds,
        "images": config.images,
    }


# ---- what is said --------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    print(
        f"{spell_number(result['samples'], 'sample')} ({result['encoding']}, "
        f"{result['kb_per_image']} kB), {spell_number(result['cores'], 'core')}, "
        f"{spell_number(result['threads'], 'thread')} each, batch {result['batch_size']}, median "
        f"of {spell_number(result['rounds'], 'round')} of {spell_number(result['images'], 'image')}"
    )
    print(f"{'loader':12} {'images/s':>9} {'spread':>13} {'a core':>8} {'CPU ms':>7} {'MB':>6}")
    for row in sorted(result["rows"], key=lambda row: -row["img_per_s"]):
        spread = "-".join(f"{value:.0f}" for value in row["spread"])
        print(
            f"{row['loader']:12} {row['img_per_s']:9.0f} {spread:>13} "
            f"{row['img_per_s_per_core']:8.0f} {row['cpu_ms_per_image']:7.2f} "
            f"{row['memory_mb']:6.0f}"
        )
    for name, value in result["ratios"].items():
        print(f"{name:24} {value:.2f}")
    for name, note in result["notes"].items():
        print(f"{name}: {note}")


def recommend(config: BenchLoaders, result: dict[str, Any]) -> str:
    """Return which loader to set, and whether it will do."""
    best = max(result["rows"], key=lambda row: row["img_per_s"])
    threads, rate = config.settings.threads, best["img_per_s"]
    advice = (
        f"set --data.loader {best['loader']} --data.num-threads {threads}: {rate:.0f} images/s "
        f"({best['spread'][0]:.0f}-{best['spread'][1]:.0f})"
    )
    if config.needed:
        enough = "enough" if rate >= config.needed else "too few"
        advice += f", {enough} for the {config.needed:.0f} that the training takes"
        if rate < config.needed:
            cores = -(-config.needed // best["img_per_s_per_core"])
            advice += f"; {spell_number(int(cores), 'core')} would do"
    if result["encoding"] == "keep" and (not config.needed or rate < config.needed):
        advice += "; pictures stored smaller decode faster: fastssl make-shards --encode resized"
    return advice


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw a bar for each loader, with its spread."""
    from matplotlib.figure import Figure

    rows = sorted(result["rows"], key=lambda row: row["img_per_s"])
    figure = Figure(figsize=(7, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    values = [row["img_per_s"] for row in rows]
    spread = [
        [value - row["spread"][0] for value, row in zip(values, rows, strict=True)],
        [row["spread"][1] - value for value, row in zip(values, rows, strict=True)],
    ]
    colours = ["#2a6fbb" if row["loader"] in OURS else "#b8b8b8" for row in rows]
    axes.barh([row["loader"] for row in rows], values, xerr=spread, color=colours, ecolor="#444444")
    for place, (value, row) in enumerate(zip(values, rows, strict=True)):
        axes.text(row["spread"][1], place, f"  {value:,.0f}", va="center", fontsize=9)
    axes.set_xlim(0, 1.15 * max(row["spread"][1] for row in rows))
    axes.set_xlabel(
        f"images/s, {spell_number(result['threads'], 'thread')}, "
        f"{spell_number(result['cores'], 'core')}"
    )
    axes.set_title(
        f"{rows[0]['views']}, {result['encoding']}, {result['kb_per_image']} kB an image"
        + (", cold cache" if rows[0]["cold"] else ""),
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


# ---- threads -------------------------------------------------------------------------------------


def compute(threads: int) -> float:
    """Return how many computations a second threads do that need no memory, and no GIL."""
    rounds = 1 << 19
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(hashlib.pbkdf2_hmac, "sha256", b"", b"", rounds)
    return threads / (time.perf_counter() - began)


def measure_scaling(config: BenchLoaders) -> dict[str, Any]:
    """Return rows of each of ours at several numbers of threads, in interleaved rounds."""
    counts = sorted({int(number) for number in config.scaling.split(",")})
    turns: dict[tuple[str, int], Callable[[], float]] = {}
    notes: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, threads in itertools.product(choose_names(config), counts):
            settings = dataclasses.replace(config.settings, threads=threads)
            lack = find_lack(name, settings)
            if lack:
                notes[name] = f"not measured: {lack}"
                continue
            contender = Contender(name, settings)
            stack.callback(contender.close)
            # Turns that take alike, whatever the number.
            batches = -(-config.images * threads // counts[-1] // config.batch_size)
            turns[name, threads] = partial(measure_rate, contender, 3 * threads + 4, batches)
        turns |= {("computing", threads): partial(compute, threads) for threads in counts}
        rates = run_rounds(turns, config.rounds)
    rows = []
    for (name, threads), values in rates.items():
        rate = summarize(values)
        rows.append(
            {
                "loader": name,
                "threads": threads,
                "per_s": rate.median,
                "spread": rate.spread,
                "scaling": compare(values, rates[name, counts[0]]).median,
            }
        )
    return {**describe(config), "views": config.views, "rows": rows, "notes": notes}


def measure_rate(contender: Contender, skip: int, count: int) -> float:
    """Return images a second of one turn."""
    images, seconds, _, _ = contender.measure(skip, count)
    return images / seconds


# ---- memory --------------------------------------------------------------------------------------


def measure_passes(config: BenchLoaders) -> dict[str, Any]:
    """Return private memory in MB after 2 passes and after all, for each of ours."""
    rows, notes = [], {}
    for name in choose_names(config):
        answer: Any = find_lack(name, config.settings)
        if not answer:
            answer = ask(serve_passes, name, config.settings, config.passes)
        if isinstance(answer, list):
            rows.append(
                {"loader": name, **dict(zip(("mb_after_2", "mb_after_all"), answer, strict=True))}
            )
        else:
            notes[name] = f"not measured: {answer}"
    return {"passes": config.passes, **describe(config), "rows": rows, "notes": notes}


# ---- a cache -------------------------------------------------------------------------------------


def measure_remote(config: BenchLoaders) -> dict[str, Any]:
    """Return rows of each of ours from the folder, and from a store through its cache."""
    lacks = {
        name: "it reads a beton, and no store"
        if name == "ffcv"
        else find_lack(name, config.settings)
        for name in choose_names(config)
    }
    names = [name for name in lacks if not lacks[name]]
    place = Caches(config.settings, config.remote, config.cache_dir, config.images, config.rounds)
    rows = measure_caches(place, names)
    notes = {name: f"not measured: {lack}" for name, lack in lacks.items() if lack}
    return {**describe(config), "views": config.views, "rows": rows, "notes": notes}


MODES = {"passes": measure_passes, "scaling": measure_scaling, "remote": measure_remote}
"""What is measured instead, by the option that asks for it."""


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = parse_arguments(BenchLoaders, arguments)
    check_json_path(config.json)
    open_dataset(config.dataset).close()
    instead = next((mode for mode in MODES if getattr(config, mode)), None)
    if instead is not None:
        result = MODES[instead](config)
        for row in result["rows"]:
            cells = (f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(", ".join(cells))
        for name, note in result["notes"].items():
            print(f"{name}: {note}")
    else:
        result = measure(config)
        show(result)
        if config.recommend:
            result["recommendation"] = recommend(config, result)
            print(result["recommendation"])
        if config.plot is not None:
            draw(result, config.plot)
    write_result(config.json, result)
