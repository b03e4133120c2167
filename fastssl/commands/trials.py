"""Trials of a sweep before they start: whether their commands take their options, and costs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import walk
from ..runs.search import Space, draw_words
from ..runs.sweep import Trial, list_left
from ..shards import open_dataset
from ..studies import build_recipe
from ..studies.cells import count_images, count_steps
from ..studies.cost import count_operations, measure_device
from ..studies.listing import spell_duration
from .evaluate import list_tasks
from .evaluate import read_command_line as read_evaluation
from .train import check_required
from .train import read_command_line as read_training

_PLACE = re.compile(r"\{run:([^{}]*)\}")
_RULE = "\u2500"


def complete_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Have evaluations that train keep their run in the sweep, so that others can go on from it.

    Args:
        trials: of a sweep.

    Raises:
        InputError: if one needs the run of a trial that keeps none, or its task is not known.
    """
    completed = {}
    for trial in trials:
        if trial.command[0] == "evaluate" and "output_dir" in _option_names(trial):
            trial = dataclasses.replace(trial, command=(*trial.command, "--output-dir", "{run}"))
        completed[trial.name] = trial
    for trial in trials:
        for word in trial.command:
            for name in _PLACE.findall(word):
                words = completed[name].command
                if words[0] == "evaluate" and "{run}" not in words:
                    raise InputError(
                        f"trial {trial.name} goes on from the run of {name}, and evaluate "
                        f"{words[1]} keeps none; name one that trains"
                    )
    return list(completed.values())


def check_options(trials: Sequence[Trial], folder: Path) -> None:
    """Have the commands' own parsers read the trials' options; each value of each option once.

    Args:
        trials: of a sweep.
        folder: of the sweep.

    Raises:
        InputError: names the trial, what is wrong with it, and the nearest name that is known.
    """
    seen: set[object] = set()
    for trial in trials:
        command = trial.command[:2]
        new = {command, *((*command, *group) for group in _group_options(trial))} - seen
        if new:
            seen |= new
            read_trial(trial, folder)


def check_drawn(trial: Trial, space: Space, folder: Path) -> None:
    """Have a command's parser read all ends and values of what is searched for.

    Args:
        trial: that is searched for.
        space: the options that are drawn.
        folder: of the search.

    Raises:
        InputError: as ``check_options``; or if an option is given and drawn.
    """
    given = {group[0] for group in _group_options(trial)}
    for option in space:
        if f"--{option}" in given:
            raise InputError(f"trial {trial.name}: {option} is given, and searched for; leave one")
    for place in range(1, max(map(len, space.values()))):
        drawn = {option: kind[min(place, len(kind) - 1)] for option, kind in space.items()}
        numbers = {o: v if space[o][0] == "choice" else float(v) for o, v in drawn.items()}
        words = (*trial.command, *draw_words(numbers))
        read_trial(dataclasses.replace(trial, command=words), folder)


def read_trial(trial: Trial, folder: Path) -> Any:
    """Return a trial's config, as its command reads it.

    Args:
        trial: the trial.
        folder: of the sweep.

    Raises:
        InputError: names the trial and what is wrong with it.
    """
    said = io.StringIO()
    try:
        known = _option_names(trial)
        for group in _group_options(trial):
            name = group[0].removeprefix("--").replace("-", "_")
            if group[0].startswith("--") and name not in known:
                told = [one.replace("_", "-") for one in known]
                raise InputError(f"option {group[0]} is not known{nearest(group[0][2:], told)}")
        _, *words = trial.spell(folder, cores=1)
        with contextlib.redirect_stderr(said):
            if trial.command[0] == "evaluate":
                return read_evaluation(words)[1]
            config = read_training(words)
            check_required(config)
            return config
    except InputError as error:
        raise InputError(f"trial {trial.name}: {error}") from None
    except SystemExit:
        raise InputError(f"trial {trial.name}: {_take_line(said.getvalue())}") from None


def _option_names(trial: Trial) -> frozenset[str]:
    """Return the dotted names of the options that a trial's command takes."""
    command, *words = trial.command
    if not words or words[0].startswith("-"):
        raise InputError(f"trial {trial.name}: behind {command} comes a recipe or a task")
    if command == "train":
        return _recipe_options(words[0])
    tasks = list_tasks()
    task = words[0].replace("-", "_")
    if task not in tasks:
        raise InputError(
            f"trial {trial.name}: task '{words[0]}' is not known{nearest(words[0], tasks)}"
        )
    return frozenset(item.name for item in walk(tasks[task]))


@functools.cache
def _recipe_options(name: str) -> frozenset[str]:
    return frozenset(item.name for item in walk(build_recipe(name)))


def _group_options(trial: Trial) -> Iterator[tuple[str, ...]]:
    """Yield a trial's options, each with its values; the runs of others are all alike."""
    group: list[str] = []
    for word in trial.command[2:]:
        for part in word.split("=", 1) if word.startswith("--") else [word]:
            if part.startswith("--") and group:
                yield tuple(group)
                group = []
            group.append(_PLACE.sub("{run}", part))
    if group:
        yield tuple(group)


def _take_line(said: str) -> str:
    """Return what the parser says first in the box that it draws."""
    lines = []
    for line in said.splitlines()[1:]:
        text = line.strip("\u2502 ").strip()
        if text.startswith((_RULE, "\u2570")) or not text:
            break
        lines.append(text)
    return " ".join(lines) or "its options cannot be read"


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a trial takes, as far as that is known before it starts."""

    steps: int = 0
    """Of the training."""
    exaflops: float = 0.0
    """10^18 operations of the training."""


def describe_trials(trials: Sequence[Trial], folder: Path) -> str:
    """Return a table of trials: what is done, what the others take as far as that is known.

    Args:
        trials: of a sweep.
        folder: of the sweep, which need not be there.
    """
    left = {trial.name for trial in list_left(trials, folder)}
    costs = {trial.name: estimate(trial, folder) for trial in trials}
    speed, device = measure_device()
    rows = [("trial", "command", "state", "steps", "EFLOP", "time here")]
    for trial in trials:
        cost = costs[trial.name]
        state = "waiting" if trial.name in left else "done"
        rows.append((trial.name, " ".join(trial.command[:2]), state, *_spell_cost(cost, speed)))
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    whole = sum(costs[name].exaflops for name in left)
    told = f"{spell_number(len(trials), 'trial')}, {len(trials) - len(left)} done"
    if whole:
        told += f"; training the others takes {whole:.2g} EFLOP, about {_spell_time(whole, speed)}"
    elif left:
        told += "; what the others take is not known before they run"
    lines += ["", f"{told}."]
    if any(cost.exaflops for cost in costs.values()):
        lines += [
            "EFLOP: 10^18 operations of the whole training, as torch counts them. Time here: one",
            f"after the other on {device}, about {speed:,.0f} GFLOP/s. Empty: not known before.",
        ]
    return "\n".join(lines)


def _spell_time(exaflops: float, speed: float) -> str:
    return spell_duration(exaflops * 1e9 / speed)


def _spell_cost(cost: Cost, speed: float) -> tuple[str, str, str]:
    steps = f"{cost.steps:,}" if cost.steps else ""
    if not cost.exaflops:
        return steps, "", ""
    return steps, f"{cost.exaflops:.2g}", _spell_time(cost.exaflops, speed)


def estimate(trial: Trial, folder: Path) -> Cost:
    """Return what a trial takes, as far as that is known before it starts.

    Args:
        trial: the trial.
        folder: of the sweep.
    """
    config = read_trial(trial, folder)
    if not isinstance(config, RunConfig):
        return Cost(steps=getattr(config, "max_steps", 0) or 0)
    num_images = config.data.max_samples or _count_samples(config.data.path)
    if config.max_steps is None and not (num_images or config.data.nominal_samples):
        return Cost()
    operations = _count_operations(_outline(config)) * count_images(config, num_images)
    return Cost(count_steps(config, num_images), operations / 1e9)


@functools.cache
def _count_samples(path: str | Path) -> int:
    """Return how many samples a dataset has; 0 where it is none yet, as photographs are."""
    try:
        with contextlib.closing(open_dataset(path)) as dataset:
            return dataset.num_samples
    except (InputError, OSError):
        return 0


_count_operations = functools.lru_cache(maxsize=None)(count_operations)


def _outline(config: RunConfig[Any]) -> RunConfig[Any]:
    """Return a run's config without what its operations do not depend on, to count them once."""
    plain = build_recipe(config.recipe)
    return dataclasses.replace(
        plain,
        task=config.task,
        trunk=config.trunk,
        width=config.width,
        frozen_stages=config.frozen_stages,
    )
