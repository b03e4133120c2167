"""Hostile numbers on the command line, a process each; the suite tries all of them in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.commands.test_hostile_numbers import HOSTILE, RECIPES, list_numbers

from .case import Case
from .runs import Words, make_master


def give(recipe: str, option: str, value: str) -> Callable[[Path], Words]:
    """Return a command line with one such number."""

    def prepare(folder: Path) -> Words:
        places = ("--data.path", make_master() / "data", "--output-dir", folder / "run")
        # Whoever is not refused has nothing to do; a later one of an option prevails.
        words = ("train", recipe, *places, "--max-steps", "0", "--data.max-samples", "1")
        return (*words, option, value) if option not in words else (*words[:6], option, value)

    return prepare


def list_cases() -> list[Case]:
    """List every tenth of the numbers, so that all values and most options are met."""
    found = [
        Case(f"{recipe} {option} {value}", give(recipe, option, value), None)
        for recipe in RECIPES
        for item in list_numbers(recipe)
        for option in [f"--{item.name.replace('_', '-')}"]
        for value in HOSTILE
    ]
    return found[::7]
