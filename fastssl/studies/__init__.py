"""Recipes: functions that return the config of a run; the command line changes fields of it.

A recipe's docstring holds the command, the hardware, the cost and the expected result. Each has a
``<name>_smoke`` form that runs on a CPU in seconds.
"""

from __future__ import annotations

from .listing import describe_recipes
from .registry import (
    build_recipe,
    fit_recipe,
    is_fitted,
    list_smaller,
    recipe_names,
    task_names,
)

__all__ = [
    "build_recipe",
    "describe_recipes",
    "fit_recipe",
    "is_fitted",
    "list_smaller",
    "recipe_names",
    "task_names",
]
