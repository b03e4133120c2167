"""Recipes: functions that return the config of a run; the command line changes fields of it.

A recipe's docstring holds the command, the hardware, the cost and the expected result. Each has a
``<name>_smoke`` form that runs on a CPU in seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from ..config import RunConfig
from ..errors import InputError, nearest
from . import demo, goyal19, goyal19_cells, kolesnikov19, noroozi16, quickstart, supervised
from .cells import Cell

__all__ = [
    "build_recipe",
    "describe_recipes",
    "fit_recipe",
    "is_fitted",
    "list_smaller",
    "recipe_names",
]

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
    "quickstart": quickstart.quickstart,
    "quickstart_smoke": quickstart.quickstart_smoke,
    "supervised": supervised.supervised,
    "supervised_smoke": supervised.supervised_smoke,
}
_FITTED = {"quickstart": quickstart.fit_quickstart}
# Every cell of a study's table, under names that follow from the cell.
_CELLS: dict[str, Cell] = {**kolesnikov19.list_cells(), **goyal19_cells.list_cells()}


def recipe_names(has_cells: bool = True) -> list[str]:
    """Return the names of all recipes, sorted, and behind them the cells in their studies' order.

    Args:
        has_cells: with the cells of studies, which are many and named alike.
    """
    return [*sorted(_RECIPES), *(_CELLS if has_cells else ())]


def build_recipe(name: str) -> RunConfig:
    """Return the config of a recipe.

    Raises:
        InputError: for an unknown name; offers the nearest.
    """
    if name in _CELLS:
        return _CELLS[name].build()
    if name not in _RECIPES:
        # Hundreds of cells are no list to read: one that is nearly meant, or the other recipes.
        known = difflib.get_close_matches(name, _CELLS, n=1, cutoff=0.9) or _RECIPES
        raise InputError(f"recipe ('{name}') is not known{nearest(name, known)}")
    return _RECIPES[name]()


def is_fitted(name: str) -> bool:
    """Return whether a recipe's length follows from the data and the device."""
    return name in _FITTED


def fit_recipe(config: RunConfig, num_samples: int, is_gpu: bool) -> RunConfig:
    """Fit a recipe to the data and the device.

    Args:
        config: of a recipe for which ``is_fitted`` holds.
        num_samples: samples to be used.
        is_gpu: whether it trains on one.
    """
    return _FITTED[config.recipe](config, num_samples, is_gpu)


def list_smaller(name: str) -> list[str]:
    """Return recipes for a first run, and for the path of another one in a few steps.

    Args:
        name: of a recipe that takes long.
    """
    families = [smoke for smoke in _RECIPES if smoke.endswith("_smoke")]
    # A cell is named behind its family: goyal19_jigsaw_resnet50_p2000_yfcc100m.
    same = [smoke for smoke in families if f"{name}_".startswith(smoke.removesuffix("smoke"))]
    return ["quickstart", *sorted(same, key=len)[-1:]]


def describe_recipes(words: Sequence[str] = ()) -> str:
    """Return a table of recipes: name, trunk, batch, epochs, cost, and what each is.

    Args:
        words: takes the recipes that have each of these in their name, at the beginning of a part
            between underscores, a number whole; none takes all.

    Raises:
        InputError: if there is none.
    """
    names = [name for name in recipe_names() if all(_has_word(name, word) for word in words)]
    if not names:
        raise InputError(
            f"--list ({' '.join(words)}) finds no recipe with these words in its name; "
            "--list alone shows all"
        )
    table = [("recipe", "trunk", "batch", "epochs", "cost", "what it is")]
    table += [(name, *_describe(name)) for name in names]
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]])
        for row in table
    )


def _has_word(name: str, word: str) -> bool:
    # Of p100 and k2 nobody means p10000 and k20.
    whole = r"(?!\d)" if word[-1:].isdigit() else ""
    return re.search(rf"(?:^|_){re.escape(word)}{whole}", name, re.IGNORECASE) is not None


def _describe(name: str) -> tuple[str, str, str, str, str]:
    config = build_recipe(name)
    if name in _CELLS:
        cost, summary = _CELLS[name].describe_cost(config), _CELLS[name].summarize()
    else:
        cost, summary = "-", (_RECIPES[name].__doc__ or "").splitlines()[0]
    batch, epochs = config.data.global_batch_size, config.schedule.epochs
    return f"{config.trunk} x{config.width}", str(batch), f"{epochs:g}", cost, summary
