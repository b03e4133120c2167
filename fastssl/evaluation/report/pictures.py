"""The studies' own pictures, each where results hold what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ...runs.facts import RANDOM
from ..label_curves import is_on_curve
from .comparisons import render_gap, render_matrix
from .entries import (
    CONTRADICTS,
    VARIED,
    Entry,
    choose_rows,
    drop_asides,
    drop_doubtful,
    evaluation_of,
    find_comparable,
    is_share,
    name_metric,
    source_of,
    spell_chosen,
    spell_kind,
    spell_value,
    spell_view,
)
from .line_charts import (
    MAX_LINES,
    Chart,
    Line,
    Point,
    draw_lines,
    draw_scatter,
    spell_count,
)
from .names import name_trunks
from .picture_kinds import PICTURES, Picture, facts_of, make_layers_picture
from .pieces import cards, fold, note, section, text

_MAX_CHARTS = 6
"""Of a picture; more of them fold away."""


@dataclass(frozen=True)
class _Panel:
    """The figures of a chart."""

    words: tuple[str, ...]
    """What they have in common."""
    ours: tuple[Entry, ...]
    """Measured here."""
    published: tuple[Entry, ...]
    """Of the same evaluation and data."""
    untrained: tuple[Entry, ...]
    """Random trunks, measured here."""
    left_out: tuple[Entry, ...] = ()
    """What cannot be drawn, though it belongs here."""


def render_pictures(entries: Sequence[Entry], findings: Mapping[str, str]) -> str:
    """Return the section of pictures; empty if there is nothing to draw.

    Args:
        entries: from ``prepare``, published ones among them.
        findings: what a study says of a picture, by the picture's name.
    """
    measured = [entry for entry in entries if not entry.result.is_published]
    # Points of curves over label counts have pictures of their own.
    ours = drop_asides([entry for entry in measured if not is_on_curve(entry.result)])
    published = [entry for entry in entries if entry.result.is_published]
    body = ""
    lonely: list[str] = []
    for picture in (*PICTURES, make_layers_picture(entries)):
        panels = list(_list_panels(picture, ours, published))
        charts = [chart for panel in panels for chart in _draw_panel(picture, panel)]
        if panels and not charts and picture.name != "labels":
            lonely.append(_spell_lonely(picture, panels))
        if charts:
            finding = findings.get(picture.name, "")
            body += f"<h3>{text(picture.title)}</h3>" + (note(finding) if finding else "")
            body += cards(charts[:_MAX_CHARTS])
            if rest := charts[_MAX_CHARTS:]:
                body += fold(f"{len(rest)} more", cards(rest))
        if picture.name == "data":
            body += render_gap(ours, published, findings)
        if picture.name == "difficulty":
            body += render_matrix(ours, published)
    if lonely:
        body += fold("Not drawn, for one point is no picture", "".join(map(note, lonely)))
    return section("Pictures", body) if body else ""


# --- From entries to panels -----------------------------------------------------------------------


def _list_panels(
    picture: Picture, ours: Sequence[Entry], published: Sequence[Entry]
) -> Iterator[_Panel]:
    """Yield the charts of a picture: figures of one evaluation on the same data."""
    groups: dict[tuple[Hashable, ...], list[Entry]] = {}
    lacking = []
    for entry in _choose(picture, ours):
        if picture.lacks(entry):
            lacking.append(entry)
        elif picture.x(entry) is not None:
            key = (*_place(picture, entry), picture.panel(entry), picture.apart(entry))
            groups.setdefault(key, []).append(entry)
    theirs = [] if picture.setting else published
    theirs = [e for e in _choose(picture, theirs) if picture.x(e) is not None]
    chosen = [] if picture.scale == "names" or picture.setting else choose_rows(ours)
    random = [entry for entry in chosen if _is_random(entry)]
    # Settings are told where charts differ in them alone.
    num_alike = Counter((*key[:5], *key[6:]) for key in groups)
    for key, rows in groups.items():
        *where, settings, common, apart = key
        # Of data by name: a published figure has no digest.
        same = [
            other
            for other in find_comparable(rows[0], theirs)
            if (picture.panel(other), picture.apart(other)) == (common, apart)
        ]
        is_told = num_alike[*where, common, apart] > 1
        words = (*picture.panel(rows[0]), *([str(settings)] if is_told else []))
        untrained = [e for e in random if _place(picture, e) == key[:6]]
        lost = [e for e in lacking if (*_place(picture, e), picture.panel(e)) == key[:7]]
        yield _Panel(words, tuple(rows), tuple(drop_doubtful(same)), tuple(untrained), tuple(lost))


def _place(picture: Picture, entry: Entry) -> tuple[str, ...]:
    """Return evaluation, data and settings, without the one that is varied."""
    found = entry.result
    settings = spell_kind(entry, (picture.setting,))
    return (*entry.kind, found.train_digest, found.test_digest, settings)


def _choose(picture: Picture, entries: Sequence[Entry]) -> list[Entry]:
    """Return the figures that count, of each trunk one layer and the largest settings.

    Where one of them is what is varied, all of its values do.
    """
    chosen = choose_rows(entries)
    if picture.scale == "names":
        kinds = {(*evaluation_of(e), spell_kind(e)) for e in chosen}
        return [e for e in entries if (*evaluation_of(e), spell_kind(e)) in kinds]
    if picture.setting:
        layers = {(*evaluation_of(e), spell_kind(e, VARIED)): e.result.layer for e in chosen}
        return [
            e
            for e in entries
            if layers.get((*evaluation_of(e), spell_kind(e, VARIED))) == e.result.layer
        ]
    return chosen


def _list_random(ours: Sequence[Entry], untrained: Sequence[Entry]) -> Iterator[tuple[str, float]]:
    """Yield what random trunks of a chart's kinds reach, by name."""
    for trunk in dict.fromkeys(entry.facts.trunk for entry in ours if entry.facts):
        values = [e.result.value for e in untrained if facts_of(e).trunk == trunk]
        if values:
            yield f"random {trunk}", fmean(values)


# --- From panels to charts ------------------------------------------------------------------------


def _draw_panel(picture: Picture, panel: _Panel) -> list[tuple[str, str]]:
    """Return charts, each with the words below it; none where there is but one point."""
    lines = _join(picture, panel.ours)
    if picture.has_lines:
        lines = {key: points for key, points in lines.items() if len(points) > 1}
    if sum(map(len, lines.values())) < 2:
        return []
    by_line = _by_line(picture, panel.ours)
    trained = [key for key in lines if not _is_random(by_line[key][0])] or [*lines]
    charts = []
    for words, keys in _split(trained, by_line):
        names = name_trunks({key: by_line[key] for key in keys}, picture.name != "data")
        keys = sorted(keys, key=lambda key: (_rank(by_line[key][0]), names[key]))
        part = replace(panel, words=(*words, *panel.words))
        for start in range(0, len(keys), MAX_LINES):
            chunk = {key: names[key] for key in keys[start : start + MAX_LINES]}
            charts.append(_draw_chunk(picture, part, chunk))
    return charts


def _split(
    keys: Sequence[Hashable], by_line: Mapping[Hashable, Sequence[Entry]]
) -> Iterator[tuple[tuple[str, ...], list[Hashable]]]:
    """Yield the lines of each chart, with what they have in common where they are too many."""
    if len(keys) <= MAX_LINES:
        yield (), [*keys]
        return
    groups: dict[tuple[str, ...], list[Hashable]] = {}
    for key in keys:
        facts = by_line[key][0].facts
        kind = () if facts is None else (facts.pretext.replace("_", " "), facts.trunk)
        groups.setdefault(kind, []).append(key)
    yield from groups.items()


def _rank(entry: Entry) -> tuple[Any, ...]:
    """Return an order of lines: by task and trunk, then by size."""
    facts = entry.facts
    if facts is None:
        return ("",)
    return facts.pretext, facts.trunk, facts.width, facts.num_images, facts.difficulty


def _is_random(entry: Entry) -> bool:
    return entry.facts is not None and entry.facts.pretext == RANDOM


def _spell_lonely(picture: Picture, panels: Sequence[_Panel]) -> str:
    """Say in a sentence what would have been a chart with a single point."""
    first = panels[0].ours[0]
    x = picture.x(first)
    assert x is not None
    where = first.result.layer if picture.scale == "names" else spell_count(x)
    where = f"{x:.1%}" if picture.x_is_share else where
    value = spell_value(first.result.metric, first.result.value)
    others = f", and {len(panels) - 1} more" if len(panels) > 1 else ""
    return f"{picture.title} ({_title(panels[0])}: {value} at {where}{others})."


def _draw_chunk(picture: Picture, panel: _Panel, names: Mapping[Hashable, str]) -> tuple[str, str]:
    """Return a chart of some lines, and the words below it."""
    ours = [entry for entry in panel.ours if picture.line(entry) in names]
    theirs = [e for e in panel.published if _find_line(picture, e, names) is not None]
    colors = {key: number for number, key in enumerate(names)}
    sources = dict.fromkeys(source_of(entry.result) for entry in theirs)
    of_sources = [[e for e in theirs if source_of(e.result) == source] for source in sources]
    lines = []
    for number, entries in enumerate([ours, *of_sources]):
        for own, points in _join(picture, entries).items():
            member = next(entry for entry in entries if picture.line(entry) == own)
            key = _find_line(picture, member, names)
            lines.append(Line(names[key], points, colors[key], is_published=bool(number)))
    trunks = {entry.facts.trunk for entry in ours if entry.facts}
    untrained = [e for e in panel.ours if _is_random(e) and facts_of(e).trunk in trunks]
    lines += [
        Line(f"random {facts_of(members[0]).trunk}", _join(picture, members)[key], None)
        for key, members in _by_line(picture, untrained).items()
        if key not in names
    ]
    layers: tuple[str, ...] = ()
    if picture.scale == "names":
        layers, lines = _number_layers(picture, [*ours, *theirs, *untrained], lines)
    title = _title(panel)
    first = ours[0]
    chart = Chart(
        title,
        f"{picture.title}: {title}; {'; '.join(names.values())}",
        picture.x_label(first),
        name_metric(first.result.metric),
        picture.scale,
        tuple(lines),
        layers,
        () if untrained else tuple(_list_random(ours, panel.untrained)),
        "share" if is_share(first.result.metric) else "",
        "share" if picture.x_is_share else "count",
    )
    drawn = draw_lines(chart) if picture.has_lines else draw_scatter(chart)
    return drawn, _explain(picture, panel, ours, theirs)


def _find_line(picture: Picture, entry: Entry, keys: Collection[Hashable]) -> Hashable | None:
    """Return an entry's line, or of a published one, which is of no run, that of its recipe."""
    own = picture.line(entry)
    if own in keys:
        return own
    of_recipe = (key for key in keys if isinstance(key, tuple) and key[0] == entry.result.recipe)
    return next(of_recipe, None) if entry.result.is_published else None


def _number_layers(
    picture: Picture, entries: Sequence[Entry], lines: Sequence[Line]
) -> tuple[tuple[str, ...], list[Line]]:
    """Return a chart's layers in order, and its lines with their numbers in place of x."""
    by_x = {picture.x(entry): entry.result.layer for entry in entries}
    order = sorted(x for x in by_x if x is not None)
    numbered = [
        replace(line, points=tuple(replace(p, x=float(order.index(p.x))) for p in line.points))
        for line in lines
    ]
    return tuple(by_x[x] for x in order), numbered


def _title(panel: _Panel) -> str:
    first = panel.ours[0]
    task, protocol, _ = first.kind
    said = ", ".join(word for word in panel.words if word)
    where = f"{task.replace('_', ' ')} ({protocol}), {first.data}"
    return f"{said}: {where}" if said else where


def _by_line(picture: Picture, entries: Sequence[Entry]) -> dict[Hashable, list[Entry]]:
    lines: dict[Hashable, list[Entry]] = {}
    for entry in entries:
        lines.setdefault(picture.line(entry), []).append(entry)
    return lines


def _join(picture: Picture, entries: Sequence[Entry]) -> dict[Hashable, tuple[Point, ...]]:
    """Return the points of each line, those of the same x as their mean."""
    joined = {}
    for key, members in _by_line(picture, entries).items():
        groups: dict[tuple[float, Hashable], list[Entry]] = {}
        for entry in members:
            x = picture.x(entry)
            assert x is not None
            # Where points stand alone only the same trunk is the same point.
            own = "" if picture.has_lines else entry.trunk
            groups.setdefault((x, own), []).append(entry)
        points = [make_point(x, of_x) for (x, _), of_x in groups.items()]
        joined[key] = tuple(sorted(points, key=lambda point: point.x))
    return joined


def make_point(x: float, entries: Sequence[Entry]) -> Point:
    """Return the mean of figures with the range of all their repeats.

    Args:
        x: what was varied.
        entries: figures of the same thing; of those of several steps the last count.
    """
    last = max(entry.result.step for entry in entries)
    results = [entry.result for entry in entries if entry.result.step == last]
    every = [value for result in results for value in (result.values or (result.value,))]
    facts = entries[0].facts
    size = 1.0 if facts is None else float(facts.width)
    mean = fmean(r.value for r in results)
    return Point(x, mean, min(mean, *every), max(mean, *every), size)


def _explain(
    picture: Picture, panel: _Panel, ours: Sequence[Entry], theirs: Sequence[Entry]
) -> str:
    """Return the words below a chart: how its points came about, and whose the others are."""
    said = [] if picture.has_lines else ["The larger a mark, the wider the trunk."]
    views = dict.fromkeys(spell_view(entry.result) for entry in ours)
    settings = (spell_chosen(ours[0], (picture.setting,)), " or ".join(filter(None, views)))
    if any(settings):
        said.append(f"Setting: {', '.join(filter(None, settings))}.")
    for entry in panel.left_out:
        said.append(f"Not drawn is {entry.name}: {picture.lacks(entry)}.")
    layers = {entry.result.layer for entry in ours}
    if picture.scale != "names" and len(layers) > 1:
        said.append("Best layer of each trunk.")
    elif picture.scale != "names" and "" not in layers:
        said.append(f"Layer {layers.pop()}.")
    if any(len(entry.result.values) > 1 for entry in ours) or _has_repeats(picture, ours):
        said.append("Points are means, bars the least and greatest of repeats.")
    splits = dict.fromkeys(entry.result.split for entry in ours)
    if len(splits) > 1 and picture.setting != "label_share":  # whose share they name
        said.append(f"Splits differ: {'; '.join(splits)}.")
    if any(CONTRADICTS in entry.marks for entry in ours):
        said.append("Some of these figures contradict each other.")
    if theirs:
        said.append(f"Published: {_spell_sources(theirs)}.")
    return " ".join(said)


def _spell_sources(published: Sequence[Entry]) -> str:
    """Say by whom figures were measured, and on what."""
    sources: dict[str, dict[str, None]] = {}
    for entry in published:
        meaning, what, doubt = source_of(entry.result)
        said = ", ".join(part for part in (what, doubt) if part)
        sources.setdefault(meaning, {}).setdefault(said)
    return "; ".join(
        f"{meaning} ({' / '.join(filter(None, whats))})" if any(whats) else meaning
        for meaning, whats in sources.items()
    )


def _has_repeats(picture: Picture, entries: Sequence[Entry]) -> bool:
    keys = [(picture.line(entry), picture.x(entry)) for entry in entries]
    return len(set(keys)) < len(keys)
