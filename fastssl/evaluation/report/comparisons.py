"""The studies' comparisons: the gap of capacity over data, pretraining set by transfer set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from ...runs.result import rank_value
from .entries import (
    Entry,
    choose_rows,
    drop_doubtful,
    find_comparable,
    is_share,
    keep_last,
    name_metric,
    source_of,
    spell_kind,
    spell_value,
)
from .line_charts import MAX_LINES, Chart, Line, Point, draw_lines
from .picture_kinds import count_images, facts_of, is_trained, spell_task
from .pieces import Markup, cards, note, stacked, table, text

LARGE, SMALL = "ResNet-50", "AlexNet"
"""The two ends of Goyal et al. 2019's axis of capacity."""

# Task, family of data sets, difficulty, course.
_Kind = tuple[str, str, int, str]


def render_gap(
    ours: Sequence[Entry], published: Sequence[Entry], findings: Mapping[str, str]
) -> str:
    """Return what the large trunk gains over the small one, over data size; empty without two.

    Args:
        ours: what was measured here.
        published: what studies say.
        findings: what a study says of it, under ``capacity``.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in keep_last(choose_rows(ours)):
        if count_images(entry) is not None:
            groups.setdefault(_place(entry), []).append(entry)
    theirs = [entry for entry in choose_rows(published) if count_images(entry) is not None]
    charts = [chart for rows in groups.values() for chart in _draw_gap(rows, theirs)]
    if not charts:
        return ""
    finding = findings.get("capacity", "")
    words = note(finding) if finding else ""
    return f"<h3>Gap of capacity</h3>{words}{cards(charts)}"


def _draw_gap(ours: Sequence[Entry], published: Sequence[Entry]) -> list[tuple[str, str]]:
    first = ours[0]
    same = find_comparable(first, published)
    measured = {key: points for key, points in _subtract(ours).items() if len(points) > 1}
    keys = sorted(measured)[:MAX_LINES]
    if not keys:
        return []
    lines = [Line(_name(key, keys), measured[key], number) for number, key in enumerate(keys)]
    for source in dict.fromkeys(source_of(entry.result) for entry in same):
        gaps = _subtract([entry for entry in same if source_of(entry.result) == source])
        lines += [
            Line(_name(key, keys), gaps[key], number, is_published=True)
            for number, key in enumerate(keys)
            if key in gaps
        ]
    task, protocol, metric = first.kind
    title = f"{task} ({protocol}), {first.data}"
    unit = "points of " if is_share(metric) else ""
    chart = Chart(
        title,
        f"Gap of capacity: {title} {first.result.test_digest}",
        "images to pretrain on",
        f"{unit}{name_metric(metric)}",
        "log",
        tuple(lines),
        references=(("no gap", 0.0),),
        unit="points" if is_share(metric) else "",
    )
    return [(draw_lines(chart), f"{LARGE} less {SMALL}, each by its best layer.")]


def _subtract(entries: Sequence[Entry]) -> dict[_Kind, tuple[Point, ...]]:
    """Return the differences of the two trunks for each task and family of data sets."""
    found: dict[_Kind, dict[float, dict[str, list[float]]]] = {}
    for entry in entries:
        facts, x = facts_of(entry), count_images(entry)
        if facts.trunk in (LARGE, SMALL) and x is not None:
            key = (spell_task(entry), facts.family, facts.difficulty, facts.course)
            both = found.setdefault(key, {}).setdefault(x, {})
            both.setdefault(facts.trunk, []).append(entry.result.value)
    gaps = {}
    for key, by_x in found.items():
        values = {
            x: fmean(both[LARGE]) - fmean(both[SMALL])
            for x, both in sorted(by_x.items())
            if len(both) == 2
        }
        if values:
            gaps[key] = tuple(Point(x, gap, gap, gap) for x, gap in values.items())
    return gaps


def _name(key: _Kind, keys: Sequence[_Kind]) -> str:
    if [other[0] for other in keys].count(key[0]) == 1:
        return key[0]
    return ", ".join(str(part) for part in key if part)


def render_matrix(ours: Sequence[Entry], published: Sequence[Entry]) -> str:
    """Return a table of each trunk and task, pretraining set by transfer set.

    Args:
        ours: what was measured here.
        published: what studies say; it stands below ours.

    Returns:
        Tables with at least two sets on each side and two cells a column; empty if there is none.
    """
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in keep_last(choose_rows(ours)):
        if is_trained(entry) and facts_of(entry).data and entry.result.task != "low_shot":
            groups.setdefault(_line_of(entry), []).append(entry)
    theirs = choose_rows(published)
    tables = []
    for key, rows in groups.items():
        same = [e for e in theirs if is_trained(e) and _line_of(e) == key]
        cells = {(_column(e), facts_of(e).data) for e in rows}
        filled = Counter(column for column, _ in cells)
        # A column of one cell compares nothing.
        columns = [c for c in dict.fromkeys(map(_column, rows)) if filled[c] > 1]
        rows = [e for e in rows if _column(e) in columns]
        sets = sorted({(facts_of(e).num_images, facts_of(e).data) for e in rows})
        transfer_sets = {entry.data for entry in rows}
        if len(sets) > 1 and len(transfer_sets) > 1:
            title = f"{facts_of(rows[0]).trunk} x{facts_of(rows[0]).width}, {spell_task(rows[0])}"
            body = _tabulate([name for _, name in sets], columns, rows, same)
            tables.append(f"<h4>{text(title)}</h4>{body}")
    if not tables:
        return ""
    words = note(
        "Best layer of each trunk; the deeper the colour, the nearer to the best of its column. "
        "Below, in italics, what is published (?: remembered, not verified)."
    )
    return f"<h3>Pretraining set by transfer set</h3>{words}{''.join(tables)}"


def _line_of(entry: Entry) -> tuple[object, ...]:
    facts = facts_of(entry)
    return facts.pretext, facts.trunk, facts.width, facts.difficulty, facts.course


def _column(entry: Entry) -> tuple[str, ...]:
    task, protocol, metric = entry.kind
    return task, protocol, metric, entry.data, spell_kind(entry)


def _tabulate(
    sets: Sequence[str],
    columns: Sequence[tuple[str, ...]],
    ours: Sequence[Entry],
    published: Sequence[Entry],
) -> str:
    header = ["pretrained on"]
    for task, protocol, metric, data, settings in columns:
        words = ", ".join(part for part in (f"{task}, {protocol}", settings) if part)
        header.append(stacked(f"{data} {metric}", words))
    cells: dict[tuple[str, ...], list[float]] = {}
    for entry in ours:
        cells.setdefault((facts_of(entry).data, *_column(entry)), []).append(entry.result.value)
    rows = []
    for name in dict.fromkeys(sets):
        row = [name]
        for column in columns:
            means = [fmean(v) for key, v in cells.items() if key[1:] == column]
            shown = next(e for e in ours if _column(e) == column)
            best = max(means, key=lambda mean: rank_value(column[2], mean))
            known = [
                _spell_known(e)
                for e in find_comparable(shown, drop_doubtful(published))
                if facts_of(e).data == name
            ]
            row.append(_cell(column[2], cells.get((name, *column)), best, known))
        rows.append(row)
    return table(header, rows, num_words=1)


def _spell_known(entry: Entry) -> str:
    doubt = "?" if entry.result.details.get("is_remembered") else ""
    return spell_value(entry.result.metric, entry.result.value) + doubt


def _cell(
    metric: str, values: Sequence[float] | None, best: float, published: Sequence[str]
) -> Markup:
    if values is None:
        shown = ""
    else:
        value = fmean(values)
        # At most so deep that text on it stays readable in both themes.
        nearness = min(value, best) / max(value, best) if min(value, best) > 0 else 0.0
        depth = round(40 * nearness**3)
        shade = f"background: color-mix(in srgb, var(--series-1) {depth}%, transparent)"
        shown = f'<span class="cell" style="{shade}">{text(spell_value(metric, value))}</span>'
    known = " / ".join(dict.fromkeys(published))
    below = f'<br><small class="published">{text(known)}</small>' if known else ""
    return Markup(shown + below)


def _place(entry: Entry) -> tuple[str, ...]:
    found = entry.result
    return (*entry.kind, found.train_digest, found.test_digest, spell_kind(entry))
