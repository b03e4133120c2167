"""Which cells of a study's table are filled: ours, what is published, and what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ...runs.facts import Grid
from .entries import (
    Entry,
    choose_rows,
    drop_asides,
    drop_doubtful,
    find_comparable,
    keep_last,
    name_metric,
    spell_kind,
    spell_value,
)
from .pieces import Markup, fold, note, section, table, text


def render_grids(grids: Sequence[Grid], entries: Sequence[Entry]) -> str:
    """Return the studies' tables of which a cell is filled, one for each evaluation, folded.

    Args:
        grids: of the studies.
        entries: from ``prepare``, published ones among them.
    """
    measured = [entry for entry in entries if not entry.result.is_published]
    ours = keep_last(choose_rows(drop_asides(measured)))
    theirs = choose_rows([entry for entry in entries if entry.result.is_published])
    parts = []
    for grid in grids:
        recipes = {*grid.recipes.values()}
        filled = [entry for entry in ours if entry.result.recipe in recipes]
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in filled:
            groups.setdefault((*entry.kind, entry.data, spell_kind(entry)), []).append(entry)
        for place, rows in groups.items():
            task, protocol, metric, data, settings = place
            mine = _by_recipe(rows)
            known = _by_recipe(drop_doubtful(find_comparable(rows[0], theirs)))
            what = f"{task.replace('_', ' ')} ({protocol}), {name_metric(metric)} on {data}"
            said = ", ".join(part for part in (what, settings) if part)
            title = f"{grid.title}: {said}; {len(mine)} of {len(grid.recipes)} cells filled"
            parts.append(fold(title, _draw(grid, mine, known)))
    if not parts:
        return ""
    words = note(
        "Ours in per cent, below in italics what is published (?: remembered, not verified); a dot "
        "is an open cell of the study."
    )
    return section("Tables of the studies", words + "".join(parts))


def _by_recipe(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.result.recipe, []).append(entry)
    return found


def _draw(
    grid: Grid, mine: Mapping[str, Sequence[Entry]], known: Mapping[str, Sequence[Entry]]
) -> str:
    lines = []
    for row in grid.rows:
        recipes = [grid.recipes.get((row, column)) for column in grid.columns]
        cells = [r and _cell(mine.get(r, ()), known.get(r, ())) for r in recipes]
        lines.append([row, *(cell or "" for cell in cells)])
    return f'<div class="dense">{table([grid.corner, *grid.columns], lines)}</div>'


def _cell(mine: Sequence[Entry], known: Sequence[Entry]) -> Markup:
    own = ""
    if mine:
        metric, values = mine[0].result.metric, [entry.result.value for entry in mine]
        own = f"<b>{text(spell_value(metric, fmean(values)).removesuffix(' %'))}</b>"
    said = " / ".join(dict.fromkeys(_spell(entry) for entry in known))
    published = f'<small class="published">{text(said)}</small>' if said else ""
    return Markup("<br>".join(part for part in (own, published) if part) or "\u00b7")


def _spell(entry: Entry) -> str:
    doubt = "?" if entry.result.details.get("is_remembered") else ""
    return spell_value(entry.result.metric, entry.result.value).removesuffix(" %") + doubt
