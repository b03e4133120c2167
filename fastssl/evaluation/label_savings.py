"""What a pretrained trunk saves of labels: its curve over label counts beside one from scratch.

Shape legend: K label counts of the pretrained trunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from .label_curves import LabelCurve, Network, differ
from .utility import UtilityCurve, utility

_FROM_SCRATCH = "fastssl evaluate finetune --from-scratch true"


@dataclass(frozen=True)
class Savings(Documented):
    """What a pretrained trunk saves of labels, by two curves."""

    curve: LabelCurve
    """Of the pretrained trunk."""
    baseline: LabelCurve
    """From scratch."""
    utility: UtilityCurve
    """At the counts of the first."""

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels saved at every count, mean over the seeds, (K,); negative where it costs some."""
        return self.utility.mean * self.utility.counts

    @property
    def is_bound(self) -> NDArray[np.bool_]:
        """At which counts a seed lies in the grey region, (K,): what is known there is a bound."""
        return np.asarray(self.utility.is_bound.any(0))

    @property
    def gain(self) -> NDArray[np.float64]:
        """Accuracy above that from scratch with as many labels, (K,); not a number where none is.

        Means of the seeds.
        """
        return self.curve.mean - self._from_scratch(self.baseline.mean)

    @property
    def is_clear(self) -> NDArray[np.bool_]:
        """At which counts labels are saved by more than the seeds differ, (K,).

        Utility is above its deviation, and accuracy above that from scratch with as many labels by
        more than both deviations together. In the grey region of the last count the bound is 0:
        nothing is clear there.
        """
        found = self.utility
        spread = np.hypot(self.curve.std, self._from_scratch(self.baseline.std))
        is_better = np.isnan(self.gain) | (self.gain > spread)
        return (found.mean > found.std) & (found.mean > 0) & is_better

    @property
    def is_beyond(self) -> NDArray[np.bool_]:
        """At which counts accuracy is above all from scratch by more than both deviations, (K,)."""
        best = self.baseline.mean.argmax()
        spread = np.hypot(self.curve.std, self.baseline.std[best])
        return self.curve.mean > self.baseline.mean[best] + spread

    def _from_scratch(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        there = dict(zip(self.baseline.counts.tolist(), values.tolist(), strict=True))
        return np.array([there.get(count, np.nan) for count in self.curve.counts.tolist()])

    def find_edge(self) -> tuple[float, float] | None:
        """Return where the mean rises into the grey region: (labels, utility), if it does.

        The accuracy is linear between two counts in the count, as training from scratch is.
        """
        counts, mean, top = self.curve.counts, self.curve.mean, self.baseline.mean.max()
        above = np.flatnonzero(mean > top)
        if not len(above) or not above[0]:
            return None
        last = above[0]
        share = (top - mean[last - 1]) / (mean[last] - mean[last - 1])
        x = float(counts[last - 1] + share * (counts[last] - counts[last - 1]))
        return x, self.utility.best_count / x - 1

    def to_json(self) -> dict[str, Any]:
        """Return utility and both curves as plain values."""
        found = self.utility
        return {
            "counts": found.counts.tolist(),
            "utility": found.values.tolist(),
            "is_bound": found.is_bound.tolist(),
            "mean": found.mean.tolist(),
            "std": found.std.tolist(),
            "labels_saved": self.labels.tolist(),
            "is_clear": self.is_clear.tolist(),
            "grey_above": found.ceiling.tolist(),
            "scratch_best_count": found.best_count,
            "pretrained": self.curve.to_json(),
            "scratch": self.baseline.to_json(),
        }


def find_baseline(
    curve: LabelCurve, curves: Iterable[LabelCurve], network: Network | None = None
) -> LabelCurve:
    """Return the curve from scratch that a curve is measured against.

    Of the same task, data, split, head and course of training, with nothing frozen.

    Args:
        curve: of a pretrained trunk.
        curves: among which it is.
        network: that was trained from scratch; of CMC's half networks the whole one, unless said.

    Raises:
        InputError: if there is none; says in what the nearest differs.
    """
    wanted = network or curve.key.network.whole
    ground = curve.key.ground
    fresh = [c for c in curves if not c.key.beginning.is_pretrained and not c.key.frozen_stages]
    of_ground = [c for c in fresh if c.key.ground == ground and c.key.network == wanted]
    found = [c for c in of_ground if not _find_unequal(curve, c)]
    if found:
        return max(found, key=lambda c: len(c.counts))
    name = f"{wanted.trunk} of width {wanted.width}"
    why = ""
    if of_ground:
        why = f"; the one there was not trained equally: {_find_unequal(curve, of_ground[0])}"
    elif fresh:
        far = [differ(ground, c.key.ground) + differ(wanted, c.key.network) for c in fresh]
        nearest = min(far, key=lambda words: len(words))
        why = f"; the nearest one there differs in {', '.join(nearest)}"
    raise InputError(
        f"the {ground.task} curve of {curve.key.beginning.recipe or 'a pretrained trunk'} has no "
        f"curve from scratch beside it, wanted {name} on the same data and split{why}; "
        f"{_FROM_SCRATCH} --trunk {wanted.trunk} --width {wanted.width} makes its points"
    )


def _find_unequal(curve: LabelCurve, baseline: LabelCurve) -> str:
    """Say in what two curves were trained differently at a count that both have, if they were."""
    theirs = dict(zip(baseline.counts.tolist(), baseline.courses, strict=True))
    for count, course in zip(curve.counts.tolist(), curve.courses, strict=True):
        if theirs.get(count, course) != course:
            return f"with {spell_number(count, 'label')} by {theirs[count]}, this one by {course}"
    return ""


def measure_savings(curve: LabelCurve, baseline: LabelCurve) -> Savings:
    """Measure what a pretrained trunk saves of labels against training from scratch.

    Args:
        curve: of the pretrained trunk.
        baseline: from scratch, of any network; it may have other counts.

    Raises:
        InputError: if they are of other data, splits, tasks or heads, or were not trained equally.
    """
    differing = differ(curve.key.ground, baseline.key.ground)
    if differing:
        raise InputError(
            f"curves of one utility must not differ in {', '.join(differing)}; measure both on the "
            "same data and split"
        )
    if unequal := _find_unequal(curve, baseline):
        raise InputError(
            f"the curve from scratch was trained {unequal}; train both equally long, in the same "
            "way"
        )
    found = utility(baseline.counts, baseline.accuracies, curve.accuracies, curve.counts)
    return Savings(curve, baseline, found)


# --- In words -------------------------------------------------------------------------------------


def tell_savings(savings: Savings) -> list[str]:
    """Say what a trunk saves: where most, above which count nothing, what cannot be known.

    Args:
        savings: of a pretrained trunk.

    Returns:
        Sentences, the answer first.
    """
    counts, found = savings.utility.counts, savings.utility
    clear = np.flatnonzero(savings.is_clear)
    said = []
    if len(clear):
        best = clear[np.argmax(savings.labels[clear])]
        least = "at least " if savings.is_bound[best] else ""
        said.append(
            f"Your trunk saves you {least}{savings.labels[best]:,.0f} labels at n = "
            f"{counts[best]:,}{_tell_end(savings, clear[-1])}"
        )
        needed = savings.labels[best] + counts[best]
        more = "more than " if savings.is_bound[best] else ""
        said.append(
            f"With {spell_number(counts[best], 'label')} it reaches "
            f"{_spell(savings.curve.mean[best])}, for which training from scratch needs "
            f"{more}{needed:,.0f}: utility {least}{found.mean[best]:.3g}, "
            f"{_tell_spread(savings, float(found.std[best]))}."
        )
    else:
        many = f"n = {counts[0]:,} .. {counts[-1]:,}" if len(counts) > 1 else f"n = {counts[0]:,}"
        said.append(f"Your trunk saves you no labels at {many}")
        seeds = len(savings.curve.seeds)
        tells = "one seed tells" if seeds == 1 else f"{seeds} seeds tell"
        said.append(
            f"Training from scratch reaches as much with as many labels, as far as {tells}."
        )
    if savings.is_beyond[-1]:
        points = 100 * (savings.curve.mean[-1] - savings.baseline.mean.max())
        said.append(
            f"With {spell_number(counts[-1], 'label')} it ends {points:+.1f} points above the best "
            "from scratch; how many labels that is worth, more labels would have to tell."
        )
    left = [f"{what} from scratch" for what in savings.baseline.left_out]
    if left := [*savings.curve.left_out, *left]:
        said.append(f"Left out: {'; '.join(left)}.")
    return said


def find_limit(savings: Savings) -> int | None:
    """Return the count above which a trunk saves nothing.

    Returns:
        0 where it never saves any; None where it still does at the last count, or where all that
        follows is beyond what training from scratch reaches.
    """
    clear = np.flatnonzero(savings.is_clear)
    if not len(clear):
        return 0
    is_known = ~savings.is_beyond[clear[-1] + 1 :]
    return int(savings.utility.counts[clear[-1]]) if is_known.any() else None


def _tell_end(savings: Savings, last: int) -> str:
    end, counts = find_limit(savings), savings.utility.counts
    if end is not None:
        return f"; above n = {end:,} it saves nothing"
    if last == len(counts) - 1:
        return f", and still some at n = {counts[last]:,}, the most there are"
    return f"; above n = {counts[last]:,} it is better than all from scratch"


def _tell_spread(savings: Savings, std: float) -> str:
    seeds = len(savings.curve.seeds)
    return "one seed" if seeds == 1 else f"deviation {std:.2g} of {seeds} seeds"


def _spell(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"
