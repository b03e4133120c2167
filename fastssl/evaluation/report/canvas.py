"""The paper that charts are drawn on: inline SVG with the page's colours and fonts, light or dark.

Matplotlib draws with marker colours that are replaced by CSS variables afterwards. The figures are
as wide as a phone's page, so that their text is readable there.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
"""Colours that nothing else uses; CSS variables take their place."""
SERIES = ("#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a")
"""The same for what differs in a chart, in this order."""
WIDTH_IN = 4.7
"""Of a chart; its text is readable on a phone then."""
_TITLE_COLUMNS = 44
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--card)",
    **{color: f"var(--series-{i + 1})" for i, color in enumerate(SERIES)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are nobody's formulas
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}


@contextmanager
def styled() -> Iterator[None]:
    """Have matplotlib draw in the page's style for as long as the block lasts."""
    with matplotlib.rc_context(_STYLE):
        yield


def start(title: str, height_in: float) -> tuple[Figure, Axes]:
    """Begin a chart.

    Args:
        title: above it.
        height_in: in inches, for a width of ``WIDTH_IN``.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, _TITLE_COLUMNS))
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def finish(figure: Figure, label: str) -> str:
    """Return the figure as an SVG element that follows the page's theme.

    Args:
        figure: from ``start``.
        label: what it shows, for those who do not see it.
    """
    out = io.StringIO()
    # The salt makes the ids of clip paths depend on the chart: two charts share a page.
    with matplotlib.rc_context({"svg.hashsalt": label}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # These ids repeat from chart to chart and nothing refers to them.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    said = html.escape(label, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{said}"', 1)
