"""Recipes: functions that return the config of a run; the command line changes fields of it.

A recipe's docstring holds the command, the hardware, the cost and the expected result. Each has a
``<name>_smoke`` form that runs on a CPU in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from ..command import nearest
from ..config import RunConfig
from ..errors import InputError
from . import demo, goyal19, kolesnikov19, noroozi16, supervised

__all__ = ["build_recipe", "describe_recipes", "recipe_names"]

_RECIPES: dict[str, Callable[[], RunConfig]] = {
    "demo": demo.demo,
    "demo_smoke": demo.demo_smoke,
    "goyal19_jigsaw": goyal19.jigsaw,
    "goyal19_jigsaw_alexnet": goyal19.jigsaw_alexnet,
    "goyal19_jigsaw_alexnet_smoke": goyal19.jigsaw_alexnet_smoke,
    "goyal19_jigsaw_smoke": goyal19.jigsaw_smoke,
    "goyal19_jigsaw_yfcc": goyal19.jigsaw_yfcc,
    "kolesnikov19_jigsaw": kolesnikov19.jigsaw,
    "kolesnikov19_jigsaw_smoke": kolesnikov19.jigsaw_smoke,
    "noroozi16_jigsaw": noroozi16.jigsaw,
    "noroozi16_jigsaw_smoke": noroozi16.jigsaw_smoke,
    "supervised": supervised.supervised,
    "supervised_smoke": supervised.supervised_smoke,
}


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(_RECIPES)


def build_recipe(name: str) -> RunConfig:
    """Return the config of a recipe.

    Raises:
        InputError: for an unknown name; offers the nearest.
    """
    if name not in _RECIPES:
        raise InputError(f"recipe ('{name}') is not known{nearest(name, _RECIPES)}")
    return _RECIPES[name]()


def describe_recipes() -> str:
    """Return a table of all recipes: name, trunk, batch, epochs, and the first line of each."""
    rows = []
    for name in recipe_names():
        config = _RECIPES[name]()
        summary = (_RECIPES[name].__doc__ or "").splitlines()[0]
        rows.append(
            (
                name,
                f"{config.trunk} x{config.width}",
                str(config.data.global_batch_size),
                f"{config.schedule.epochs:g}",
                summary,
            )
        )
    header = ("recipe", "trunk", "batch", "epochs", "what it is")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]])
        for row in (header, *rows)
    )
