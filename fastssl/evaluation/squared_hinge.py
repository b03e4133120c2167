"""Linear SVMs of one set of features, any number at once: squared hinge, L2 penalty, bias included.

Each problem is a column of labels and of weights on the samples; a weight of 0 leaves a sample out.
So classes, costs, folds and low-shot draws are columns of the same two matrices, and a step of all
of them is one matrix product.

A problem minimises, over w with the bias as its last entry (liblinear's L2R_L2LOSS_SVC with an
intercept scaling of 1; Fan et al. 2008, "LIBLINEAR"),

    P(w) = |w|^2 / 2 + sum_i c_i max(0, 1 - y_i w x_i)^2

by Newton's method: P is quadratic between the samples that cross their margin. Where few samples
lie inside their margin, as at great costs, a step solves a system of their size; else it takes
conjugate gradients, preconditioned by what the greatest eigenvalues of the Gram matrix make of the
Hessian with all samples equally active.

Where samples are at most twice as many as features w stands as a sum of samples: then the Gram
matrix is all that is needed, and a step takes one product with it (Chapelle 2007, "Training a
support vector machine in the primal").

Shape legend: N samples, D features, Q parameters of a problem (N, or D + 1), A axes, P problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError

_MAX_NEWTON = 100
_MAX_GRADIENTS = 250  # Conjugate gradients of a Newton step.
_MAX_HALVINGS = 30
# Axes of the preconditioner, and with less of the features' energy than this they are rounding.
_NUM_AXES = 512
_LEAST_ENERGY = 1e-13
# Rows or columns of the features that are float64 at a time.
_CHUNK = 512


class Space(Protocol):
    """Where the weights of problems live: columns of Q parameters."""

    num_parameters: int
    """Q."""
    num_samples: int
    """N."""
    device: torch.device

    def is_direct(self, num_active_P: Tensor, curvature_P: Tensor) -> Tensor:
        """Return where a system of the active samples' size is the quicker way, bool (P,)."""

    def score(self, weights_QP: Tensor) -> Tensor:
        """Return w x of every sample, (N, P)."""

    def pull(self, factors_NP: Tensor) -> Tensor:
        """Return sum_i factors_i x_i, (Q, P)."""

    def dot(self, left_QP: Tensor, right_QP: Tensor, right_scores_NP: Tensor) -> Tensor:
        """Return the inner products of weights, (P,)."""

    def precondition(self, weights_QP: Tensor, curvature_P: Tensor) -> Tensor:
        """Return about (1 + curvature sum_i x_i x_i')^-1 w, (Q, P)."""

    def gram(self, rows: Tensor) -> Tensor:
        """Return the inner products of some samples."""

    def to_features(self, weights_QP: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the weights are on the features, (P, D), and the biases, (P,)."""


def build_space(features_ND: Tensor) -> Space:
    """Prepare features for ``solve``, on the device where they lie.

    Args:
        features_ND: float (N, D).

    Raises:
        InputError: if there is no sample, or a feature is not finite.
    """
    if features_ND.dim() != 2 or not len(features_ND):
        raise InputError(f"features {tuple(features_ND.shape)} must be (N, D), N at least 1")
    num_bad = sum(int((~torch.isfinite(part)).sum()) for part in features_ND.split(_CHUNK))
    if num_bad:
        raise InputError(f"features ({num_bad} of {features_ND.numel()}) must be finite")
    num, width = features_ND.shape
    # One product with the Gram matrix against two with the features.
    return _SampleSpace(features_ND) if num <= 2 * width else _FeatureSpace(features_ND)


class _SampleSpace:
    """Weights are sums of samples; what they do is in the Gram matrix."""

    def __init__(self, features_ND: Tensor) -> None:
        """Find the Gram matrix, a 1 appended to every sample."""
        self._features_ND = features_ND
        self.device = features_ND.device
        self.num_parameters = self.num_samples = num = len(features_ND)
        self._gram_NN = torch.ones(num, num, dtype=torch.float64, device=self.device)
        for part in features_ND.split(_CHUNK, dim=1):
            self._gram_NN.addmm_(part.double(), part.double().T)
        self._axes_NA, self._images_NA, self._energy_A = self._find_axes()

    def is_direct(self, num_active_P: Tensor, curvature_P: Tensor) -> Tensor:
        # n^3 / 3 of a Cholesky decomposition against 2 N^2 a conjugate gradient. How many of these
        # the energy outside the axes takes was counted on features of 9,216 dimensions.
        num_gradients = (15 * (curvature_P * self._energy_A[0]).sqrt()).clamp_min(2)
        return num_active_P**3 < 6 * self.num_samples**2 * num_gradients

    def score(self, weights_QP: Tensor) -> Tensor:
        return self._gram_NN @ weights_QP

    def pull(self, factors_NP: Tensor) -> Tensor:
        return factors_NP

    def dot(self, left_QP: Tensor, right_QP: Tensor, right_scores_NP: Tensor) -> Tensor:
        del right_QP
        return (left_QP * right_scores_NP).sum(0)

    def precondition(self, weights_QP: Tensor, curvature_P: Tensor) -> Tensor:
        energy = self._energy_A[:, None] * curvature_P
        part = energy / (1 + energy) * (self._images_NA.T @ weights_QP)
        return torch.addmm(weights_QP, self._axes_NA, part, alpha=-1)

    def gram(self, rows: Tensor) -> Tensor:
        return self._gram_NN[rows[:, None], rows]

    def to_features(self, weights_QP: Tensor) -> tuple[Tensor, Tensor]:
        parts = self._features_ND.split(_CHUNK, dim=1)
        weights = torch.cat([weights_QP.T @ part.double() for part in parts], 1)
        return weights, weights_QP.sum(0)

    def _find_axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the directions of most energy, their scores and energies, by subspace iteration.

        They are orthonormal as weights, whatever the iteration has reached, so that the
        preconditioner is positive and symmetric among weights; nearness to eigenvectors is only
        speed.
        """
        generator = torch.Generator().manual_seed(0)
        num = min(_NUM_AXES, self.num_samples)
        basis = torch.randn(self.num_samples, num, generator=generator, dtype=torch.float64)
        basis = basis.to(self.device)
        for _ in range(3):
            basis = torch.linalg.qr(self._gram_NN @ basis).Q
        images = self._gram_NN @ basis
        length, turn = _decompose(basis.T @ images)
        turn = turn / length.sqrt()
        basis, images = basis @ turn, images @ turn
        energy, turn = _decompose(images.T @ images)
        return basis @ turn, images @ turn, energy


class _FeatureSpace:
    """Weights of features, in their principal axes; the bias is the weight of a 1."""

    def __init__(self, features_ND: Tensor) -> None:
        """Turn the features, a 1 appended to every sample, to their axes."""
        self.num_samples, width = features_ND.shape
        self.device = features_ND.device
        parts = features_ND.split(_CHUNK)
        moments = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=self.device)
        for part in map(_append_one, parts):
            moments.addmm_(part.T, part)
        self._energy_Q, self._axes_DQ = _decompose(moments)
        self.num_parameters = len(self._energy_Q)
        self._coordinates_NQ = moments.new_empty(self.num_samples, self.num_parameters)
        for part, rows in zip(parts, self._coordinates_NQ.split(_CHUNK), strict=True):
            torch.mm(_append_one(part), self._axes_DQ, out=rows)

    def is_direct(self, num_active_P: Tensor, curvature_P: Tensor) -> Tensor:
        del curvature_P
        # 2 n^2 Q of a Gram matrix against 4 N Q a conjugate gradient, some twenty of them.
        return num_active_P**2 < 40 * self.num_samples

    def score(self, weights_QP: Tensor) -> Tensor:
        return self._coordinates_NQ @ weights_QP

    def pull(self, factors_NP: Tensor) -> Tensor:
        return self._coordinates_NQ.T @ factors_NP

    def dot(self, left_QP: Tensor, right_QP: Tensor, right_scores_NP: Tensor) -> Tensor:
        del right_scores_NP
        return (left_QP * right_QP).sum(0)

    def precondition(self, weights_QP: Tensor, curvature_P: Tensor) -> Tensor:
        return weights_QP / (1 + self._energy_Q[:, None] * curvature_P)

    def gram(self, rows: Tensor) -> Tensor:
        active = self._coordinates_NQ[rows]
        return active @ active.T

    def to_features(self, weights_QP: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self._axes_DQ @ weights_QP).T
        return weights[:, :-1].contiguous(), weights[:, -1].clone()


@dataclass(frozen=True)
class Solution:
    """What solves P problems."""

    weights_QP: Tensor
    """float64, in their space."""
    scores_NP: Tensor
    """float64: w x of every sample, those left out too."""
    objective_P: Tensor
    """float64: P(w)."""
    gap_P: Tensor
    """float64: how far P(w) can lie above its minimum, over P(w): a bound by the dual."""


def solve(
    space: Space,
    signs_NP: Tensor,
    factors_NP: Tensor,
    start: Solution | None = None,
    tolerance: float = 1e-9,
) -> Solution:
    """Solve P problems at once.

    Args:
        space: the features.
        signs_NP: float64, the labels y, 1 or -1; anything where the factor is 0.
        factors_NP: float64, the factors c of the losses; 0 leaves a sample out.
        start: where to begin, the solution of other factors; zeros without it.
        tolerance: relative duality gap at which a problem is solved.

    Returns:
        The solutions, each with its gap; one that rounding keeps above the tolerance is returned
        with the gap that it has.
    """
    num_problems, device = signs_NP.shape[1], space.device
    if start is None:
        weights = torch.zeros(
            space.num_parameters, num_problems, dtype=torch.float64, device=device
        )
        scores = torch.zeros_like(signs_NP)
    else:
        weights, scores = start.weights_QP.clone(), start.scores_NP.clone()
    objective = torch.empty(num_problems, dtype=torch.float64, device=device)
    gap = torch.empty_like(objective)
    left = torch.arange(num_problems, device=device)
    for step in range(_MAX_NEWTON + 1):
        part = _Problems(
            space, signs_NP[:, left], factors_NP[:, left], weights[:, left], scores[:, left]
        )
        value, bound, gradient = part.evaluate()
        objective[left], gap[left] = value, (value - bound).clamp_min(0) / value.clamp_min(1e-300)
        keep = (gap[left] > tolerance).nonzero()[:, 0]
        if step == _MAX_NEWTON or not len(keep):
            break
        part, left = part.select(keep), left[keep]
        has_moved = part.advance(value[keep], gradient[:, keep])
        weights[:, left], scores[:, left] = part.weights, part.scores
        left = left[has_moved]
        if not len(left):
            break
    return Solution(weights, scores, objective, gap)


class _Problems:
    """Those that are not solved yet, where they stand."""

    def __init__(
        self, space: Space, signs: Tensor, factors: Tensor, weights: Tensor, scores: Tensor
    ) -> None:
        self.space = space
        self.signs = signs
        self.factors = factors
        self.weights = weights
        self.scores = scores

    def select(self, columns: Tensor) -> _Problems:
        parts = (self.signs, self.factors, self.weights, self.scores)
        return _Problems(self.space, *(part[:, columns] for part in parts))

    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return P(w) and a lower bound of its minimum, (P,), and the gradient, (Q, P)."""
        slack = (1 - self.signs * self.scores).clamp_min_(0)
        pull = self.factors * slack  # c max(0, 1 - y f); twice this is the dual's variable.
        loss = (pull * slack).sum(0)
        value = self._measure(self.weights, self.scores) / 2 + loss
        dual = self.space.pull(2 * pull * self.signs)
        bound = 2 * pull.sum(0) - self._measure(dual, self.space.score(dual)) / 2 - loss
        return value, bound, self.weights - dual

    def advance(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Take a Newton step of each; return which of them it brought down, bool (P,)."""
        curvature = 2 * self.factors * (self.signs * self.scores < 1)
        direction, moved = torch.empty_like(self.weights), torch.empty_like(self.scores)
        is_direct = self.space.is_direct((curvature > 0).sum(0).double(), curvature.mean(0))
        for columns, find in (
            (is_direct.nonzero()[:, 0], self._solve_directly),
            ((~is_direct).nonzero()[:, 0], self._descend),
        ):
            if len(columns):
                step = find(columns, curvature[:, columns], gradient[:, columns])
                direction[:, columns], moved[:, columns] = step
        slope = self.space.dot(gradient, direction, moved)
        size = torch.ones_like(value)
        is_down = torch.zeros_like(value, dtype=torch.bool)
        squares = (
            self._measure(self.weights, self.scores),
            2 * self.space.dot(self.weights, direction, moved),
            self._measure(direction, moved),
        )
        for _ in range(_MAX_HALVINGS):
            slack = (1 - self.signs * (self.scores + size * moved)).clamp_min_(0)
            square = squares[0] + size * (squares[1] + size * squares[2])
            found = square / 2 + (self.factors * slack.square_()).sum(0)
            is_down = found <= value + 1e-4 * size * slope
            if bool(is_down.all()):
                break
            size = torch.where(is_down, size, size / 2)
        size = torch.where(is_down, size, 0.0)
        self.weights = self.weights + size * direction
        self.scores = self.scores + size * moved
        return is_down

    def _measure(self, weights: Tensor, scores: Tensor) -> Tensor:
        return self.space.dot(weights, weights, scores)

    def _solve_directly(
        self, columns: Tensor, curvature: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the Newton steps of some problems, and their scores, from their active samples.

        The minimum of the quadratic is a sum of these: (G + 1 / curvature) b = y.
        """
        del gradient
        sums = torch.zeros_like(curvature)
        for p in range(len(columns)):
            rows = curvature[:, p].nonzero()[:, 0]
            system = self.space.gram(rows)
            system.diagonal().add_(1 / curvature[rows, p])
            factor = torch.linalg.cholesky(system)
            signs = self.signs[rows, columns[p]][:, None]
            sums[rows, p] = torch.cholesky_solve(signs, factor)[:, 0]
        direction = self.space.pull(sums) - self.weights[:, columns]
        return direction, self.space.score(direction)

    def _descend(
        self, columns: Tensor, curvature: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return about the same by conjugate gradients, to a hundredth."""
        space = self.space
        mean = curvature.mean(0)
        found = torch.zeros_like(gradient)
        found_scores = torch.zeros_like(curvature)
        residual = -gradient
        direction = space.precondition(residual, mean)
        scores = space.score(direction)
        product = space.dot(residual, direction, scores)
        enough = 1e-4 * product
        left = torch.arange(len(columns), device=space.device)
        for _ in range(_MAX_GRADIENTS):
            is_open = product > enough
            if not bool(is_open.any()):
                break
            if not bool(is_open.all()):
                left, curvature, mean, residual, direction, scores, product, enough = (
                    part[..., is_open]
                    for part in (
                        left, curvature, mean, residual, direction, scores, product, enough
                    )
                )  # fmt: skip
            image = direction + space.pull(curvature * scores)
            length = product / space.dot(image, direction, scores)
            found[:, left] += length * direction
            found_scores[:, left] += length * scores
            residual = residual - length * image
            conditioned = space.precondition(residual, mean)
            new_scores = space.score(conditioned)
            new_product = space.dot(residual, conditioned, new_scores)
            growth = new_product / product
            direction = conditioned + growth * direction
            scores = new_scores + growth * scores
            product = new_product
        return found, found_scores


def _append_one(features: Tensor) -> Tensor:
    ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
    return torch.cat([features.double(), ones], 1)


def _decompose(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues that count, and their vectors as columns."""
    energy, vectors = torch.linalg.eigh(moments)
    counts = energy > _LEAST_ENERGY * energy[-1] * len(moments)
    return energy[counts], vectors[:, counts]
