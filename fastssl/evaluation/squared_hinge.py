"""Linear SVMs of one set of features, any number at once: squared hinge, L2 penalty, bias included.

Each problem is a column of labels and of weights on the samples; a weight of 0 leaves a sample out.
So classes, costs, folds and low-shot draws are columns of the same two matrices, and a step of all
of them is one matrix product with the features.

A problem minimises, over w with the bias as its last entry (liblinear's L2R_L2LOSS_SVC with an
intercept scaling of 1; Fan et al. 2008, "LIBLINEAR"),

    P(w) = |w|^2 / 2 + sum_i c_i max(0, 1 - y_i w x_i)^2

by Newton's method: P is quadratic between the samples that cross their margin. Its systems are
solved by conjugate gradients, in the features' own principal axes: there the Hessian with all
samples equally active is a diagonal, which is what they are preconditioned by.

Shape legend: N samples, D features, R axes (at most N and D + 1), P problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

_MAX_NEWTON = 100
_MAX_GRADIENTS = 250  # Conjugate gradients of a Newton step.
_MAX_HALVINGS = 30
# Axes with less of the features' energy than this are rounding.
_LEAST_ENERGY = 1e-13


class PrincipalAxes:
    """Features with a constant 1 appended, turned so that their second moments are a diagonal."""

    def __init__(self, features_ND: Tensor) -> None:
        """Find the axes, from whichever Gram matrix is the smaller.

        Args:
            features_ND: float (N, D), finite, on the device that shall compute.

        Raises:
            InputError: if there is no sample, or a feature is not finite.
        """
        if features_ND.dim() != 2 or not len(features_ND):
            raise InputError(f"features {tuple(features_ND.shape)} must be (N, D), N at least 1")
        num_bad = int((~torch.isfinite(features_ND)).sum())
        if num_bad:
            raise InputError(f"features ({num_bad} of {features_ND.numel()}) must be finite")
        self._features_ND = features_ND
        num, width = features_ND.shape
        if num <= width:
            features = features_ND.double()
            gram = (features @ features.T).add_(1.0)
            del features
            energy, vectors = _decompose(gram)
            self.coordinates_NR = vectors.mul_(energy.sqrt())
            """float64 (N, R)."""
            self._axes_DR = None
        else:
            extended = _append_one(features_ND)
            energy, vectors = _decompose(extended.T @ extended)
            self.coordinates_NR = extended @ vectors
            self._axes_DR = vectors
        self.energy_R = energy
        """float64 (R,): sum of the squared coordinates along each axis."""

    def to_features(self, weights_RP: Tensor) -> tuple[Tensor, Tensor]:
        """Return what weights on the axes are on the features, (P, D), and the biases, (P,)."""
        if self._axes_DR is None:
            dual_NP = self.coordinates_NR @ (weights_RP / self.energy_R[:, None])
            return dual_NP.T @ self._features_ND.double(), dual_NP.sum(0)
        weights = (self._axes_DR @ weights_RP).T
        return weights[:, :-1].contiguous(), weights[:, -1].clone()


@dataclass(frozen=True)
class Solution:
    """What solves P problems."""

    weights_RP: Tensor
    """float64, on the axes."""
    scores_NP: Tensor
    """float64: w x of every sample, those left out too."""
    objective_P: Tensor
    """float64: P(w)."""
    gap_P: Tensor
    """float64: how far P(w) can lie above its minimum, over P(w): a bound by the dual."""


def solve(
    axes: PrincipalAxes,
    signs_NP: Tensor,
    weights_NP: Tensor,
    start_RP: Tensor | None = None,
    tolerance: float = 1e-7,
) -> Solution:
    """Solve P problems at once.

    Args:
        axes: the features.
        signs_NP: float64, the labels y, 1 or -1; anything where the weight is 0.
        weights_NP: float64, the factors c of the losses; 0 leaves a sample out.
        start_RP: where to begin; zeros without it.
        tolerance: relative duality gap at which a problem is solved.

    Returns:
        The solutions, each with its gap; one that rounding keeps above the tolerance is returned
        with the gap that it has.
    """
    coordinates = axes.coordinates_NR
    num_axes, num_problems = coordinates.shape[1], signs_NP.shape[1]
    device = coordinates.device
    weights = torch.zeros(num_axes, num_problems, dtype=torch.float64, device=device)
    if start_RP is not None:
        weights.copy_(start_RP)
    objective = torch.empty(num_problems, dtype=torch.float64, device=device)
    gap = torch.empty_like(objective)
    scores = coordinates @ weights
    left = torch.arange(num_problems, device=device)
    for step in range(_MAX_NEWTON + 1):
        part = _Problems(
            axes, signs_NP[:, left], weights_NP[:, left], weights[:, left], scores[:, left]
        )
        value, bound, gradient = part.evaluate()
        objective[left], gap[left] = value, (value - bound).clamp_min(0) / value.clamp_min(1e-300)
        open_ = gap[left] > tolerance
        if step == _MAX_NEWTON or not bool(open_.any()):
            break
        keep = open_.nonzero()[:, 0]
        part, left = part.select(keep), left[keep]
        has_moved = part.advance(value[keep], gradient[:, keep])
        weights[:, left], scores[:, left] = part.weights, part.scores
        left = left[has_moved]
        if not len(left):
            break
    return Solution(weights, coordinates @ weights, objective, gap)


class _Problems:
    """Those that are not solved yet, where they stand."""

    def __init__(
        self, axes: PrincipalAxes, signs: Tensor, losses: Tensor, weights: Tensor, scores: Tensor
    ) -> None:
        self.axes = axes
        self.signs = signs
        self.losses = losses
        self.weights = weights
        self.scores = scores

    def select(self, columns: Tensor) -> _Problems:
        parts = (self.signs, self.losses, self.weights, self.scores)
        return _Problems(self.axes, *(part[:, columns] for part in parts))

    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return P(w) and a lower bound of its minimum, (P,), and the gradient, (R, P)."""
        slack = (1 - self.signs * self.scores).clamp_min_(0)
        pull = self.losses * slack  # c max(0, 1 - y f); twice this is the dual's variable.
        loss = (pull * slack).sum(0)
        value = self.weights.square().sum(0) / 2 + loss
        sum_pulls = self.axes.coordinates_NR.T @ (pull * self.signs)
        dual_weights = 2 * sum_pulls
        bound = 2 * pull.sum(0) - dual_weights.square().sum(0) / 2 - loss
        return value, bound, self.weights - dual_weights

    def advance(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Take a Newton step of each; return which of them it brought down, bool (P,)."""
        curvature = 2 * self.losses * (self.signs * self.scores < 1)
        direction = self._solve_system(curvature, gradient)
        moved = self.axes.coordinates_NR @ direction
        slope = (gradient * direction).sum(0)
        size = torch.ones_like(value)
        is_down = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(_MAX_HALVINGS):
            new = self.weights + size * direction
            slack = (1 - self.signs * (self.scores + size * moved)).clamp_min_(0)
            found = new.square().sum(0) / 2 + (self.losses * slack.square_()).sum(0)
            is_down = found <= value + 1e-4 * size * slope
            if bool(is_down.all()):
                break
            size = torch.where(is_down, size, size / 2)
        size = torch.where(is_down, size, 0.0)
        self.weights = self.weights + size * direction
        self.scores = self.scores + size * moved
        return is_down

    def _solve_system(self, curvature: Tensor, gradient: Tensor) -> Tensor:
        """Solve (1 + Z' diag(curvature) Z) s = -gradient to a hundredth, by conjugate gradients."""
        z = self.axes.coordinates_NR
        scale = 1 + self.axes.energy_R[:, None] * curvature.mean(0)
        solution = torch.zeros_like(gradient)
        residual = -gradient
        conditioned = residual / scale
        direction = conditioned.clone()
        product = (residual * conditioned).sum(0)
        enough = 1e-4 * product
        for _ in range(_MAX_GRADIENTS):
            is_open = product > enough
            if not bool(is_open.any()):
                break
            image = direction + z.T @ (curvature * (z @ direction))
            length = torch.where(is_open, product / (direction * image).sum(0), 0.0)
            solution += length * direction
            residual = residual - length * image
            conditioned = residual / scale
            new_product = (residual * conditioned).sum(0)
            direction = conditioned + torch.where(is_open, new_product / product, 0.0) * direction
            product = torch.where(is_open, new_product, product)
        return solution


def _append_one(features: Tensor) -> Tensor:
    ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
    return torch.cat([features.double(), ones], 1)


def _decompose(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues that count, (R,), and their vectors, (n, R)."""
    energy, vectors = torch.linalg.eigh(gram)
    counts = energy > _LEAST_ENERGY * energy[-1] * len(gram)
    return energy[counts], vectors[:, counts]
