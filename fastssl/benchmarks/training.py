"""Measure the trainer's own step: fed from shards, fed from one resident batch, and bare.

Four ways in turn, in one process, with the same network; what a round measures is the mean step of
each, what is printed is the median of the rounds:

  shards     the loader of the recipe, its copy to the device included
  copied     one batch that lies in the host's memory and passes through the same copy
  resident   one batch that lies on the device
  bare       forward, backward and optimiser alone, on inputs that are ready

shards / resident says what the data cost; (resident - bare) / resident is the trainer's overhead:
everything but loader, forward, backward and optimiser, the task's own preparation included. Those
two run in pairs, a step each on a CPU (on a GPU a pair of single steps would wait for the device).
Where the host does the work the overhead is also timed part by part: own_share is what of a
resident step is none of forward, backward, optimiser and waiting for the batch. Two runs of the
same forward pass differ by more than that on most machines. Without --data.path it makes
photographs of its own.

Example: fastssl bench-training goyal19_jigsaw --data.path shards/ --precision bf16
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..batch import Batch
from ..commands.frame import check_json_path, parse_arguments, program_name
from ..config import CheckpointConfig, LogConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, Count, CountOrZero, Rounds
from ..loaders.device import move_batches
from ..shards.making.convert import ConvertConfig, convert
from ..studies import build_recipe, recipe_names
from ..system.signals import noting_signals
from ..training.trainer import Trainer
from ..world import join_world
from .harness import compare, describe_device, rotate, summarize, write_result

WAYS = ("shards", "copied", "resident", "bare")
TURNS = ("shards", "copied", "resident")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BenchConfig(Checked, prefix="bench."):
    """What to measure, and how often."""

    rounds: Rounds = 5
    """Rounds, at least 3; each measures every way once."""
    steps: Count = 20
    """Steps of each way in a round."""
    warm_steps: CountOrZero = 5
    """Steps of each way before those, not counted: they use up what the loader had ready."""
    photographs: Count = 1024
    """Photographs to make where no --data.path is given."""
    json: Path | None = None
    """File for the results."""


class TimedLoader:
    """Stands where the trainer looks for its loader, and times what the trainer does with batches.

    A step lasts from one batch being asked for to the next; on a GPU the first and the last of a
    round wait for the device.
    """

    def __init__(self, trainer: Trainer, bench: BenchConfig) -> None:
        """Take the place of a trainer's loader.

        Args:
            trainer: after ``set_up``.
            bench: what to measure.
        """
        self.trainer = trainer
        self.bench = bench
        self.loader = trainer.loader
        self.device = trainer.world.device
        self.step_s: dict[str, list[float]] = {way: [] for way in WAYS}
        self.wait_s: dict[str, list[float]] = {way: [] for way in WAYS}
        self.own_share: list[float] = []
        self.parts = PartClock(trainer) if self.device.type == "cpu" else None
        trainer.loader = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        """Be the loader in everything but the stream."""
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of every way in turn, then one more for the trainer's last step."""
        shards = iter(self.loader)
        batch = next(shards)
        host = dataclasses.replace(batch, images=batch.images.cpu().clone())
        resident = dataclasses.replace(batch, images=batch.images.clone())
        sources = {
            "shards": shards,
            "copied": move_batches((host for _ in itertools.count()), self.device),
        }
        bare = self._build_bare_step(resident)
        for number in range(self.bench.rounds):
            # Another one begins each round, so that none always follows the same.
            for way in rotate(TURNS, number):
                if way == "resident":
                    yield from self._time_pairs(resident, bare)
                else:
                    yield from self._time_steps(way, sources[way])
        yield resident

    @property
    def num_steps(self) -> int:
        """Steps that the trainer takes in all."""
        bench = self.bench
        return bench.rounds * (len(WAYS) - 1) * (bench.warm_steps + bench.steps) + 1

    def _time_steps(self, way: str, source: Iterator[Batch]) -> Iterator[Batch]:
        for _ in range(self.bench.warm_steps):
            yield next(source)
        self._wait_for_device()
        began, waited = time.perf_counter(), 0.0
        for _ in range(self.bench.steps):
            asked = time.perf_counter()
            batch = next(source)
            waited += time.perf_counter() - asked
            yield batch
        self._wait_for_device()
        self.step_s[way].append((time.perf_counter() - began) / self.bench.steps)
        self.wait_s[way].append(waited / self.bench.steps)

    def _time_pairs(self, batch: Batch, take_bare_step: Callable[[], None]) -> Iterator[Batch]:
        """Time the trainer's steps on a resident batch and bare ones, in turn."""
        steps = self.bench.steps
        length = 1 if self.device.type == "cpu" else steps
        for _ in range(self.bench.warm_steps):
            take_bare_step()
            yield batch
        seconds = {"resident": 0.0, "bare": 0.0}
        others_s = 0.0
        for number, first in enumerate(range(0, steps, length)):
            count = min(length, steps - first)
            for way in ("resident", "bare") if number % 2 else ("bare", "resident"):
                self._wait_for_device()
                others = self.parts.others_s() if self.parts else 0.0
                began = time.perf_counter()
                for _ in range(count):
                    if way == "bare":
                        take_bare_step()
                    else:
                        yield batch
                self._wait_for_device()
                seconds[way] += time.perf_counter() - began
                if self.parts and way == "resident":
                    others_s += self.parts.others_s() - others
        for way, total in seconds.items():
            self.step_s[way].append(total / steps)
            self.wait_s[way].append(0.0)
        if self.parts:
            self.own_share.append(1 - others_s / seconds["resident"])

    def _build_bare_step(self, batch: Batch) -> Callable[[], None]:
        trainer, config = self.trainer, self.trainer.config
        dtype = _DTYPES[config.precision]
        inputs = trainer.task.prepare(trainer.task.keep_known(batch), config.seed, dtype)
        optimizer, scaler = trainer.optimizer, trainer.scaler

        def take_step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, dtype, enabled=config.precision != "fp32"):
                loss = trainer.network(inputs)["loss"]
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

        return take_step

    def _wait_for_device(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class PartClock:
    """Times the parts of a trainer's step that are none of its own: forward, backward, optimiser.

    It times calls on the host, so it tells nothing where a device works beside it.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Put a clock around each part.

        Args:
            trainer: after ``set_up``.
        """
        self._seconds = dict.fromkeys(("both_passes", "prepare", "step", "zero_grad"), 0.0)
        self._wrap(trainer.passes, "run", "both_passes")
        self._wrap(trainer.task, "prepare", "prepare")
        self._wrap(trainer.guard, "take_step", "step")
        self._wrap(trainer.optimizer, "zero_grad", "zero_grad")

    def others_s(self) -> float:
        """Return the seconds so far of forward, backward and optimiser.

        The task's preparation lies between the passes and is the trainer's own.
        """
        parts = self._seconds
        return parts["both_passes"] - parts["prepare"] + parts["step"] + parts["zero_grad"]

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds[part] += time.perf_counter() - began

        setattr(owner, name, call)


def make_photographs(folder: Path, count: int) -> None:
    """Write smooth JPEGs with some texture, 500 x 375 px, of about the size of ImageNet's."""
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        pixels = smooth + rng.integers(-16, 17, (375, 500, 1), np.int16)
        path = folder / "ab"[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def describe(comparison: TimedLoader, config: RunConfig) -> dict[str, Any]:
    """Return rows of all ways and the ratios between them."""
    batch = config.data.global_batch_size
    step_s = {way: summarize(values) for way, values in comparison.step_s.items()}
    rows = [
        {
            "way": way,
            "img_per_s": batch / step_s[way].median,
            "step_ms": 1e3 * step_s[way].median,
            "step_ms_min": 1e3 * step_s[way].least,
            "step_ms_max": 1e3 * step_s[way].greatest,
            "data_wait_ms": 1e3 * summarize(comparison.wait_s[way]).median,
        }
        for way in WAYS
    ]

    def ratio(fast: str, slow: str) -> float:
        return compare(comparison.step_s[fast], comparison.step_s[slow]).median

    return {
        **describe_device(comparison.device),
        "device": comparison.device.type,
        "recipe": config.recipe,
        "trunk": f"{config.trunk} x{config.width}",
        "precision": config.precision,
        "batch": batch,
        "loader": comparison.loader.name,
        "compile": config.compile,
        "rounds": comparison.bench.rounds,
        "steps": comparison.bench.steps,
        "rows": rows,
        "ratios": {
            "shards/copied": ratio("copied", "shards"),
            "shards/resident": ratio("resident", "shards"),
            "step_overhead": 1 - ratio("bare", "resident"),
            "own_share": summarize(comparison.own_share).median if comparison.own_share else None,
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    print(
        f"{result['recipe']}, {result['trunk']}, {result['precision']}, batch {result['batch']}, "
        f"loader {result['loader']}; {result['machine']}, {spell_number(result['cores'], 'core')}, "
        f"torch {result['torch']}; median of {spell_number(result['rounds'], 'round')} of "
        f"{spell_number(result['steps'], 'step')}"
    )
    print(f"{'way':10} {'img/s':>10} {'step ms':>10} {'spread':>19} {'wait ms':>9}")
    for row in result["rows"]:
        spread = f"{row['step_ms_min']:.2f}-{row['step_ms_max']:.2f}"
        print(
            f"{row['way']:10} {row['img_per_s']:10.1f} {row['step_ms']:10.2f} {spread:>19} "
            f"{row['data_wait_ms']:9.2f}"
        )
    for name, value in result["ratios"].items():
        print(f"{name:16} " + ("not measured" if value is None else f"{value:.4f}"))


def measure(config: RunConfig, bench: BenchConfig) -> dict[str, Any]:
    """Run the trainer through all ways and return the results.

    Args:
        config: the run, its data in place; written to a temporary run directory.
        bench: what to measure.
    """
    world = join_world(config.device)
    if world.size > 1:
        raise InputError(f"world size ({world.size}) must be 1; run it without torchrun")
    with tempfile.TemporaryDirectory() as folder, noting_signals() as signals:
        config = dataclasses.replace(
            config,
            output_dir=Path(folder),
            checkpoint=CheckpointConfig(every_steps=10**9),
            log=LogConfig(every_steps=50, pictures_every_steps=0, progress=False),
        )
        trainer = Trainer(config, world, signals)
        try:
            trainer.set_up()
            comparison = TimedLoader(trainer, bench)
            trainer.config = dataclasses.replace(config, max_steps=comparison.num_steps)
            trainer.run()
            return describe(comparison, config)
        finally:
            trainer.close()


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part this command's own options, ``--bench.*``, from those of the recipe."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--bench."):
            rest.append(word)
            continue
        own.append("--" + word.removeprefix("--bench."))
        if "=" not in word:
            own.append(next(words, ""))
    return own, rest


def main(arguments: Sequence[str]) -> None:
    """Measure and print; ``--bench.json FILE`` or ``--json FILE`` writes the same."""
    arguments = ["--bench.json" if word == "--json" else word for word in arguments]
    program = f"{program_name()} RECIPE"
    own, rest = split_arguments(arguments)
    if not rest or rest[0].startswith("-"):
        print(__doc__)
        print(f"usage: {program} [--bench.OPTION VALUE ...] [options of the recipe]")
        print(f"recipes: {', '.join(recipe_names(has_cells=False))}\noptions of --bench:")
        parse_arguments(BenchConfig, ["--help"], program=program)
        raise SystemExit(0 if "--help" in rest or "-h" in rest else 2)
    bench = parse_arguments(BenchConfig, own, program=program)
    check_json_path(bench.json)
    default = build_recipe(rest[0])
    config = parse_arguments(
        RunConfig[type(default.task)],  # type: ignore[misc]  # known only now
        rest[1:],
        default=default,
    )
    # A run that ends before the comparison does would measure nothing.
    schedule = dataclasses.replace(config.schedule, epochs=1e6, milestones=(), warmup_epochs=0.0)
    config = dataclasses.replace(config, schedule=schedule)
    with tempfile.TemporaryDirectory() as folder:
        if config.data.path == Path():
            make_photographs(Path(folder) / "photographs", bench.photographs)
            convert(ConvertConfig(Path(folder) / "photographs", Path(folder) / "shards"))
            data = dataclasses.replace(config.data, path=Path(folder) / "shards")
            config = dataclasses.replace(config, data=data)
        result = measure(config, bench)
    show(result)
    write_result(bench.json, result)
