"""Linear SVMs on frozen features, by the protocol of Goyal et al. 2019 for VOC07.

For every class one SVM against the rest: its cost is the one with the best mean average precision
over stratified folds, and it is fitted again with that cost on all samples. All classes and folds
of a cost are solved at once, each cost from where the one below it ended.

Shape legend: N samples, D features, C classes, K costs, F folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..average_precision import step_average_precision
from ..errors import InputError
from ..fields import Documented
from ..randomness import Stream, draw_words
from .squared_hinge import Solution, build_space, solve

GOYAL19_COSTS = (*(10.0**e for e in range(-7, 3)), *(0.5**n for n in range(4, 20)))
"""The 26 costs of Goyal et al. 2019, in the order in which ties between them are decided."""

Uncounted = Literal["out", "negative"]
Solver = Literal["batched", "sklearn"]


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
    tolerance: float = 1e-9,
    solver: Solver = "batched",
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
        tolerance: relative duality gap at which a fit of ``batched`` is done.
        solver: "batched" is the package's own; "sklearn" fits one problem after the other by
            scikit-learn's LinearSVC as the study calls it (dual, tolerance 1e-4, 2,000 passes), but
            with a fixed seed. It is slow, and stops where it stops: its gaps say how near that is.

    Returns:
        The SVMs, with the average precision of every cost and a certificate of every fit.

    Raises:
        InputError: if shapes do not fit, features are not finite or all alike, a label is another
            number, a class has fewer positives or negatives than folds, or a number is out of
            range.
    """
    features = torch.as_tensor(features)
    signs = _check(features, labels, costs, folds, positive_weight, uncounted)
    num_classes = signs.shape[1]
    is_held_NCF = np.stack(
        [cut_folds(signs[:, c], folds, seed) for c in range(num_classes)], axis=1
    )
    if solver == "batched":
        fits: _Fits = _BatchedFits(features, signs, is_held_NCF, positive_weight, tolerance)
    elif solver == "sklearn":
        fits = _SklearnFits(features, signs, is_held_NCF, positive_weight)
    else:
        raise InputError(f"solver ({solver}) must be 'batched' or 'sklearn'")
    counted = np.asarray(labels) != 0
    cv_ap = np.empty((num_classes, len(costs)))
    cv_gap = np.empty((num_classes, len(costs), folds))
    for k in np.argsort(costs, kind="stable").tolist():
        scores_NCF, cv_gap[:, k] = fits.fit_folds(costs[k])
        cv_ap[:, k] = _score_folds(scores_NCF, signs, counted, is_held_NCF)
    best_cost = np.asarray(costs, np.float64)[cv_ap.argmax(1)]
    weights, bias, gap = fits.fit_all(best_cost)
    return SvmResult(tuple(map(float, costs)), cv_ap, best_cost, weights, bias, gap, cv_gap)


class _Fits(Protocol):
    """How SVMs are fitted; costs come in rising order."""

    def fit_folds(self, cost: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scores of all samples by what each fold leaves, (N, C, F), and gaps, (C, F)."""

    def fit_all(
        self, costs_C: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return weights, (C, D), biases and gaps, (C,), of fits to all samples."""


class _BatchedFits:
    """All classes and folds at once, each cost from where the one below it ended."""

    def __init__(
        self,
        features: Tensor,
        signs_NC: NDArray,
        is_held_NCF: NDArray,
        positive_weight: float,
        tolerance: float,
    ) -> None:
        self._space = build_space(features)
        self._shape = is_held_NCF.shape
        self._tolerance = tolerance
        self._signs_NC = signs_NC.astype(np.float64)
        self._factors_NC = np.where(signs_NC > 0, positive_weight, 1.0) * (signs_NC != 0)
        num, _, folds = self._shape
        self._signs_NP = self._place(np.repeat(self._signs_NC, folds, 1))
        self._factors_NP = self._place(
            (self._factors_NC[:, :, None] * ~is_held_NCF).reshape(num, -1)
        )
        self._start: Solution | None = None

    def fit_folds(self, cost: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = solve(
            self._space, self._signs_NP, self._factors_NP * cost, self._start, self._tolerance
        )
        self._start = found
        scores, gap = found.scores_NP.cpu().numpy(), found.gap_P.cpu().numpy()
        return scores.reshape(self._shape), gap.reshape(self._shape[1:])

    def fit_all(
        self, costs_C: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        found = solve(
            self._space,
            self._place(self._signs_NC),
            self._place(self._factors_NC * costs_C),
            tolerance=self._tolerance,
        )
        weights, bias = self._space.to_features(found.weights_QP)
        return weights.cpu().numpy(), bias.cpu().numpy(), found.gap_P.cpu().numpy()

    def _place(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values).to(self._space.device)


class _SklearnFits:
    """One after the other, by scikit-learn's LinearSVC."""

    def __init__(
        self, features: Tensor, signs_NC: NDArray, is_held_NCF: NDArray, positive_weight: float
    ) -> None:
        self._features = features.cpu().double().numpy()
        self._signs_NC = signs_NC
        self._is_held_NCF = is_held_NCF
        self._positive_weight = positive_weight

    def fit_folds(self, cost: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scores = np.empty(self._is_held_NCF.shape)
        gap = np.empty(scores.shape[1:])
        for c, f in np.ndindex(gap.shape):
            weights, bias, gap[c, f] = self._fit(c, ~self._is_held_NCF[:, c, f], cost)
            scores[:, c, f] = self._features @ weights + bias
        return scores, gap

    def fit_all(
        self, costs_C: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        fits = [self._fit(c, np.True_, cost) for c, cost in enumerate(costs_C.tolist())]
        weights, bias, gap = map(np.array, zip(*fits, strict=True))
        return weights, bias, gap

    def _fit(
        self, c: int, is_taken: NDArray[np.bool_] | np.bool_, cost: float
    ) -> tuple[NDArray[np.float64], float, float]:
        rows = np.flatnonzero((self._signs_NC[:, c] != 0) & is_taken)
        return fit_linear_svc(
            self._features[rows], self._signs_NC[rows, c], cost, self._positive_weight
        )


def fit_linear_svc(
    features: NDArray[np.float64],
    signs: NDArray[np.int64],
    cost: float,
    positive_weight: float = 2.0,
    dual: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> tuple[NDArray[np.float64], float, float]:
    """Fit one SVM by scikit-learn's LinearSVC; the defaults are those of Goyal et al. 2019.

    Args:
        features: (N, D).
        signs: (N,), 1 or -1.
        cost: C of liblinear.
        positive_weight: weight of positives; of negatives it is 1.
        dual: coordinate descent of the dual; False is Newton's method, which gets nearer to the
            end.
        tolerance: of liblinear.
        max_iterations: passes over the samples, or Newton steps.

    Returns:
        Weights, (D,), bias, and how far the objective can lie above its minimum, as a share of it.
    """
    # Imported here: it takes a second, and training imports this package.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        C=cost,
        class_weight={1: positive_weight, -1: 1.0},
        dual=dual,
        tol=tolerance,
        max_iter=max_iterations,
        random_state=0,
    )
    with warnings.catch_warnings():
        # The gap says how far it came.
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(features, signs)
    weights, bias = svm.coef_[0], float(svm.intercept_[0])
    return weights, bias, find_objective(features, signs, cost, weights, bias, positive_weight)[1]


def find_objective(
    features: NDArray[np.float64],
    signs: NDArray[np.int64],
    cost: float,
    weights: NDArray[np.float64],
    bias: float,
    positive_weight: float = 2.0,
) -> tuple[float, float]:
    """Return what an SVM's fit minimises, and how far that can lie above its minimum, as a share.

    Args:
        features: (N, D).
        signs: (N,), 1 or -1.
        cost: C of liblinear.
        weights: (D,).
        bias: a weight of a feature that is 1.
        positive_weight: weight of positives; of negatives it is 1.
    """
    losses = cost * np.where(signs > 0, positive_weight, 1.0)
    slack = np.maximum(0, 1 - signs * (features @ weights + bias))
    pull = losses * slack * signs
    value = (weights @ weights + bias**2) / 2 + losses @ slack**2
    # The dual at twice the pulls.
    bound = 2 * losses @ slack - losses @ slack**2
    bound -= 2 * (np.square(pull @ features).sum() + pull.sum() ** 2)
    return float(value), float(max(value - bound, 0.0) / max(value, 1e-300))


def _score_folds(
    scores_NCF: NDArray, signs: NDArray, counted: NDArray, is_held_NCF: NDArray
) -> NDArray[np.float64]:
    """Return the mean over the folds of the average precision on what each held out, (C,)."""
    num_classes, folds = is_held_NCF.shape[1:]
    precisions = np.empty((num_classes, folds))
    for c in range(num_classes):
        for f in range(folds):
            rows = is_held_NCF[:, c, f] & counted[:, c]
            precisions[c, f] = step_average_precision(scores_NCF[rows, c, f], signs[rows, c])
    return precisions.mean(1)


def cut_folds(signs: NDArray[np.int64], folds: int, seed: int | None = None) -> NDArray[np.bool_]:
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
    if all(bool((part == features[:1]).all()) for part in features.split(512)):
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
