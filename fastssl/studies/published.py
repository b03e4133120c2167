"""Published figures as results, and what is known of a recipe by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config import flatten
from ..runs.facts import Facts, read_facts
from ..runs.result import Result
from . import goyal19_figures, newell20_figures
from .cells import DATA_SETS, PROTOCOLS, Cell, Published, count_steps
from .newell20_figures import list_linear
from .registry import CELLS, RECIPES, build_recipe

SCRATCH = "scratch"
"""In place of the recipe of a trunk that nothing pretrained."""
FINDINGS = {"goyal19": goyal19_figures.FINDINGS, "newell20": newell20_figures.FINDINGS}
"""What a study says of pictures whose numbers it does not print: study -> picture -> words."""
_FAMILIES = {"yfcc": "YFCC-100M", "imagenet": "ImageNet", "places": "Places205"}


def list_published() -> list[Result]:
    """Return every published figure, of cells and of no recipe, as a result marked published.

    Shares are 0 .. 1. Nobody has the digest of the data that a study used: the data set's title
    stands in its place. ``details`` holds ``protocol`` and ``meaning`` of ``PROTOCOLS``, ``what``
    and ``is_remembered``.
    """
    of_cells = [
        (name, figure)
        for name, cell in CELLS.items()
        if not cell.is_variant
        for figure in cell.published
    ]
    of_cells += [(SCRATCH, figure) for figure in list_linear("normal")]
    return [result for name, figure in of_cells for result in _to_results(name, figure)]


def find_facts(recipe: str) -> Facts | None:
    """Return what is known of a recipe, or None for a name that is none.

    Args:
        recipe: its name; a cell's data set is known too.
    """
    if recipe not in CELLS and recipe not in RECIPES:
        return None
    config = build_recipe(recipe)
    facts = read_facts(flatten(config))
    if facts is None or recipe not in CELLS:
        return facts and replace(facts, data="", family="", steps=count_steps(config))
    cell = CELLS[recipe]
    return replace(
        facts,
        data=cell.data.title,
        family=_name_family(cell),
        num_images=config.data.nominal_samples or cell.data.num_images,
        steps=count_steps(config),
        course=recipe.rpartition("_")[2] if cell.is_variant else "",
    )


def _to_results(recipe: str, figure: Published) -> Iterator[Result]:
    protocol = PROTOCOLS[figure.protocol]
    values = figure.layers or {"": figure.value}
    for layer, value in values.items():
        yield Result(
            protocol.task,
            protocol.rules,
            figure.metric,
            value / 100,
            layer=layer,
            train_digest=figure.data or protocol.data,
            test_digest=figure.data or protocol.data,
            recipe=recipe,
            details={
                "protocol": figure.protocol,
                "meaning": protocol.meaning,
                "what": figure.what,
                "is_remembered": figure.is_remembered,
            },
            is_published=True,
        )


def _name_family(cell: Cell) -> str:
    """Return what data sets that are parts of one another are called together."""
    name = next((name for name, data in DATA_SETS.items() if data is cell.data), "")
    titles = (title for start, title in _FAMILIES.items() if name.startswith(start))
    return next(titles, cell.data.title)
