"""Curves over label counts as the report tells them: their names, their lines, what they save."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...counts import spell_number
from ...errors import InputError
from ...fields import Documented
from ...runs.facts import name_trunk
from ..label_curves import (
    HALVES,
    LabelCurve,
    Network,
    group_results,
    is_on_curve,
    make_curve,
)
from ..label_savings import Savings, find_baseline, measure_savings
from .entries import Entry
from .line_charts import Line, Point

SCRATCH = "from scratch"
MIDDLE = (250, 4000)
"""Labels over which the study takes means of accuracies (Newell and Deng 2020, Fig. 9)."""


@dataclass(frozen=True)
class Told(Documented):
    """A curve, and what a reader is told of it."""

    curve: LabelCurve
    """The curve."""
    entry: Entry
    """One of its points."""
    savings: Savings | None
    """What it saves; None from scratch, and without a curve from scratch beside it."""

    @property
    def method(self) -> str:
        """What pretrained the trunk: the task where its recipe is known, else the recipe."""
        beginning, facts = self.curve.key.beginning, self.entry.facts
        if not beginning.is_pretrained:
            return SCRATCH
        if facts is not None and beginning.recipe:
            return facts.pretext.replace("_", " ")
        return beginning.recipe or "pretrained"

    @property
    def place(self) -> Hashable:
        """What curves of a chart share: the ground, and the network without halves."""
        return self.curve.key.ground, self.curve.key.network.whole

    @property
    def is_own(self) -> bool:
        """Whether it was pretrained on the data that it is fine-tuned on."""
        return self.entry.pretrain_data == self.entry.train_data != ""

    @property
    def parts(self) -> tuple[str, ...]:
        """All that may tell it from another, the method first."""
        key = self.curve.key
        beginning = key.beginning
        digest = self.curve.trunk_digests[0]
        return (
            self.method,
            name_network(key.network),
            self.entry.pretrain_data and f"on {self.entry.pretrain_data}",
            spell_number(beginning.num_images, "image") if beginning.num_images else "",
            spell_number(beginning.step, "step") if beginning.step else "",
            f"{key.frozen_stages} frozen" if key.frozen_stages else "",
            beginning.recipe,
            digest[:8],
        )


def gather(entries: Iterable[Entry]) -> tuple[list[Told], list[str]]:
    """Return the curves that results make, and what has to be said of them.

    Args:
        entries: from ``prepare``.

    Returns:
        The curves, those from scratch first, and sentences: what contradicts, what is left out,
        what has no curve from scratch.
    """
    on_curves = [entry for entry in entries if is_on_curve(entry.result)]
    of_result = {id(entry.result): entry for entry in on_curves}
    made: list[tuple[LabelCurve, Entry]] = []
    said: list[str] = []
    for group in group_results(entry.result for entry in on_curves):
        try:
            made.append((make_curve(group), of_result[id(group[0])]))
        except InputError as error:
            said.append(f"{error}.")
    curves = [curve for curve, _ in made]
    told = []
    for curve, entry in made:
        savings = None
        if curve.key.beginning.is_pretrained:
            try:
                savings = measure_savings(curve, find_baseline(curve, curves))
            except InputError as error:
                said.append(f"No utility: {error}.")
        told.append(Told(curve, entry, savings))
        if curve.left_out:
            said.append(f"{told[-1].method}, {title_of(told[-1])}: {'; '.join(curve.left_out)}.")
    told.sort(key=lambda one: (one.curve.key.beginning.is_pretrained, one.parts))
    return told, list(dict.fromkeys(said))


def name_network(network: Network) -> str:
    """Return a network's name as people write it.

    Args:
        network: with its width.
    """
    whole = name_trunk(network.trunk.removesuffix(HALVES))
    halves = " in halves" if network.trunk.endswith(HALVES) else ""
    return f"{whole} x{network.width}{halves}"


def title_of(told: Told, has_network: bool = True) -> str:
    """Return what a chart of a curve is headed by: task, rules, data, network.

    Args:
        told: the curve.
        has_network: name the network.
    """
    ground = told.curve.key.ground
    said = [f"{ground.task} ({ground.protocol}), {told.entry.data}"]
    if has_network:
        said.append(name_network(told.curve.key.network.whole))
    if ground.head != "linear":
        said.append(f"{ground.head} head")
    return ", ".join(said)


def group_by(told: Iterable[Told], key: Callable[[Told], Hashable]) -> dict[Hashable, list[Told]]:
    """Return curves by something that they share.

    Args:
        told: curves.
        key: gives what is shared.
    """
    groups: dict[Hashable, list[Told]] = {}
    for one in told:
        groups.setdefault(key(one), []).append(one)
    return groups


def choose_main(told: Sequence[Told]) -> list[Told]:
    """Return the curves of a chart that compares methods.

    Of each method those with nothing frozen that were pretrained on the data of the chart, where
    there are some, and of them those that were pretrained for longest and on most images.

    Args:
        told: pretrained, of one chart.
    """
    chosen = []
    for members in group_by(told, lambda one: (one.method, one.curve.key.network)).values():
        moving = [one for one in members if not one.curve.key.frozen_stages]
        own = [one for one in moving if one.is_own] or moving
        most = max((_budget(one) for one in own), default=(0, 0.0))
        chosen += [one for one in own if _budget(one) == most]
    return chosen


def _budget(told: Told) -> tuple[int, float]:
    beginning = told.curve.key.beginning
    return beginning.step, beginning.num_images or float("inf")


def name_curves(told: Sequence[Told]) -> list[str]:
    """Return names for the curves of a chart, of what differs between them.

    Args:
        told: the curves.
    """
    names = [one.method for one in told]
    for number in range(1, len(told[0].parts) if told else 0):
        groups = [
            [o.parts[number] for o, n in zip(told, names, strict=True) if n == m] for m in names
        ]
        names = [
            f"{name}, {one.parts[number]}" if len(set(group)) > 1 and one.parts[number] else name
            for name, one, group in zip(names, told, groups, strict=True)
        ]
    return names


# --- Lines ----------------------------------------------------------------------------------------


def draw_accuracy(told: Told, name: str, color: int | None) -> Line:
    """Return a curve's accuracies as a line: means, and bars of a deviation.

    Args:
        told: the curve.
        name: at its end.
        color: its number; None from scratch.
    """
    curve = told.curve
    points = zip(curve.counts.tolist(), curve.mean.tolist(), curve.std.tolist(), strict=True)
    return Line(name, tuple(Point(x, y, y - std, y + std) for x, y, std in points), color)


def draw_utility(savings: Savings, name: str, color: int) -> Line:
    """Return utility as a line up to where it rises into the grey region, then its bounds.

    Args:
        savings: of a curve.
        name: at its end.
        color: its number.
    """
    found, edge = savings.utility, savings.find_edge()
    is_apart = np.all(found.is_bound, axis=0).tolist()
    points = [
        Point(
            x,
            y,
            y - std,
            y + std,
            mark="bound" if savings.is_bound[number] else "dot",
            is_joined=not is_apart[number],
        )
        for number, (x, y, std) in enumerate(
            zip(found.counts.tolist(), found.mean.tolist(), found.std.tolist(), strict=True)
        )
    ]
    if edge is not None:
        x, y = edge
        points.append(Point(x, y, y, y, mark="none"))
    return Line(name, tuple(sorted(points, key=lambda point: point.x)), color)


def draw_ceiling(savings: Sequence[Savings]) -> tuple[tuple[float, float], ...]:
    """Return the edge of the grey region of a chart: that of the curve from scratch with most.

    Args:
        savings: of the chart's curves.
    """
    counts = np.concatenate([one.utility.counts for one in savings])
    best = max(one.utility.best_count for one in savings)
    xs = np.geomspace(counts.min(), counts.max(), 80)
    return tuple(zip(xs.tolist(), (best / xs - 1).tolist(), strict=True))


def choose_middle(curves: Sequence[LabelCurve]) -> list[int]:
    """Return the label counts that curves share, those in the study's middle where there are some.

    Args:
        curves: at least one.
    """
    shared = set.intersection(*(set(curve.counts.tolist()) for curve in curves))
    middle = {count for count in shared if MIDDLE[0] <= count <= MIDDLE[1]}
    return sorted(middle or shared)


def take_mean(curve: LabelCurve, counts: Sequence[int]) -> float:
    """Return a curve's mean accuracy over some of its counts.

    Args:
        curve: the curve.
        counts: that it has.
    """
    return float(curve.mean[np.isin(curve.counts, counts)].mean())


def say_counts(counts: Sequence[int]) -> str:
    """Return label counts as people read them.

    Args:
        counts: ascending.
    """
    return (
        spell_number(counts[0], "label")
        if len(counts) == 1
        else f"{counts[0]:,} to {counts[-1]:,} labels"
    )
