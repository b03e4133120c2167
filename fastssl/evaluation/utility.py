"""Utility of pretraining: the share of labels that it saves (Newell and Deng 2020, section 3).

Shape legend: S seeds of training from scratch, T seeds of fine-tuning, K label counts, J those of
fine-tuning where they are others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..fields import Documented


@dataclass(frozen=True)
class UtilityCurve(Documented):
    """Utility at every label count, for every seed of fine-tuning."""

    counts: NDArray[np.int64]
    """(J,) labels of fine-tuning."""
    values: NDArray[np.float64]
    """(T, J): labels that training from scratch needs for the same accuracy, over those used, minus
    1; -1 where the smallest count from scratch is better already."""
    is_bound: NDArray[np.bool_]
    """(T, J): whether training from scratch never gets there, so that the true utility may be
    anything above the value."""
    best_count: int
    """Labels with which training from scratch is best, in the mean; first of several."""

    @property
    def ceiling(self) -> NDArray[np.float64]:
        """The most that can be known at every count, (J,): what lies above is the grey region."""
        return self.best_count / self.counts - 1

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the seeds, (J,), those that are bounds with their bound."""
        return self.values.mean(0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Deviation over the seeds, (J,), around their own mean; 0 for a single seed."""
        return self.values.std(0)


def utility(
    counts: ArrayLike,
    scratch: ArrayLike,
    finetuned: ArrayLike,
    finetuned_counts: ArrayLike | None = None,
) -> UtilityCurve:
    """Return how many labels pretraining saves: U(n) = nhat / n - 1.

    nhat is the label count at which training from scratch reaches the accuracy that a pretrained
    trunk has with n labels: where the mean of the scratch seeds first does so, linear between two
    counts in the count itself. An accuracy below that mean's first point has nhat 0; one above its
    maximum is a bound, at the count of the maximum.

    Args:
        counts: (K,) label counts, whole, at least 1, ascending.
        scratch: (S, K) accuracies from scratch, a row a seed, or (K,) of one; any unit in which
            more is better.
        finetuned: (T, K) of the pretrained trunk, or (K,), in the same unit.
        finetuned_counts: (J,) label counts of these where they are others than those from scratch:
            then it is (T, J) or (J,).

    Returns:
        The curve.

    Raises:
        InputError: if shapes do not fit, counts do not ascend, or an accuracy is not finite.
    """
    counts = _check_counts(counts)
    own = counts if finetuned_counts is None else _check_counts(finetuned_counts)
    mean = _check_rows("scratch", scratch, len(counts)).mean(0)
    reached = _check_rows("finetuned", finetuned, len(own))
    is_bound = reached > mean.max()
    # The first count whose mean is at least y; of those beyond the maximum the maximum's own.
    at_least = mean >= reached[:, :, None]
    first = np.where(is_bound, mean.argmax(), at_least.argmax(2))
    before = np.maximum(first - 1, 0)
    rise = mean[first] - mean[before]
    share = np.divide(reached - mean[before], rise, out=np.ones_like(reached), where=rise > 0)
    needed = counts[before] + share * (counts[first] - counts[before])
    needed = np.where(is_bound, counts[first], needed)
    needed = np.where(reached < mean[0], 0, needed)
    return UtilityCurve(own, needed / own - 1, is_bound, int(counts[mean.argmax()]))


def _check_counts(given: ArrayLike) -> NDArray[np.int64]:
    counts = np.asarray(given, np.float64)
    is_right = counts.ndim == 1 and len(counts) and np.isfinite(counts).all()
    if not is_right or counts[0] < 1 or (counts % 1).any() or (np.diff(counts) <= 0).any():
        raise InputError(f"counts ({counts.tolist()}) must be whole numbers from 1 on, ascending")
    return counts.astype(np.int64)


def _check_rows(name: str, given: ArrayLike, num_counts: int) -> NDArray[np.float64]:
    rows = np.atleast_2d(np.asarray(given, np.float64))
    if rows.ndim != 2 or rows.shape[1] != num_counts or not len(rows):
        raise InputError(f"{name} {np.shape(given)} must be (seeds, {num_counts}), as counts are")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} must be finite; leave out a seed that failed")
    return rows
