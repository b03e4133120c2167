"""What Newell and Deng 2020 claim of utility, beside what results here say of it.

Each claim is a function of the curves alone, says its numbers, and whether they agree, disagree or
do not tell. A difference counts where it is larger than the deviation of the seeds.

Shape legend: K label counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..counts import spell_number
from ..fields import Documented
from .label_curves import LabelCurve
from .label_savings import Savings, find_limit

Verdict = Literal["agrees", "disagrees", "cannot tell"]
_SATURATED = 0.01


@dataclass(frozen=True)
class Claim(Documented):
    """A sentence of the study, and what was measured."""

    text: str
    """What the study says."""
    measured: tuple[str, ...]
    """What was found, in words with numbers, an item each."""
    verdict: Verdict
    """Whether the two go together."""


def judge_claims(
    savings: Mapping[tuple[str, str, str], Savings], linear: Mapping[tuple[str, str], float]
) -> list[Claim]:
    """Hold the study's claims against measured curves.

    Args:
        savings: by name of (data, task, method).
        linear: accuracy of a linear classifier on the frozen trunk by (data, method).

    Returns:
        The claims that the curves can say something of.
    """
    return [
        _judge_saturation(savings),
        _judge_best_method(savings),
        *([_judge_ranks(savings, linear)] if linear else []),
    ]


def find_saturation(curve: LabelCurve) -> int | None:
    """Return the first count from which on more labels bring less than a point in all.

    Args:
        curve: of training from scratch.

    Returns:
        None where the accuracy still rises at the last count but one.
    """
    is_flat = curve.mean.max() - curve.mean < _SATURATED
    first = int(np.flatnonzero(is_flat)[0])
    return None if first == len(curve.counts) - 1 else int(curve.counts[first])


def find_end(savings: Savings) -> int | None:
    """Return the first count from which on no labels are saved by more than a deviation.

    Args:
        savings: of one trunk.

    Returns:
        None where ``find_limit`` knows of no such count.
    """
    limit, counts = find_limit(savings), savings.utility.counts
    return None if limit is None else int(counts[counts > limit][0])


def _judge_saturation(savings: Mapping[tuple[str, str, str], Savings]) -> Claim:
    said, votes = [], []
    for key, own in savings.items():
        end, flat = find_end(own), find_saturation(own.baseline)
        told = "still saves at the last count" if end is None else f"saves nothing from {end:,} on"
        top = "does not saturate" if flat is None else f"saturates at {flat:,}"
        said.append(f"{' '.join(key)}: {told}; scratch {top}")
        if end is not None:
            votes.append(flat is None or end < flat)
        elif flat is not None:
            votes.append(False)
    if votes:
        told = spell_number(len(votes), "curve that tells", "curves that tell")
        said.insert(0, f"so it is of {sum(votes)} of {told}")
    text = "utility falls to zero before the accuracy from scratch saturates"
    return Claim(text, tuple(said), _vote(votes))


def _vote(votes: Sequence[bool]) -> Verdict:
    """Agree where all do, disagree where most do not."""
    if not votes:
        return "cannot tell"
    if all(votes):
        return "agrees"
    return "disagrees" if sum(votes) <= len(votes) / 2 else "cannot tell"


def _gain(savings: Savings) -> tuple[float, float]:
    """Return accuracy over scratch, mean over the shared counts, and its standard error."""
    ours, theirs = savings.curve, savings.baseline
    shared, own, other = np.intersect1d(ours.counts, theirs.counts, return_indices=True)
    means = ours.accuracies[:, own].mean(1), theirs.accuracies[:, other].mean(1)
    error = sum(values.var(ddof=1) / len(values) for values in means if len(values) > 1)
    return float(means[0].mean() - means[1].mean()) if len(shared) else 0.0, float(error**0.5)


def _judge_best_method(savings: Mapping[tuple[str, str, str], Savings]) -> Claim:
    said, best = [], {}
    grounds = dict.fromkeys(key[:2] for key in savings)
    for ground in grounds:
        gains = {key[2]: _gain(own) for key, own in savings.items() if key[:2] == ground}
        order = sorted(gains, key=lambda name: -gains[name][0])
        told = ", ".join(f"{m} {100 * gains[m][0]:+.1f} +- {100 * gains[m][1]:.1f}" for m in order)
        said.append(f"{' '.join(ground)}, points over scratch: {told}")
        first, *others = order
        is_ahead = all(
            gains[first][0] - gains[m][0] > np.hypot(gains[first][1], gains[m][1]) for m in others
        )
        best[ground] = first if is_ahead else None
    votes = []
    for data in dict.fromkeys(ground[0] for ground in grounds):
        winners = [best[ground] for ground in grounds if ground[0] == data]
        if len(winners) > 1 and None not in winners:
            votes.append(len(set(winners)) > 1)
    return Claim("the best method depends on the task", tuple(said), _vote(votes))


def _judge_ranks(
    savings: Mapping[tuple[str, str, str], Savings], linear: Mapping[tuple[str, str], float]
) -> Claim:
    said, swapped = [], 0
    for ground in dict.fromkeys(key[:2] for key in savings):
        gains = {
            key[2]: _gain(own)
            for key, own in savings.items()
            if key[:2] == ground and (ground[0], key[2]) in linear
        }
        of_linear = sorted(gains, key=lambda name: -linear[ground[0], name])
        tuned = sorted(gains, key=lambda name: -gains[name][0])
        pairs = [
            (a, b)
            for a, b in itertools.combinations(of_linear, 2)
            if gains[b][0] - gains[a][0] > np.hypot(gains[a][1], gains[b][1])
        ]
        swapped += len(pairs)
        turned = ", ".join(f"{b} before {a}" for a, b in pairs) or "no pair turned"
        numbers = ", ".join(f"{m} {100 * linear[ground[0], m]:.1f} %" for m in of_linear)
        said.append(
            f"{' '.join(ground)}: linear {numbers}; fine-tuned {' > '.join(tuned)}; {turned}"
        )
    return Claim(
        "the rank of linear classifiers is not that of fine-tuning",
        tuple(said),
        "agrees" if swapped else "disagrees",
    )
