"""Charts of the demo's page: curves of runs, accuracies, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.ticker import MaxNLocator, PercentFormatter

from .canvas import GRID, INK, MUTED, PAPER, SERIES, finish, start, styled

Curve = tuple[Sequence[float], Sequence[float]]

# Names of more lines would lie on them.
_MOST_INSIDE = 4
_ROW_IN = 0.17
_REPEATED = ("-", "--", "-.", ":")
_PRETRAINED, _RANDOM = SERIES[0], SERIES[1]


def draw_curves(
    title: str,
    curves: Mapping[str, Curve],
    references: Mapping[str, Curve],
    is_share: bool = False,
) -> str:
    """Draw a number over the steps, a line a run.

    Args:
        title: what the number is.
        curves: (steps, values) by the run's name, 24 at most of different looks.
        references: what costs nothing, such as a guess, drawn as dashed lines, by name.
        is_share: show 0 .. 1 as per cent.

    Returns:
        An SVG element.
    """
    with styled():
        num_below = len(curves) + len(references) if len(curves) > _MOST_INSIDE else 0
        figure, axes = start(title, 2.5 + _ROW_IN * ((num_below + 1) // 2))
        for number, (name, (steps, values)) in enumerate(curves.items()):
            repeat, place = divmod(number, len(SERIES))
            color, line = SERIES[place], _REPEATED[repeat % len(_REPEATED)]
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, line, color=color, linewidth=1.6, label=name, marker=marker)
        for number, (name, (steps, values)) in enumerate(references.items()):
            dashes = (0, (4, 3) if number == 0 else (1, 2))
            if len(set(values)) == 1:  # also of a single line
                axes.axhline(values[0], color=MUTED, linestyle=dashes, linewidth=1, label=name)
            else:
                axes.plot(steps, values, color=MUTED, linestyle=dashes, linewidth=1, label=name)
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
            axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if num_below:
            figure.legend(loc="outside lower left", ncols=2, handlelength=1.4)
        elif len(curves) > 1 or references:
            axes.legend(loc="best", handlelength=1.4)
        return finish(figure, title)


def draw_comparison(
    title: str,
    pretrained: Sequence[float],
    random: Sequence[float],
    chance: float,
    height_in: float = 1.75,
) -> str:
    """Draw two trunks' accuracies: a dot a seed, a bar at the mean, chance as a dashed line.

    Args:
        title: the measure.
        pretrained: accuracy of each seed, 0 .. 1.
        random: the same of the trunk before training.
        chance: what guessing reaches.
        height_in: height in inches, for a width of 4.7.

    Returns:
        An SVG element.
    """
    with styled():
        figure, axes = start(title, height_in)
        for row, (values, color) in enumerate(((random, _RANDOM), (pretrained, _PRETRAINED))):
            axes.plot([fmean(values)] * 2, [row - 0.28, row + 0.28], color=color, linewidth=3)
            axes.scatter(values, [row] * len(values), s=42, color=color, edgecolor=PAPER, zorder=3)
        axes.axvline(chance, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(
            "chance",
            (chance, -0.56),
            (4, 0),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.5,
        )
        axes.set_yticks([0, 1], ["random", "pretrained"])
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_ylim(-0.6, 1.6)
        highest = max(*pretrained, *random, chance)
        axes.set_xlim(0, min(1.0, 1.15 * highest) if highest else 1.0)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return finish(figure, title)


def classes_height_in(num_classes: int) -> float:
    """Return the height of ``draw_classes`` in inches."""
    return 0.9 + 0.24 * num_classes


def draw_classes(title: str, per_class: Mapping[str, tuple[float, float]]) -> str:
    """Draw each class as a line from the random trunk's accuracy to the pretrained one's.

    Args:
        title: the measure.
        per_class: (pretrained, random) by class name, 0 .. 1; drawn in this order from the top.

    Returns:
        An SVG element.
    """
    names = list(per_class)[::-1]
    with styled():
        figure, axes = start(title, classes_height_in(len(names)))
        rows = range(len(names))
        pretrained, random = zip(*(per_class[name] for name in names), strict=True)
        axes.hlines(rows, random, pretrained, color=GRID, linewidth=2.5, zorder=1)
        axes.scatter(random, rows, s=34, color=_RANDOM, label="random", zorder=2)
        axes.scatter(pretrained, rows, s=34, color=_PRETRAINED, label="pretrained", zorder=3)
        axes.set_yticks(rows, names)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.legend(loc="outside lower left", ncols=2, handletextpad=0.2)
        return finish(figure, title)
