"""Whatever number stands on the command line: a config, or one line that says what is wrong.

A run's config that is made bears what a run begins with: the schedule, the order of samples and, at
the upper end of a range, the estimate of memory. Of the other commands it is made and no more.
``python -m tests.hostile options`` tries them as processes.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from typing import Any

import numpy as np
import pytest

from fastssl.commands import COMMANDS
from fastssl.commands.frame import parse_arguments
from fastssl.commands.train import read_command_line
from fastssl.config import RunConfig, check_batch_size
from fastssl.errors import InputError
from fastssl.evaluation.measures import MEASURES
from fastssl.evaluation.trained import TRAINED
from fastssl.fields import Item, walk
from fastssl.sampling import SampleOrder
from fastssl.studies import build_recipe
from fastssl.training.memory import Capacity, check_memory, outline_task
from fastssl.training.schedule import build_schedule
from tests.nursery import run_child

HOSTILE = ("nan", "inf", "-1", "0", "1e308", str(2**31), str(2**63), str(10**23))
# One for each task's config; the fields that all runs have are tried with the first.
RECIPES = (
    "goyal19_jigsaw_smoke",
    "goyal19_colorization_smoke",
    "kolesnikov19_exemplar_smoke",
    "kolesnikov19_relative_location_smoke",
    "kolesnikov19_rotation_smoke",
    "supervised_smoke",
)
NUM_SAMPLES = 1000


def is_number(kind: Any) -> bool:
    """Return whether a type is of numbers, a choice among a few aside."""
    if typing.get_origin(kind) is typing.Literal:
        return False
    return kind in (int, float) or any(map(is_number, typing.get_args(kind)))


def list_numbers(recipe: str) -> list[Item]:
    """List the fields of a recipe that take numbers."""
    return [
        item
        for item in walk(build_recipe(recipe))
        if is_number(item.kind)
        and item.name != "data.seed"  # no option
        and (item.name.startswith("task.") or recipe == RECIPES[0])
    ]


def check_size(config: RunConfig) -> None:
    """Check a micro-batch and its memory as a run does before it begins."""
    size = check_batch_size(config.data.global_batch_size, 1, config.accumulation)
    outline = outline_task(config, num_classes=3)
    outline.check_batch(size)
    check_memory(outline, config, size, 1, Capacity(16 * 2**30, "a machine"))


def begin(config: RunConfig) -> None:
    """Do what a run does with numbers before it opens its data."""
    data = config.data
    schedule = build_schedule(config.schedule, config.optim, NUM_SAMPLES, data.global_batch_size)
    rates = [schedule.lr_at(epoch * NUM_SAMPLES) for epoch in (0, 1, 50, 10**6)]
    assert all(0 <= rate < 1e38 for rate in rates)  # as float32 has it
    assert 0 < schedule.total_steps < 2**63
    for order in ("global", "chunked"):
        drawn = SampleOrder("ab" * 32, NUM_SAMPLES, config.seed, order, data.layout)
        assert (drawn.at(np.arange(50))[1] < NUM_SAMPLES).all()


def is_about_size(name: str) -> bool:
    """Return whether a field changes what a step holds."""
    return name.startswith(("task.", "width", "accumulation", "data.global"))


def change(config: Any, name: str, value: Any) -> Any:
    """Return a config with another value in a field, named from the top with dots between."""
    first, _, rest = name.partition(".")
    inner = change(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: inner})


def make_config(recipe: str, item: Item, value: str, is_parsed: bool) -> RunConfig:
    """Make a recipe's config with a value as it stands on a command line."""
    if is_parsed:
        return read_command_line([recipe, f"--{item.name.replace('_', '-')}", value])
    return set_number(build_recipe(recipe), item, value)


def set_number(config: Any, item: Item, value: str) -> Any:
    """Return a config with a number in a field, as the parser makes it."""
    try:
        number = item.kind(value)
    except ValueError:
        raise InputError("no number") from None
    return change(config, item.name, number)


def attempt(recipe: str, item: Item, value: str, is_parsed: bool) -> str:
    """Say what becomes of a number."""
    try:
        config = make_config(recipe, item, value, is_parsed)
        begin(config)
        if value == str(item.limits.high) and is_about_size(item.name):
            check_size(config)
    except InputError as error:
        return "refused" if "\n" not in str(error) else "refused at length"
    return "taken"


# ------------------------------------------------------------------ every command


def find_configs(command: str) -> list[type]:
    """Return the dataclass of a command's options, if it has any of its own; those of its tasks."""
    if command == "evaluate":
        return [config for config, _ in MEASURES.values()] + [*TRAINED.values()]
    module = importlib.import_module(COMMANDS[command].module)
    own = [
        value
        for value in vars(module).values()
        if dataclasses.is_dataclass(value)
        and value.__module__ == module.__name__
        and f"parse_arguments({value.__name__}," in read_source(module)
    ]
    assert len(own) <= 1
    return own


def read_source(module: Any) -> str:
    with open(module.__file__, encoding="ascii") as file:
        return file.read()


def list_options(config: type) -> tuple[list[str], list[Item]]:
    """Return words for what has to be given, and the fields that take numbers."""
    fields = list(walk(config))
    needed = [item for item in fields if item.field.default is dataclasses.MISSING]
    needed = [item for item in needed if item.field.default_factory is dataclasses.MISSING]
    return ["x"] * len(needed), [item for item in fields if is_number(item.kind)]


def test_every_command_but_those_without_numbers_is_swept():
    without = {name for name in COMMANDS if not find_configs(name)}
    assert without == {"train"}  # whose options are a recipe's
    with_numbers = {
        name for name in COMMANDS for config in find_configs(name) if list_options(config)[1]
    }
    assert set(COMMANDS) - without - with_numbers <= {
        "combine-shards",
        "replay-step",
        "report",
        "completion",
        "doctor",
    }


def parse(config: type, words: list[str], item: Item, value: str, plain: Any) -> str:
    """Say what becomes of a number on a command line, or in a config that the parser has made."""
    try:
        if plain is None:
            parse_arguments(config, [*words, f"--{item.name.replace('_', '-')}", value])
        else:
            set_number(plain, item, value)
    except InputError as error:
        return "refused" if "\n" not in str(error) else "refused at length"
    return "taken"


def parse_plainly(config: type, words: list[str]) -> Any:
    """Return what a command makes of the least that has to be given; None, if it refuses that."""
    try:
        return parse_arguments(config, words)
    except InputError:
        return None


def test_a_number_for_any_command_is_taken_or_refused_in_one_line():
    """As with recipes, the parser sees all values for a command's first field of a type."""
    outcomes = set()
    for command, config in ((name, config) for name in COMMANDS for config in find_configs(name)):
        words, items = list_options(config)
        plain, kinds = parse_plainly(config, words), set()
        for item in items:
            option = f"--{item.name.replace('_', '-')}"
            is_parsed = item.kind not in kinds or item.kind not in (int, float)
            kinds.add(item.kind)
            for value in HOSTILE:
                try:
                    outcome = parse(config, words, item, value, None if is_parsed else plain)
                except Exception as error:
                    raise AssertionError(f"{command} {option} {value}") from error
                outcomes.add(outcome)
                never = outcome == "taken" and value in ("nan", "inf", str(10**23))
                assert not never, (command, option, value)
    assert outcomes == {"taken", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train", "demo", "--data.num-threads", "2147483648"],
        ["train", "demo", "--data.global-batch-size", "2147483647"],
        ["train", "demo", "--schedule.gamma", "-1"],
        ["train", "demo", "--schedule.milestones", "nan"],
    ],
    ids=lambda words: words[2],
)
def test_a_process_says_it_in_one_line(words, tmp_path):
    ended = run_child("-m", "fastssl", *words, "--output-dir", tmp_path / "run")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {words[2][2:].replace('-', '_')} (")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_number_on_the_command_line_is_taken_or_refused_in_one_line(recipe):
    """The parser treats fields of a type alike: all values go through it for the first of a type.

    A command line takes it 40 ms, so of the other fields only the upper end does.
    """
    outcomes, kinds = set(), set()
    for item in list_numbers(recipe):
        is_first = item.kind not in kinds or item.kind not in (int, float)
        kinds.add(item.kind)
        low, high = str(item.limits.low), str(item.limits.high)
        for value in (*HOSTILE, low, high):
            try:
                outcomes.add(attempt(recipe, item, value, is_first or value == high))
            except Exception as error:
                raise AssertionError(f"{recipe} {item.name} {value}") from error
    assert outcomes == {"taken", "refused"}
