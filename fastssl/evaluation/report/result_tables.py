"""Results as tables: the rows that say most, all of them and every class folded away."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence

from ...counts import spell_number
from ...runs.result import rank_value
from ..label_curves import is_on_curve
from .entries import (
    OTHER_TEST,
    OTHER_TRAIN,
    Entry,
    choose_layers,
    choose_rows,
    describe_source,
    drop_doubtful,
    has_own_view,
    is_share,
    name_metric,
    short_digest,
    spell_chosen,
    spell_kind,
    spell_odd_view,
    spell_settings,
    spell_value,
    spell_view,
)
from .pieces import Markup, fold, note, section, stacked, table, text

_MAX_TRUNKS = 8
"""Columns of a table of classes."""
_MAX_OTHERS = 3
"""Published figures on other data than a row's own."""


def render_results(entries: Sequence[Entry]) -> str:
    """Return the section of tables.

    Args:
        entries: from ``prepare``, published ones among them.
    """
    ours = [entry for entry in entries if not entry.result.is_published]
    published = [entry for entry in entries if entry.result.is_published]
    # What lies on a curve over label counts stands with its curve, and here folded away.
    plain = [entry for entry in ours if not is_on_curve(entry.result)]
    rows = choose_rows(plain)
    body = _tables(rows, published, is_best=True) + _sources(rows, published)
    if len(rows) < len(plain):
        body += note(
            "Of each trunk the best layer (by Kolesnikov et al. 2019's rules the pre-logits) and "
            "the largest k or share of labels."
        )
    says_all = all(spell_chosen(row) == spell_settings(row.result.settings) for row in rows)
    if len(rows) < len(ours) or not says_all:
        body += fold(f"All {spell_number(len(ours), 'figure')}", _tables(ours, published))
    body += _classes(ours)
    return section("Results", body)


def describe_trunk(entry: Entry) -> str:
    """Say in a line what pretrained a trunk, as far as anybody knows."""
    facts, step = entry.facts, entry.result.step
    if facts is None:
        return f"step {step:,}" if step else ""
    said = [f"{facts.trunk} x{facts.width}", facts.pretext.replace("_", " ")]
    if facts.difficulty:
        said.append(f"{facts.difficulty_name} = {facts.difficulty:,}")
    if facts.data:
        said.append(facts.data)
    if facts.course:
        said.append(facts.course)
    if step:
        # A run may be longer than its recipe.
        said.append(f"step {step:,}" + (f" of {facts.steps:,}" if facts.steps >= step else ""))
    return ", ".join(said)


def find_published(entry: Entry, published: Sequence[Entry], is_best: bool = False) -> list[Entry]:
    """Return the published figures of an entry's own recipe, evaluation, metric and layer.

    Args:
        entry: a figure that was measured.
        published: all that are known.
        is_best: take those of the best layer too, of which the layer is not said.

    Returns:
        Those on the same data if there are some; those that are only remembered where nothing else
        is known. None for a view of another size than the protocol's.
    """
    if not has_own_view(entry.result):
        return []
    same = [
        other
        for other in published
        if other.result.recipe == entry.result.recipe and other.kind == entry.kind
    ]
    on_data = [other for other in same if other.data == entry.data] or same
    found = [
        other
        for other in (choose_layers(on_data) if is_best else on_data)
        if other.result.layer == entry.result.layer or is_best or not entry.result.layer
    ]
    return drop_doubtful(found)


def _tables(entries: Sequence[Entry], published: Sequence[Entry], is_best: bool = False) -> str:
    """Return a table for each evaluation on the same data, of pictures as large."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in sorted(
        entries, key=lambda e: (*e.kind, e.data, spell_odd_view(e.result), -_rank(e))
    ):
        found = entry.result
        place = (*entry.kind, found.train_digest, found.test_digest, spell_odd_view(found))
        groups.setdefault(place, []).append(entry)
    return "".join(_table(rows, published, is_best) for rows in groups.values())


def _rank(entry: Entry) -> float:
    return rank_value(entry.result.metric, entry.result.value)


def _table(entries: Sequence[Entry], published: Sequence[Entry], is_best: bool) -> str:
    first = entries[0]
    task, protocol, metric = first.kind
    splits = {entry.result.split for entry in entries}
    cells = [_cells(entry, find_published(entry, published, is_best), is_best) for entry in entries]
    common = {"split": splits} | {n: {row[n] for row in cells} for n in ("view", "setting")}
    told = {name: "" for name, values in common.items() if len(values) == 1}
    rows = [row | told for row in cells]
    # What no row has is no column.
    header = [name for name in rows[0] if any(row[name] for row in rows)]
    group_marks = [mark for mark in first.marks if mark in (OTHER_TEST, OTHER_TRAIN)]
    marks = "".join(f' <span class="mark">{text(mark)}</span>' for mark in group_marks)
    title = f"{task.replace('_', ' ')}, {protocol}: {name_metric(metric)} on {first.data}"
    title = ", ".join(filter(None, (title, spell_odd_view(first.result))))
    body = table(header, [[row[name] for name in header] for row in rows], num_words=len(header))
    return f"<h3>{text(title)}{marks}</h3>{note(_describe_data(first, common))}{body}"


def _cells(entry: Entry, known: Sequence[Entry], is_best: bool) -> dict[str, str]:
    found = entry.result
    metric = found.metric
    marks = [mark for mark in entry.marks if mark not in (OTHER_TEST, OTHER_TRAIN)]
    return {
        "trunk": stacked(entry.name, describe_trunk(entry), marks),
        "layer": found.layer,
        "view": spell_view(found).removeprefix("view "),
        "setting": spell_chosen(entry) if is_best else spell_settings(found.settings),
        "split": found.split,
        metric: stacked(
            spell_value(metric, found.value),
            _describe_repeats(metric, entry),
            kind="whole",
        ),
        "published": _join_published(entry, known),
    }


def _describe_repeats(metric: str, entry: Entry) -> str:
    values, details = entry.result.values, entry.result.details
    told = {"top-5": ("top5", details.get("top5")), "chance": (metric, details.get("chance"))}
    also = ", ".join(
        f"{name} {spell_value(of, value)}"
        for name, (of, value) in told.items()
        if isinstance(value, float)
    )
    if len(values) < 2:
        return also
    low, high = (spell_value(metric, value) for value in (min(values), max(values)))
    deviation = statistics.pstdev(values) * (100 if is_share(metric) else 1)
    spread = f"{low.removesuffix(' %')} to {high}, deviation {deviation:.2g}"
    return ", ".join(filter(None, (spread, spell_number(len(values), "repeat"), also)))


def _describe_data(entry: Entry, common: Mapping[str, Collection[str]]) -> str:
    """Say on which data, by digest, and what all rows have in common."""
    found = entry.result
    digests = {"tested on": found.test_digest, "trained on": found.train_digest}
    if found.test_digest == found.train_digest:
        digests = {"data": found.test_digest}
    said = [f"{role} {short_digest(digest)}" for role, digest in digests.items() if digest]
    for name, values in common.items():
        said += [f"{name}: {value}" for value in values if value and len(values) == 1]
    return "; ".join(said)


def _join_published(entry: Entry, known: Sequence[Entry]) -> Markup:
    """Return the published figures of a row; of many on other data than its own the range."""
    others = [other for other in known if other.data != entry.data]
    if len(others) <= _MAX_OTHERS:
        return Markup("<br>".join(_spell_published(entry, other) for other in known))
    values = [other.result.value for other in others]
    metric, names = entry.result.metric, ", ".join(other.data for other in others)
    low, high = (spell_value(metric, value) for value in (min(values), max(values)))
    said = f"{low.removesuffix(' %')} to {high} on {len(others)} other sets"
    return Markup(f'<span class="published" title="{text(names)}">{text(said)}</span>')


def _spell_published(entry: Entry, other: Entry) -> str:
    found = other.result
    value = spell_value(found.metric, found.value)
    place = "" if other.data == entry.data else f" on {other.data}"
    layer = f", {found.layer}" if found.layer and found.layer != entry.result.layer else ""
    doubt = ", remembered" if found.details.get("is_remembered") else ""
    said = f"{value}{place}{layer}{doubt}"
    # Two figures of the same weights differ by whoever measured them.
    whose = str(found.details.get("protocol") or "").partition("-")[0]
    words = "; ".join(filter(None, (whose, str(found.details.get("what") or ""))))
    small = f" <small>{text(words)}</small>" if words else ""
    title = text(describe_source(found))
    return f'<span class="published" title="{title}">{text(said)}</span>{small}'


def _sources(entries: Sequence[Entry], published: Sequence[Entry]) -> str:
    """Return what the published figures beside these were measured by."""
    meanings = [
        f"{other.result.details.get('protocol')}: {other.result.details.get('meaning')}"
        for entry in entries
        for other in find_published(entry, published, is_best=True)
    ]
    if not meanings:
        return ""
    return note(
        "Published figures, in italics, are of the same recipe, evaluation and metric; none was "
        "measured here. Whence: " + ". ".join(dict.fromkeys(meanings)) + ". Those that are "
        "remembered nobody has verified."
    )


def _classes(entries: Sequence[Entry]) -> str:
    """Return folded tables of classes, one for each evaluation: a row a class, a column a trunk."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in choose_rows(entries):
        if entry.result.per_class:
            groups.setdefault((*entry.kind, entry.data, spell_kind(entry)), []).append(entry)
    tables = ""
    for (task, protocol, metric, data, words), rows in sorted(groups.items()):
        title = f"{task.replace('_', ' ')}, {protocol}: {name_metric(metric)} on {data}"
        tables += f"<h4>{text(', '.join(filter(None, (title, words))))}</h4>"
        for start in range(0, len(rows), _MAX_TRUNKS):
            tables += _table_of_classes(metric, rows[start : start + _MAX_TRUNKS])
    return fold("Every class", tables) if tables else ""


def _table_of_classes(metric: str, entries: Sequence[Entry]) -> str:
    names = list(dict.fromkeys(name for entry in entries for name in entry.result.per_class))
    rows: list[list[str]] = []
    for name in sorted(names):
        values = [entry.result.per_class.get(name) for entry in entries]
        rows.append([name, *("" if v is None else spell_value(metric, v) for v in values)])
    header = [f"{entry.name} {entry.result.layer}".strip() for entry in entries]
    return table(["class", *header], rows)
