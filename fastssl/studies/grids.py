"""The studies' tables as grids of cells, for a report that says which are filled."""

from __future__ import annotations

from ..runs.facts import RANDOM, Grid
from .published import find_facts
from .registry import CELLS


def list_grids() -> list[Grid]:
    """Return the tables: Goyal et al. 2019's data sets, Kolesnikov et al. 2019's Table 1.

    Cells that are remembered of a study, or ours, are none of its tables.
    """
    return [_list_goyal19(), _list_kolesnikov19()]


def _list_goyal19() -> Grid:
    recipes = {}
    for name, cell in CELLS.items():
        facts = find_facts(name)
        if not name.startswith("goyal19_") or cell.is_variant or cell.origin != "study":
            continue
        assert facts is not None
        row = f"{facts.pretext} {facts.trunk}"
        if facts.difficulty:
            row += f", {facts.difficulty_name} {facts.difficulty:,}"
        recipes[row, "none" if facts.pretext == RANDOM else facts.data] = name
    return _make("Goyal et al. 2019", "pretrained on", recipes)


def _list_kolesnikov19() -> Grid:
    recipes = {}
    for name, cell in CELLS.items():
        facts = find_facts(name)
        if not name.startswith("kolesnikov19_") or cell.is_variant or "table1" not in cell.places:
            continue
        assert facts is not None
        column = f"{facts.pretext.replace('_', ' ')} x{facts.width}"
        recipes[facts.trunk, column] = name
    return _make("Kolesnikov et al. 2019, Table 1", "task, width", recipes)


def _make(title: str, corner: str, recipes: dict[tuple[str, str], str]) -> Grid:
    rows = dict.fromkeys(row for row, _ in recipes)
    columns = dict.fromkeys(column for _, column in recipes)
    return Grid(title, corner, tuple(rows), tuple(columns), recipes)
