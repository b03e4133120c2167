"""Linear SVMs from a few samples a class: the low-shot protocol of Goyal et al. 2019.

A draw takes k positives of every class, and negatives; it is repeated, and each draw is fitted with
every cost. The study then reports the cost that is best *on the test set*. Beside that stands an
honest selection, by cross-validation inside what was drawn.

Shape legend: N samples, D features, C classes, K costs, T test samples, R draws, F folds; n samples
of a draw, over all classes; P problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..average_precision import average_precision, step_average_precision
from ..errors import InputError
from ..fields import Documented
from ..randomness import Stream, draw_words
from .squared_hinge import Solution, Space, build_space, solve
from .svm import GOYAL19_COSTS

GOYAL19_SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
"""The numbers k of Goyal et al. 2019."""

_NEGATIVES = 19
"""Negatives for each positive, where an image may have several labels (Goyal et al. 2019)."""
_MAX_FOLDS = 3


@dataclass(frozen=True)
class LowShotDraw(Documented):
    """What one draw trains on."""

    positives: NDArray[np.int64]
    """(C, k) rows of each class, in the order drawn: the first of them are the draw of a smaller
    k."""
    negatives: NDArray[np.int64] | None
    """(C, 19 k) rows that are not of each class, likewise; None where a sample has one label: there
    the positives of all other classes are a class's negatives."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """All rows drawn, (n,), ascending, each once."""
        parts = [self.positives] if self.negatives is None else [self.positives, self.negatives]
        return np.unique(np.concatenate([part.ravel() for part in parts]))

    def places(self) -> NDArray[np.int64]:
        """Return the part that each of ``rows`` has in each class, (n, C).

        1, 2 .. for the first, second .. positive; -1, -2 .. for negatives; 0 for one not drawn.
        """
        rows = self.rows
        num_classes, shots = self.positives.shape
        classes = np.arange(num_classes)[:, None]
        places = np.zeros((len(rows), num_classes), np.int64)
        positives = np.searchsorted(rows, self.positives)
        if self.negatives is None:
            places[positives] = -1 - np.arange(shots)[:, None]
        else:
            num_negatives = self.negatives.shape[1]
            places[np.searchsorted(rows, self.negatives), classes] = -1 - np.arange(num_negatives)
        places[positives, classes] = 1 + np.arange(shots)
        return places


@dataclass(frozen=True)
class LowShotSelection(Documented):
    """What one way of choosing costs gives for one k."""

    chosen_by: str
    """What costs were chosen by, in words."""
    costs: NDArray[np.float64]
    """(R,): the cost of each draw."""
    values: NDArray[np.float64]
    """(R,): the mean over the classes of the average precision on the test set."""
    per_class: NDArray[np.float64]
    """(C,): the mean over the draws of the same."""

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Deviation over the draws, around their own mean."""
        return float(self.values.std())

    @property
    def min(self) -> float:
        """The worst draw."""
        return float(self.values.min())

    @property
    def max(self) -> float:
        """The best draw."""
        return float(self.values.max())


@dataclass(frozen=True)
class LowShotResult(Documented):
    """What one k reaches."""

    k: int
    """Positives a class."""
    draws: tuple[LowShotDraw, ...]
    """What each draw trained on; the rows of the greatest k hold those of all others."""
    test_ap: NDArray[np.float64]
    """(C, K, R): average precision on the test set, all points."""
    cv_ap: NDArray[np.float64] | None
    """(C, K, R): mean average precision over folds of the draw, scikit-learn's definition; None
    where k is 1."""
    gap: NDArray[np.float64]
    """(C, K, R): how far the objective of each fit can lie above its minimum, as a share of it."""
    published: LowShotSelection
    """One cost for all draws, chosen on the test set, as the study does."""
    honest: LowShotSelection | None
    """A cost a draw, chosen inside the training set; None where a class has a single positive."""


@dataclass(frozen=True)
class LowShot(Documented):
    """The protocol's results."""

    costs: tuple[float, ...]
    """The K costs that were tried."""
    results: tuple[LowShotResult, ...]
    """One a k, ascending."""
    skipped: dict[int, str]
    """Each k that was left out, and why."""


def draw_low_shot(labels: ArrayLike, k: int, draw: int = 0, seed: int = 0) -> LowShotDraw:
    """Draw k samples a class.

    A pure function of its arguments. The draw of a smaller k is the beginning of a greater one's.

    Args:
        labels: (N, C) of 1 (of the class), -1 (not) and 0 (not counted, never drawn): k positives
            and 19 k negatives of each class, independently of other classes. Or (N,), a class from
            0 for each sample, -1 without one: k samples of each class.
        k: at least 1.
        draw: number of the draw, from 0.
        seed: 0 .. 2**64 - 1.

    Returns:
        The rows drawn.

    Raises:
        InputError: if labels have another form, k or draw is out of range, or a class has fewer.
    """
    given = _check_labels(labels)
    if k < 1 or draw < 0:
        raise InputError(f"k ({k}) must be at least 1, draw ({draw}) at least 0")
    lack = _find_lack(given, k)
    if lack:
        raise InputError(f"{lack}; take a smaller k, or leave the class out")
    if given.ndim == 1:
        classes = range(int(given.max()) + 1)
        rows = [_shuffle(np.flatnonzero(given == c), c, draw, seed)[:k] for c in classes]
        return LowShotDraw(np.stack(rows), None)
    positives, negatives = (
        np.stack(
            [
                _shuffle(np.flatnonzero(given[:, c] == sign), c, draw, seed)[:num]
                for c in range(given.shape[1])
            ]
        )
        for sign, num in ((1, k), (-1, _NEGATIVES * k))
    )
    return LowShotDraw(positives, negatives)


def low_shot(
    train_features: ArrayLike | Tensor,
    train_labels: ArrayLike,
    test_features: ArrayLike | Tensor,
    test_labels: ArrayLike,
    ks: Sequence[int] = GOYAL19_SHOTS,
    draws: int = 5,
    costs: Sequence[float] = GOYAL19_COSTS,
    seed: int = 0,
    positive_weight: float = 2.0,
    tolerance: float = 1e-9,
) -> LowShot:
    """Fit SVMs to a few samples a class, and test them.

    Two ways of choosing costs stand beside each other; the first of equal costs wins in both.

    * ``published``: one cost for all classes and draws of a k, that of the best mean on the test
      set itself.
    * ``honest``: one cost for all classes of a draw, that of the best mean average precision over
      min(3, k) stratified folds of the draw. A single positive cannot be cut: k = 1 takes the cost
      that its draw gets at k = 2, where a fold trains on one positive and 19 negatives, as k = 1
      does. The second positive is used for nothing else.

    Args:
        train_features: float (N, D), used as they are: ``normalize_rows`` is the caller's. A
            tensor on a GPU is worked on there.
        train_labels: (N, C) or (N,), as ``draw_low_shot`` takes them.
        test_features: float (T, D).
        test_labels: (T, C) or (T,), likewise.
        ks: positives a class. One that a class has not enough samples for is left out, and said.
        draws: R of each k.
        costs: C of liblinear, each above 0.
        seed: of the draws.
        positive_weight: weight of positives; of negatives it is 1.
        tolerance: relative duality gap at which a fit is done.

    Returns:
        The results of every k that can be drawn.

    Raises:
        InputError: if shapes do not fit, features are not finite, labels have another form, a class
            is not in the test set, no k can be drawn, or a number is out of range.
    """
    train, test = torch.as_tensor(train_features), torch.as_tensor(test_features)
    labels, test_signs = _check(train, train_labels, test, test_labels)
    if not len(ks) or min(ks) < 1 or draws < 1:
        raise InputError(f"ks ({list(ks)}) and draws ({draws}) must be at least 1")
    if not len(costs) or not all(0 < cost < np.inf for cost in costs):
        raise InputError(f"costs ({list(costs)}) must be numbers above 0, at least one")
    if not 0 < positive_weight < np.inf:
        raise InputError(f"positive_weight ({positive_weight}) must be above 0")
    skipped = {k: lack for k in sorted(set(ks)) if (lack := _find_lack(labels, k))}
    taken = sorted(set(ks) - set(skipped))
    if not taken:
        raise InputError(f"{next(iter(skipped.values()))}; take a smaller k")
    fits = _Fits(train, test, test_signs, tuple(costs), positive_weight, tolerance)
    # The least k is chosen for by k = 2.
    needed = [k for k in sorted({*taken, 2}) if k in taken or (1 in taken and k == 2)]
    needed = [k for k in needed if not _find_lack(labels, k)]
    drawn = {k: [draw_low_shot(labels, k, number, seed) for number in range(draws)] for k in needed}
    found = {k: _Fitted.stack([fits.run(one) for one in drawn[k]]) for k in needed}
    results = tuple(_conclude(k, drawn[k], found, costs) for k in taken)
    return LowShot(tuple(map(float, costs)), results, skipped)


class _Fitted(NamedTuple):
    """What fits of one draw, (C, K), or of all, (C, K, R), give."""

    test_ap: NDArray[np.float64]
    cv_ap: NDArray[np.float64]
    gap: NDArray[np.float64]

    @classmethod
    def stack(cls, parts: list[_Fitted]) -> _Fitted:
        return cls(*(np.stack(part, -1) for part in zip(*parts, strict=True)))


class _Fits:
    """Fits of draws from one training set."""

    def __init__(
        self,
        train: Tensor,
        test: Tensor,
        test_signs: NDArray,
        costs: tuple[float, ...],
        positive_weight: float,
        tolerance: float,
    ) -> None:
        self._train = train
        self._test = test
        self._test_signs = test_signs
        self._costs = costs
        self._positive_weight = positive_weight
        self._tolerance = tolerance
        self._whole: Space | None = None

    def run(self, draw: LowShotDraw) -> _Fitted:
        """Fit all classes, to the whole draw and to what each fold leaves, with every cost."""
        places = draw.places()
        shots = draw.positives.shape[1]
        folds = min(_MAX_FOLDS, shots) if shots > 1 else 0
        fold_NC = (np.abs(places) - 1) % max(folds, 1)
        is_held = np.stack([np.zeros_like(places, bool), *(fold_NC == f for f in range(folds))], 1)
        signs = np.sign(places)
        factors = np.where(signs > 0, self._positive_weight, 1.0) * (signs != 0)
        space, signs_nP, factors_nP = self._place(
            draw.rows,
            np.tile(signs, 1 + folds).astype(np.float64),
            (factors[:, None] * ~is_held).reshape(len(signs), -1),
        )
        num_classes, num_costs = places.shape[1], len(self._costs)
        cv_ap, gap = np.full((2, num_classes, num_costs), np.nan)
        weights: list[Tensor] = [torch.empty(0)] * num_costs
        start: Solution | None = None
        for i in np.argsort(self._costs, kind="stable").tolist():
            solution = solve(space, signs_nP, factors_nP * self._costs[i], start, self._tolerance)
            start = solution
            gap[:, i] = solution.gap_P[:num_classes].cpu().numpy()
            weights[i] = solution.weights_QP[:, :num_classes]
            if folds:
                scores = solution.scores_NP[:, num_classes:].cpu().numpy()
                scores = scores if len(scores) == len(signs) else scores[draw.rows]
                scores = scores.reshape(len(signs), folds, num_classes)
                cv_ap[:, i] = _score_folds(scores, signs, is_held[:, 1:])
        return _Fitted(self._score_test(space, torch.cat(weights, 1)), cv_ap, gap)

    def _place(
        self, rows: NDArray, signs_nP: NDArray, factors_nP: NDArray
    ) -> tuple[Space, Tensor, Tensor]:
        """Build the space of a draw, and put its problems there.

        That of its own rows; where these are most of the training set, that of all of it, which is
        built once.
        """
        if 2 * len(rows) < len(self._train):
            space = build_space(self._train[torch.from_numpy(rows).to(self._train.device)])
        else:
            self._whole = space = self._whole or build_space(self._train)
            whole = np.zeros((2, len(self._train), signs_nP.shape[1]))
            whole[:, rows] = signs_nP, factors_nP
            signs_nP, factors_nP = whole
        device = space.device
        return space, torch.from_numpy(signs_nP).to(device), torch.from_numpy(factors_nP).to(device)

    def _score_test(self, space: Space, weights_QP: Tensor) -> NDArray[np.float64]:
        """Return the average precisions on the test set, (C, K), of problems cost by cost."""
        weights, bias = space.to_features(weights_QP)
        chunks = [
            (chunk.to(weights.device).double() @ weights.T + bias).cpu()
            for chunk in self._test.split(1024)
        ]
        num_costs = len(self._costs)
        scores = torch.cat(chunks).numpy().reshape(len(self._test), num_costs, -1)
        return np.array(
            [
                [average_precision(scores[:, i, c], signs) for i in range(num_costs)]
                for c, signs in enumerate(self._test_signs.T)
            ]
        )


def _score_folds(
    scores_nFC: NDArray, signs_nC: NDArray, is_held_nFC: NDArray
) -> NDArray[np.float64]:
    """Return the mean over the folds of the average precision on what each held out, (C,)."""
    folds, num_classes = is_held_nFC.shape[1:]
    values = np.empty((folds, num_classes))
    for f in range(folds):
        for c in range(num_classes):
            rows = is_held_nFC[:, f, c] & (signs_nC[:, c] != 0)
            values[f, c] = step_average_precision(scores_nFC[rows, f, c], signs_nC[rows, c])
    return values.mean(0)


def _conclude(
    k: int, draws: list[LowShotDraw], found: dict[int, _Fitted], costs: Sequence[float]
) -> LowShotResult:
    """Choose costs both ways."""
    test_ap, cv_ap, gap = found[k]
    at_best = np.full(len(draws), test_ap.mean((0, 2)).argmax())
    published = _select(test_ap, costs, at_best, "the test set itself")
    honest = None
    if max(k, 2) in found:
        at_best = found[max(k, 2)].cv_ap.mean(0).argmax(0)
        how = f"{min(_MAX_FOLDS, max(k, 2))} folds of the draw" + (" of k = 2" if k == 1 else "")
        honest = _select(test_ap, costs, at_best, how)
    return LowShotResult(
        k, tuple(draws), test_ap, None if k == 1 else cv_ap, gap, published, honest
    )


def _select(
    test_ap: NDArray, costs: Sequence[float], at_R: NDArray, chosen_by: str
) -> LowShotSelection:
    chosen_CR = test_ap[:, at_R, np.arange(len(at_R))]
    values = np.asarray(costs, np.float64)[at_R]
    return LowShotSelection(chosen_by, values, chosen_CR.mean(0), chosen_CR.mean(1))


def _shuffle(rows: NDArray, label: int, draw: int, seed: int) -> NDArray[np.int64]:
    """Return rows in the order in which a draw takes them."""
    keys = draw_words(seed, label, rows, Stream.LOW_SHOT, 1, first=draw)[:, 0]
    return rows[np.argsort(keys, kind="stable")]


def _find_lack(labels: NDArray, k: int) -> str:
    """Say which class has too few samples for a k; nothing if none has."""
    if labels.ndim == 1:
        wanted = {"samples": (np.bincount(labels[labels >= 0]), k)}
    else:
        wanted = {
            "positives": ((labels == 1).sum(0), k),
            "negatives": ((labels == -1).sum(0), _NEGATIVES * k),
        }
    for name, (numbers, num) in wanted.items():
        if numbers.min() < num:
            c = int(numbers.argmin())
            return f"class {c} has {numbers[c]} {name}, k ({k}) needs {num}"
    return ""


def _check_labels(labels: ArrayLike) -> NDArray[np.int64]:
    given = np.asarray(labels)
    if given.ndim == 1 and given.dtype.kind in "iu" and given.min(initial=0) >= -1:
        if given.max(initial=-1) >= 1:
            return given.astype(np.int64)
        raise InputError("labels (N,) must name at least two classes, 0 and 1")
    if given.ndim == 2 and given.size and np.isin(given, (-1, 0, 1)).all():
        return given.astype(np.int64)
    raise InputError(
        f"labels {given.shape} must be (N, C) of 1 (of the class), -1 (not) and 0 (not counted), "
        "or (N,), whole numbers from 0 that name a class, -1 without one"
    )


def _check(
    train: Tensor, train_labels: ArrayLike, test: Tensor, test_labels: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Refuse what does not fit; return the training labels, and the test labels as signs (T, C)."""
    labels, signs = _check_labels(train_labels), _check_labels(test_labels)
    fits = train.dim() == test.dim() == 2 and train.shape[1] == test.shape[1]
    if not fits or len(train) != len(labels) or len(test) != len(signs):
        raise InputError(
            f"features {tuple(train.shape)} with {len(labels)} labels and test features "
            f"{tuple(test.shape)} with {len(signs)} must be (N, D) and (T, D)"
        )
    num_bad = int((~torch.isfinite(test)).sum())
    if num_bad:
        raise InputError(f"test features ({num_bad} of {test.numel()}) must be finite")
    num_classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    num_tested = signs.shape[1] if signs.ndim == 2 else int(signs.max()) + 1
    if signs.ndim != labels.ndim or num_tested > num_classes:
        raise InputError(
            f"test labels {signs.shape} of {num_tested} classes must have the form and classes of "
            f"the training labels {labels.shape} of {num_classes}"
        )
    if signs.ndim == 1:
        # A sample without a label counts for no class.
        classes = np.arange(num_classes)
        signs = np.where(signs[:, None] == classes, 1, np.where(signs[:, None] < 0, 0, -1))
    lacking = np.flatnonzero(~(signs == 1).any(0))
    if len(lacking):
        raise InputError(
            f"test labels (none of class {lacking[0]}) must have a sample of each class; take the "
            "whole test set, or leave the class out"
        )
    return labels, signs
