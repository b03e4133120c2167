"""Average precision of a ranking, by each of the definitions that are in use.

Shape legend: N samples, C columns (classes, or problems).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Points = Literal["all", 11]


def average_precision(
    scores: ArrayLike, labels: ArrayLike, points: Points = "all", num_missed: int = 0
) -> float:
    """Return the average precision of one class, as the VOC kit computes it.

    Samples stand in falling order of their scores; those with equal scores in the order in which
    they are given, as in the kit.

    Args:
        scores: float (N,), greater for what is more likely of the class.
        labels: (N,), 1 of the class, -1 not, 0 not counted.
        points: "all": precision made monotone from the right, summed at every change of recall (VOC
            from 2010 on, and the SVM protocol of Goyal et al. 2019); 11: the mean of the greatest
            precision at a recall of at least 0, 0.1 .. 1 (VOC 2007, detection there).
        num_missed: of the class and in no ranking at all: objects that no detection found. No
            recall beyond those that were found is ever reached.

    Returns:
        0 .. 1.

    Raises:
        InputError: if shapes differ, a score is not finite, a label is another number, or no sample
            is of the class.
    """
    values, signs = _check(scores, labels, num_missed)
    if points not in ("all", 11):
        raise InputError(f"points ({points}) must be 'all' or 11")
    counted = signs != 0
    order = np.argsort(-values[counted], kind="stable")
    hits = signs[counted][order] > 0
    num_positives = hits.sum() + num_missed
    recall = np.cumsum(hits) / num_positives
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    # The best that can still be had at this recall or a greater one.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if points == 11:
        # Recall is a fraction of whole numbers; 0.1 * 3 must not lie above 3 / 10.
        reached = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
        return float(np.append(best, 0.0)[reached].mean())
    return float(best[hits].sum() / num_positives)


def step_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the average precision of one class as scikit-learn computes it.

    Precision is summed at every change of recall as it is, and equal scores are one step: what the
    SVM protocol of Goyal et al. 2019 chooses its costs by.

    Args:
        scores: float (N,).
        labels: (N,), 1 of the class, -1 not, 0 not counted.

    Returns:
        0 .. 1.

    Raises:
        InputError: as ``average_precision``.
    """
    values, signs = _check(scores, labels)
    counted = signs != 0
    order = np.argsort(-values[counted], kind="stable")
    values, hits = values[counted][order], signs[counted][order] > 0
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    found = np.cumsum(hits)[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / hits.sum())


def _check(
    scores: ArrayLike, labels: ArrayLike, num_missed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, given = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != given.shape:
        raise InputError(f"scores {values.shape} and labels {given.shape} must be (N,), equal in N")
    if not np.isfinite(values).all():
        raise InputError(f"scores ({(~np.isfinite(values)).sum()} of {len(values)}) must be finite")
    if not np.isin(given, (-1, 0, 1)).all():
        wrong = given[~np.isin(given, (-1, 0, 1))][0]
        raise InputError(f"labels ({wrong}) must be 1 (of the class), -1 (not) or 0 (not counted)")
    if not (given == 1).any() and num_missed < 1:
        raise InputError("labels (none is 1) must have a sample of the class")
    return values, given.astype(np.int64)
