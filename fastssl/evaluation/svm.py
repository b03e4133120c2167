"""Linear SVMs on frozen features, by the protocol of Goyal et al. 2019 for VOC07.

For every class one SVM against the rest: its cost is the one with the best mean average precision
over stratified folds, and it is fitted again with that cost on all samples. All classes and folds
of a cost are solved at once, each cost from where the one below it ended.

Shape legend: N samples, D features, C classes, K costs, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..fields import Documented
from ..randomness import Stream, draw_words
from .average_precision import step_average_precision
from .squared_hinge import PrincipalAxes, Solution, solve

GOYAL19_COSTS = (*(10.0**e for e in range(-7, 3)), *(0.5**n for n in range(4, 20)))
"""The 26 costs of Goyal et al. 2019, in the order in which ties between them are decided."""

Uncounted = Literal["out", "negative"]


@dataclass(frozen=True)
class SvmResult(Documented):
    """One SVM a class, and what it was chosen by."""

    costs: tuple[float, ...]
    """The K costs that were tried."""
    cv_ap: NDArray[np.float64]
    """(C, K): mean average precision over the folds, scikit-learn's definition."""
    best_cost: NDArray[np.float64]
    """(C,): the cost of the greatest; the first given where several are."""
    weights: NDArray[np.float64]
    """(C, D)."""
    bias: NDArray[np.float64]
    """(C,)."""
    gap: NDArray[np.float64]
    """(C,): how far the objective can lie above its minimum, as a share of it: a bound by the
    dual."""
    cv_gap: NDArray[np.float64]
    """(C, K, F): the same of every fit of the folds."""

    def score(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the scores of samples, (N, C), for features (N, D) made like those fitted."""
        return np.asarray(features, np.float64) @ self.weights.T + self.bias


def normalize_rows(features: Tensor) -> Tensor:
    """Divide each row by its length plus 1e-5, in float64, as the protocol does.

    Args:
        features: float (N, D).

    Returns:
        float64 (N, D).
    """
    features = features.double()
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-5)


def fit_svms(
    features: ArrayLike | Tensor,
    labels: ArrayLike,
    costs: Sequence[float] = GOYAL19_COSTS,
    folds: int = 3,
    seed: int | None = None,
    positive_weight: float = 2.0,
    uncounted: Uncounted = "out",
    tolerance: float = 1e-7,
) -> SvmResult:
    """Fit one SVM a class, its cost chosen by cross-validation.

    Args:
        features: float (N, D), used as they are: ``normalize_rows`` is the caller's. A tensor on a
            GPU is worked on there.
        labels: (N, C), 1 of the class, -1 not, 0 not counted.
        costs: C of liblinear, each above 0.
        folds: at least 2, stratified by each class.
        seed: shuffles the samples before they are cut into folds; without it they are cut in the
            order in which they stand, as in the published protocol.
        positive_weight: weight of positives; of negatives it is 1.
        uncounted: what a label of 0 means in training: "out" leaves the sample out of that class;
            "negative" counts it so, which is what the published code does with VOC's difficult
            objects. Folds leave it out of the average precision in any case.
        tolerance: relative duality gap at which a fit is done.

    Returns:
        The SVMs, with the average precision of every cost and a certificate of every fit.

    Raises:
        InputError: if shapes do not fit, features are not finite or all alike, a label is another
            number, a class has fewer positives or negatives than folds, or a number is out of
            range.
    """
    features = torch.as_tensor(features)
    signs = _check(features, labels, costs, folds, positive_weight, uncounted)
    axes = PrincipalAxes(features)
    device = axes.energy_R.device
    num_classes = signs.shape[1]
    is_held_NCF = np.stack([_cut(signs[:, c], folds, seed) for c in range(num_classes)], axis=1)
    factors = np.where(signs > 0, positive_weight, 1.0) * (signs != 0)
    counted = np.asarray(labels) != 0
    signs_NP = torch.from_numpy(np.repeat(signs, folds, 1).astype(np.float64)).to(device)
    factors_NP = torch.from_numpy((factors[:, :, None] * ~is_held_NCF).reshape(len(signs), -1)).to(
        device
    )
    cv_ap = np.empty((num_classes, len(costs)))
    cv_gap = np.empty((num_classes, len(costs), folds))
    start = None
    for k in np.argsort(costs, kind="stable").tolist():
        found = solve(axes, signs_NP, factors_NP * costs[k], start, tolerance)
        start = found.weights_RP
        cv_gap[:, k] = found.gap_P.cpu().numpy().reshape(num_classes, folds)
        cv_ap[:, k] = _score_folds(found, signs, counted, is_held_NCF)
    best_cost = np.asarray(costs, np.float64)[cv_ap.argmax(1)]
    final = solve(
        axes,
        torch.from_numpy(signs.astype(np.float64)).to(device),
        torch.from_numpy(factors * best_cost).to(device),
        tolerance=tolerance,
    )
    weights, bias = axes.to_features(final.weights_RP)
    return SvmResult(
        tuple(map(float, costs)),
        cv_ap,
        best_cost,
        weights.cpu().numpy(),
        bias.cpu().numpy(),
        final.gap_P.cpu().numpy(),
        cv_gap,
    )


def _score_folds(
    found: Solution, signs: NDArray, counted: NDArray, is_held_NCF: NDArray
) -> NDArray[np.float64]:
    """Return the mean over the folds of the average precision on what each held out, (C,)."""
    num, num_classes, folds = is_held_NCF.shape
    scores = found.scores_NP.cpu().numpy().reshape(num, num_classes, folds)
    precisions = np.empty((num_classes, folds))
    for c in range(num_classes):
        for f in range(folds):
            rows = is_held_NCF[:, c, f] & counted[:, c]
            precisions[c, f] = step_average_precision(scores[rows, c, f], signs[rows, c])
    return precisions.mean(1)


def _cut(signs: NDArray[np.int64], folds: int, seed: int | None) -> NDArray[np.bool_]:
    """Return which samples each fold holds out, (N, F): both signs as evenly as can be.

    Without a seed these are the folds of scikit-learn's StratifiedKFold.
    """
    is_held = np.zeros((len(signs), folds), bool)
    rows = np.flatnonzero(signs)
    if seed is not None:
        keys = draw_words(seed, 0, rows, Stream.SPLIT, 1)[:, 0]
        rows = rows[np.argsort(keys, kind="stable")]
    # Rows sorted by sign are dealt round; the sign that is met first comes first.
    first = signs[rows[0]]
    dealt = np.where(np.sort(signs[rows] != first), -first, first)
    for sign in (first, -first):
        counts = [int((dealt[f::folds] == sign).sum()) for f in range(folds)]
        is_held[rows[signs[rows] == sign], np.repeat(np.arange(folds), counts)] = True
    return is_held


def _check(
    features: Tensor,
    labels: ArrayLike,
    costs: Sequence[float],
    folds: int,
    positive_weight: float,
    uncounted: Uncounted,
) -> NDArray[np.int64]:
    """Refuse what cannot be fitted; return the labels as signs, 0 for what is left out."""
    given = np.asarray(labels)
    if features.dim() != 2 or given.ndim != 2 or len(features) != len(given):
        raise InputError(
            f"features {tuple(features.shape)} and labels {given.shape} must be (N, D) and (N, C)"
        )
    if not np.isin(given, (-1, 0, 1)).all():
        wrong = given[~np.isin(given, (-1, 0, 1))][0]
        raise InputError(f"labels ({wrong}) must be 1 (of the class), -1 (not) or 0 (not counted)")
    if uncounted not in ("out", "negative"):
        raise InputError(f"uncounted ({uncounted}) must be 'out' or 'negative'")
    if not 2 <= folds <= len(given):
        raise InputError(f"folds ({folds}) must be 2 .. {len(given)}, the number of samples")
    if not len(costs) or not all(0 < cost < np.inf for cost in costs):
        raise InputError(f"costs ({list(costs)}) must be numbers above 0, at least one")
    if not 0 < positive_weight < np.inf:
        raise InputError(f"positive_weight ({positive_weight}) must be above 0")
    if bool(torch.isfinite(features).all()) and bool((features == features[:1]).all()):
        raise InputError(
            "features (the same for every sample) tell nothing apart; check the trunk and its input"
        )
    for sign, name in ((1, "positives"), (-1, "negatives")):
        numbers = (given == sign).sum(0)
        if numbers.min(initial=folds) < folds:
            c = int(numbers.argmin())
            raise InputError(
                f"labels (class {c} has {numbers[c]} {name}) must have at least one in each of the "
                f"{folds} folds; leave the class out, or take fewer folds"
            )
    return np.where(given == 0, -1 if uncounted == "negative" else 0, given).astype(np.int64)
