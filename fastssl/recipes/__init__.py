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
    "goyal19_colorization": goyal19.colorization,
    "goyal19_colorization_alexnet": goyal19.colorization_alexnet,
    "goyal19_colorization_alexnet_smoke": goyal19.colorization_alexnet_smoke,
    "goyal19_colorization_smoke": goyal19.colorization_smoke,
    "goyal19_jigsaw": goyal19.jigsaw,
    "goyal19_jigsaw_alexnet": goyal19.jigsaw_alexnet,
    "goyal19_jigsaw_alexnet_smoke": goyal19.jigsaw_alexnet_smoke,
    "goyal19_jigsaw_smoke": goyal19.jigsaw_smoke,
    "goyal19_jigsaw_yfcc": goyal19.jigsaw_yfcc,
    "kolesnikov19_exemplar": kolesnikov19.exemplar,
    "kolesnikov19_exemplar_smoke": kolesnikov19.exemplar_smoke,
    "kolesnikov19_jigsaw": kolesnikov19.jigsaw,
    "kolesnikov19_jigsaw_smoke": kolesnikov19.jigsaw_smoke,
    "kolesnikov19_relative_location": kolesnikov19.relative_location,
    "kolesnikov19_relative_location_smoke": kolesnikov19.relative_location_smoke,
    "kolesnikov19_rotation": kolesnikov19.rotation,
    "kolesnikov19_rotation_smoke": kolesnikov19.rotation_smoke,
    "kolesnikov19_supervised": kolesnikov19.supervised,
    "kolesnikov19_supervised_smoke": kolesnikov19.supervised_smoke,
    "noroozi16_jigsaw": noroozi16.jigsaw,
    "noroozi16_jigsaw_smoke": noroozi16.jigsaw_smoke,
    "supervised": supervised.supervised,
    "supervised_smoke": supervised.supervised_smoke,
}
# Every cell of a study's table, under names that follow from the cell.
_CELLS: dict[str, tuple[Callable[[], RunConfig], str]] = kolesnikov19.list_cells()


def recipe_names(has_cells: bool = True) -> list[str]:
    """Return the names of all recipes, sorted.

    Args:
        has_cells: with the cells of studies, which are many and named alike.
    """
    return sorted([*_RECIPES, *_CELLS] if has_cells else _RECIPES)


def build_recipe(name: str) -> RunConfig:
    """Return the config of a recipe.

    Raises:
        InputError: for an unknown name; offers the nearest.
    """
    if name in _CELLS:
        return _CELLS[name][0]()
    if name not in _RECIPES:
        raise InputError(f"recipe ('{name}') is not known{nearest(name, recipe_names())}")
    return _RECIPES[name]()


def describe_recipes() -> str:
    """Return a table of all recipes: name, trunk, batch, epochs, and the first line of each."""
    rows = []
    for name in recipe_names():
        config = build_recipe(name)
        if name in _CELLS:
            summary = _CELLS[name][1]
        else:
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
