"""Every recipe and every cell of a study by its name."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

from ..config import RunConfig
from ..errors import InputError, nearest
from . import (
    demo,
    goyal19,
    goyal19_cells,
    kolesnikov19,
    kolesnikov19_cells,
    newell20,
    newell20_downstream,
    noroozi16,
    quickstart,
    supervised,
)
from .cells import IMAGENET_1K, SYNTHETIC, Cell

RECIPES: dict[str, Callable[[], RunConfig[Any]]] = {
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
    "newell20_amdim_dense_smoke": newell20.amdim_dense_smoke,
    "newell20_amdim_smoke": newell20.amdim_smoke,
    "newell20_classification_smoke": newell20_downstream.classification_smoke,
    "newell20_cmc_dense_smoke": newell20.cmc_dense_smoke,
    "newell20_cmc_smoke": newell20.cmc_smoke,
    "newell20_depth_smoke": newell20_downstream.depth_smoke,
    "newell20_pose_smoke": newell20_downstream.pose_smoke,
    "newell20_rotation_dense_smoke": newell20.rotation_dense_smoke,
    "newell20_rotation_smoke": newell20.rotation_smoke,
    "newell20_segmentation_smoke": newell20_downstream.segmentation_smoke,
    "newell20_vae_dense_smoke": newell20.vae_dense_smoke,
    "newell20_vae_smoke": newell20.vae_smoke,
    "noroozi16_jigsaw": noroozi16.jigsaw,
    "noroozi16_jigsaw_smoke": noroozi16.jigsaw_smoke,
    "quickstart": quickstart.quickstart,
    "quickstart_smoke": quickstart.quickstart_smoke,
    "supervised": supervised.supervised,
    "supervised_smoke": supervised.supervised_smoke,
}
"""What a name builds, its docstring says the rest."""
_FITTED = {"quickstart": quickstart.fit_quickstart}
CELLS: dict[str, Cell] = {
    **kolesnikov19_cells.list_cells(),
    **goyal19_cells.list_cells(),
    **newell20.list_cells(),
    **newell20_downstream.list_cells(),
}
"""Every cell of a study's table, under names that follow from the cell."""


def recipe_names(has_cells: bool = True) -> list[str]:
    """Return the names of all recipes, sorted, and behind them the cells in their studies' order.

    Args:
        has_cells: with the cells of studies, which are many and named alike.
    """
    return [*sorted(RECIPES), *(CELLS if has_cells else ())]


def build_recipe(name: str) -> RunConfig[Any]:
    """Return the config of a recipe.

    Raises:
        InputError: for an unknown name; offers the recipes of a task by what they take, else the
            nearest name.
    """
    if name in CELLS:
        return CELLS[name].build()
    if name in RECIPES:
        return RECIPES[name]()
    tasks = task_names()
    if close := difflib.get_close_matches(name.replace("-", "_"), tasks, n=1, cutoff=0.8):
        raise InputError(f"recipe ('{name}') is not known; {_offer(close[0])}")
    from ..models import trunk_names  # brings torch along, which names need nowhere else

    if name in trunk_names():
        raise InputError(
            f"recipe ('{name}') is not known, it is a trunk: name a recipe, then --trunk {name}; "
            "fastssl train --list shows recipes"
        )
    # Hundreds of cells are no list to read: one that is nearly meant, or the other recipes.
    known = difflib.get_close_matches(name, CELLS, n=1, cutoff=0.9) or RECIPES
    raise InputError(
        f"recipe ('{name}') is not known{nearest(name, known)}; tasks: {', '.join(tasks)} "
        "(fastssl train --list TASK)"
    )


def is_fitted(name: str) -> bool:
    """Return whether a recipe's length follows from the data and the device."""
    return name in _FITTED


def fit_recipe(config: RunConfig[Any], num_samples: int, is_gpu: bool) -> RunConfig[Any]:
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
    families = [smoke for smoke in RECIPES if smoke.endswith("_smoke")]
    # A cell is named behind its family: goyal19_jigsaw_resnet50_p2000_yfcc100m.
    same = [smoke for smoke in families if f"{name}_".startswith(smoke.removesuffix("smoke"))]
    return [offer for offer in ("quickstart", *sorted(same, key=len)[-1:]) if offer != name]


@functools.cache
def task_names() -> tuple[str, ...]:
    """Return the tasks that recipes have, sorted."""
    return tuple(sorted({build().task.name for build in RECIPES.values()}))


_STUDIES = ("goyal19", "kolesnikov19", "noroozi16", "supervised")
_USUAL = (IMAGENET_1K, SYNTHETIC)
"""What most cells of a task are of."""
_LEARNS = 100
"""Steps from which on a small form shows that it learns."""


def _offer(task: str) -> str:
    """Name recipes of a task, from what a laptop does to what the study did."""
    named = {name: build() for name, build in RECIPES.items() if build().task.name == task}
    small = [name for name in named if name.endswith("_smoke") or name == "quickstart"]
    # Those that are long enough to learn, if there are.
    learning = [name for name in small if (named[name].max_steps or _LEARNS) >= _LEARNS] or small
    learning.sort(key=lambda name: not is_fitted(name))
    cells = [
        name
        for name, cell in CELLS.items()
        if f"_{task}_" in name and cell.data in _USUAL and cell.origin == "study"
    ]
    cells.sort(key=lambda name: (_USUAL.index(CELLS[name].data), CELLS[name].gigaflops))
    whole = [name for name in named if name not in small and name.partition("_")[0] in _STUDIES]
    return (
        f"recipes of the task {task}: on a CPU {' or '.join(learning[:2])}; the least of a study's "
        f"cells, for a GPU, {cells[0]}; as published {', '.join(whole or cells)}; fastssl train "
        f"--list {task} shows what each takes"
    )
