"""Charts of figures over what was varied: lines named at their ends, published ones hollow."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from ...fields import Documented
from .canvas import GRID, INK, MUTED, PAPER, SERIES, finish, start, styled

Scale = Literal["log", "linear", "names"]

MAX_LINES = len(SERIES)
"""Lines of different colours in a chart."""
MIN_SPAN = 0.1
"""Least height of an axis of shares: what is 10 points apart never looks like a cliff."""
_MARKERS = "osDPvX"
_BOUND: dict[str, Any] = {
    "linestyle": "none",
    "marker": "^",
    "markersize": 7,
    "markerfacecolor": PAPER,
    "markeredgewidth": 1.2,
}
_LOG_FROM = 8.0
"""A plain number above this has an axis that is logarithmic from 1 on."""
_LOG_TICKS = (-1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)
_DASHES: tuple[tuple[int, tuple[int, ...]], ...] = ((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
_HEIGHT_IN = 3.0
_LABEL_PT, _LABEL_COLUMNS = 8.5, 24
_TICK_GAP = 0.11
"""Least distance of two ticks, in parts of the axis."""


@dataclass(frozen=True)
class Point(Documented):
    """A figure, or the mean of several."""

    x: float
    """What was varied; of names the number."""
    y: float
    """The figure."""
    low: float
    """The least of its repeats."""
    high: float
    """The greatest of them."""
    size: float = 1.0
    """The larger, the larger its mark, where the chart's points stand alone."""
    mark: Literal["dot", "bound", "none"] = "dot"
    """A bound is drawn as an arrow: the true figure may be anything above."""
    is_joined: bool = True
    """Whether the line runs through it."""


@dataclass(frozen=True)
class Line(Documented):
    """Points that belong together."""

    name: str
    """At its end."""
    points: tuple[Point, ...]
    """By x."""
    color: int | None
    """Its number; a published line has that of the one that was measured. None is what costs
    nothing, without a colour of its own."""
    is_published: bool = False
    """Drawn hollow and dashed."""


@dataclass(frozen=True)
class Chart(Documented):
    """What is drawn."""

    title: str
    """What it is of."""
    label: str
    """The same for those who do not see it; no two charts of a page have one."""
    x_label: str
    """What was varied, with its unit."""
    y_label: str
    """What was measured."""
    scale: Scale
    """Of x."""
    lines: tuple[Line, ...]
    """At most ``MAX_LINES`` colours."""
    names: tuple[str, ...] = ()
    """Of x, where it has names."""
    references: tuple[tuple[str, float], ...] = ()
    """What costs nothing, by name: level lines, dashed."""
    unit: Literal["share", "points", ""] = "share"
    """Of y: a share as per cent, differences of shares as points, or a plain number."""
    x_unit: Literal["count", "share"] = "count"
    """Of x."""
    ceiling: tuple[tuple[float, float], ...] = ()
    """Places (x, y) on the edge of what can be known, by x: above is the grey region."""
    has_legend: bool = False
    """Name lines below the chart, for they end in one place."""


def draw_lines(chart: Chart) -> str:
    """Draw lines over what was varied, as an SVG element."""
    with styled():
        ends = [] if chart.has_legend else _list_ends(chart, chart.lines)
        room = sum(_height_in(name) for name, *_ in ends)
        below = 0.1 * (len(chart.lines) + 2) if chart.has_legend else 0.0
        figure, axes = start(chart.title, max(_HEIGHT_IN, 0.95 + room) + below)
        for line in chart.lines:
            _draw_line(axes, line)
        _dress(axes, chart)
        _name_ends(figure, axes, ends)
        _explain(figure, axes, chart)
        return finish(figure, chart.label)


def draw_scatter(chart: Chart) -> str:
    """Draw points that stand alone, named below the chart, as an SVG element."""
    with styled():
        figure, axes = start(chart.title, _HEIGHT_IN + 0.3)
        smallest = min(point.size for line in chart.lines for point in line.points)
        for line in chart.lines:
            axes.scatter(
                [point.x for point in line.points],
                [point.y for point in line.points],
                [28 * point.size / smallest for point in line.points],
                color=_color(line),
                marker=_marker(line),
                edgecolor=PAPER,
                linewidth=0.6,
            )
        _dress(axes, chart)
        _name_ends(figure, axes, _list_ends(replace(chart, lines=()), chart.lines))
        handles = [
            Line2D(
                [],
                [],
                color=_color(line),
                linestyle="none",
                marker=_marker(line),
                markersize=5,
                label=line.name,
            )
            for line in chart.lines
        ]
        figure.legend(
            handles=handles, loc="outside lower left", ncols=3, handletextpad=0.2, columnspacing=1
        )
        return finish(figure, chart.label)


def spell_count(value: float) -> str:
    """Return a number as an axis has it: 100, 2k, 1.28M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.4g}"


def _color(line: Line) -> str:
    return MUTED if line.color is None else SERIES[line.color % len(SERIES)]


def _marker(line: Line) -> str:
    return "o" if line.color is None else _MARKERS[line.color % len(_MARKERS)]


def _draw_line(axes: Axes, line: Line) -> None:
    color = _color(line)
    x, y = [point.x for point in line.points], [point.y for point in line.points]
    joined = [point.y if point.is_joined else math.nan for point in line.points]
    spread = [[p.y - p.low for p in line.points], [p.high - p.y for p in line.points]]
    if any(map(any, spread)):
        axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=color, elinewidth=1, capsize=2.5)
    is_solid = not line.is_published and line.color is not None
    axes.plot(
        x,
        joined,
        color=color,
        label=line.name,
        linewidth=1.7 if is_solid else 1.1,
        linestyle="-" if is_solid else (0, (3, 2)),
        marker=_marker(line),
        markevery=[number for number, point in enumerate(line.points) if point.mark == "dot"],
        markersize=7
        if line.is_published
        else 5
        if is_solid
        else 3.5,  # a ring where both lie on one place
        markerfacecolor=PAPER if line.is_published else color,
        markeredgecolor=color if line.is_published else PAPER,
        markeredgewidth=1.2 if line.is_published else 0.6,
        zorder=2 if line.is_published else 3,
    )
    bounds = [(point.x, point.y) for point in line.points if point.mark == "bound"]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), **_BOUND, markeredgecolor=color, zorder=3)


def _dress(axes: Axes, chart: Chart) -> None:
    """Set axes, their units and the level lines."""
    for number, (name, value) in enumerate(chart.references):
        dashes = _DASHES[number % len(_DASHES)]
        axes.axhline(value, color=MUTED, linestyle=dashes, linewidth=1, zorder=1, label=name)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    marked = (point for line in chart.lines for point in line.points if point.mark != "none")
    xs = sorted({point.x for point in marked})
    if chart.scale == "names":
        axes.set_xticks(range(len(chart.names)), [name.replace("_", "\n") for name in chart.names])
        axes.set_xlim(-0.3, len(chart.names) - 0.7)
    else:
        if chart.scale == "log":
            axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        spell = _spell_share if chart.x_unit == "share" else spell_count
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: spell(value)))
        if chart.x_unit == "share" and chart.scale == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(6))
        else:
            axes.xaxis.set_major_locator(FixedLocator(_thin_out(axes, xs)))
    _scale_y(axes, chart)
    _shade(axes, chart)


def _shade(axes: Axes, chart: Chart) -> None:
    """Draw the grey region, as far as it lies in the chart."""
    if chart.ceiling:
        low, high = axes.get_ylim()
        x, y = zip(*chart.ceiling, strict=True)
        axes.fill_between(x, [min(value, high) for value in y], high, color=GRID, zorder=0, lw=0)
        axes.set_ylim(low, high)


def _scale_y(axes: Axes, chart: Chart) -> None:
    if chart.ceiling and max(p.y for line in chart.lines for p in line.points) > _LOG_FROM:
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.6)
        low, high = axes.get_ylim()
        axes.set_ylim(low, 1.3 * high)  # an arrow on the uppermost point has room
        axes.yaxis.set_major_locator(FixedLocator([t for t in _LOG_TICKS if low <= t <= high]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: spell_count(value)))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    low, high = axes.get_ylim()
    if chart.unit != "":
        middle, half = (low + high) / 2, max(high - low, MIN_SPAN) / 2
        low, high = middle - half, middle + half
    if chart.unit == "share":
        low, high = max(low, 0.0), min(high, 1.02)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if chart.unit == "share":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _spell_share(value)))
    elif chart.unit == "points":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}"))


def _spell_share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _thin_out(axes: Axes, xs: Sequence[float]) -> list[float]:
    """Return the ticks that have room, those at both ends first."""
    to_axes = axes.transData + axes.transAxes.inverted()
    places = {x: float(to_axes.transform((x, axes.get_ylim()[0]))[0]) for x in xs}
    kept: list[float] = []
    for x in [*xs[-1:], *xs]:
        if all(abs(places[x] - places[other]) >= _TICK_GAP for other in kept):
            kept.append(x)
    return sorted(kept)


def _list_ends(chart: Chart, lines: Sequence[Line]) -> list[tuple[str, float, float, str]]:
    """Return (name, x, y, colour) of what is named right of a chart, from below.

    Args:
        chart: whose lines and levels are named.
        lines: of the chart, whose last x is that of the levels.
    """
    measured = {line.color for line in chart.lines if not line.is_published}
    ends = [
        (line.name, line.points[-1].x, line.points[-1].y, _color(line))
        for line in chart.lines
        if not line.is_published or line.color not in measured
    ]
    last_x = max(point.x for line in lines for point in line.points)
    ends += [(name, last_x, value, MUTED) for name, value in chart.references]
    ends.sort(key=lambda end: end[2])
    return [(textwrap.fill(name, _LABEL_COLUMNS), x, y, color) for name, x, y, color in ends]


def _height_in(name: str) -> float:
    """Return the height of a label and the gap above it, in inches."""
    return ((1 + name.count("\n")) * 1.15 + 0.3) * _LABEL_PT / 72


def _name_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write every line's name right of the chart, as near to its end as there is room."""
    # The layout leaves about this much of the height to the axes.
    axes_in = figure.get_figheight() - 0.95
    heights = [_height_in(name) / axes_in for name, *_ in ends]
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((x, y))[1]) for _, x, y, _ in ends]
    for place, (name, x, y, color) in zip(_spread(wanted, heights), ends, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.06, place),
            textcoords="axes fraction",
            color=MUTED if color == MUTED else INK,
            fontsize=_LABEL_PT,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkB": 4}
            | {"relpos": (0, 0.5), "linestyle": ":"},
        )


def _spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Return places of labels that do not touch, in the order of those wanted, 0 .. 1."""
    places: list[float] = []
    floor = -0.12
    for place, height in zip(wanted, heights, strict=True):
        places.append(max(place, floor + height / 2))
        floor = places[-1] + height / 2
    ceiling = 1.0
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling - heights[number] / 2)
        ceiling = places[number] - heights[number] / 2
    return places


def _explain(figure: Figure, axes: Axes, chart: Chart) -> None:
    """Say below what is hollow, what an arrow and what the grey region is, where they are."""
    handles: list[Any] = axes.get_legend_handles_labels()[0] if chart.has_legend else []
    if any(line.is_published for line in chart.lines):
        dashes = (0, (3, 2))
        handles += [
            Line2D([], [], color=MUTED, linewidth=1.7, marker="o", ms=5, label="measured here"),
            Line2D(
                [], [], color=MUTED, linewidth=1.1, linestyle=dashes, marker="o", ms=5, mfc=PAPER
            ),
        ]
        handles[-1].set_label("published")
    if any(point.mark == "bound" for line in chart.lines for point in line.points):
        handles.append(Line2D([], [], **_BOUND, markeredgecolor=MUTED, label="this or more"))
    if chart.ceiling:
        handles.append(Patch(facecolor=GRID, label="beyond scratch"))
    if handles:
        long = max(len(str(handle.get_label())) for handle in handles) > _LABEL_COLUMNS
        columns = 1 if long else 2
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=2.2)
