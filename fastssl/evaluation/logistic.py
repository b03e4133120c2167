"""Multinomial logistic regression on frozen features by L-BFGS (Kolesnikov et al. 2019, 3.3).

It minimises, over weights W and biases b,

    mean_i -log softmax(W x_i + b)[y_i] + penalty |W|^2

The biases are not penalised, so subtracting the features' mean changes nothing but the biases; it
is done on the way, because L-BFGS needs fewer updates then.

Shape legend: N samples, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..fields import Documented
from .accuracy import Accuracy, summarize_parts

MAX_UPDATES = 800
"""Of L-BFGS, as in Kolesnikov et al. 2019."""

_CHUNK_BYTES = 2**28
"""What the products of a chunk of samples may take."""
_MEMORY = 10
"""Pairs that L-BFGS remembers: scipy's default."""


@dataclass(frozen=True)
class LogisticResult(Documented):
    """A classifier, and how far its fit went."""

    weights: NDArray[np.float64]
    """(C, D)."""
    bias: NDArray[np.float64]
    """(C,)."""
    penalty: float
    """Factor of the sum of squared weights beside the mean loss."""
    objective: float
    """Mean loss and penalty where it ended."""
    gradient_norm: float
    """Length of the objective's gradient there."""
    num_updates: int
    """Updates of L-BFGS."""
    has_converged: bool
    """Whether it ended because the gradient or the progress were small enough, and not because the
    updates were spent."""
    num_train: int
    """Samples with a label."""

    def score(self, features: ArrayLike | Tensor) -> Tensor:
        """Return the logits, (N, C), for features (N, D), on their device and in their precision.

        Raises:
            InputError: if the features have another width.
        """
        features = torch.as_tensor(features)
        if features.dim() != 2 or features.shape[1] != self.weights.shape[1]:
            raise InputError(
                f"features {tuple(features.shape)} must be (N, {self.weights.shape[1]}), as those "
                "fitted"
            )
        features = features if features.dtype == torch.float64 else features.float()
        weights = torch.from_numpy(self.weights).to(features)
        return torch.addmm(torch.from_numpy(self.bias).to(features), features, weights.T)

    def measure(self, features: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> Accuracy:
        """Return the accuracy on features (N, D) with labels (N,), -1 taking no part.

        Raises:
            InputError: if shapes do not fit, no sample has a label, or a label is a class that was
                not fitted.
        """
        features, truth = torch.as_tensor(features), torch.as_tensor(labels)
        if len(features) != len(truth):
            raise InputError(f"features ({len(features)}) and labels ({len(truth)}) differ")
        chunk = _choose_chunk(len(self.bias), features.shape[-1])
        return summarize_parts(
            (self.score(part), own)
            for part, own in zip(features.split(chunk), truth.split(chunk), strict=True)
        )


def fit_logistic(
    features: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    penalty: float | None = None,
    max_updates: int = MAX_UPDATES,
    tolerance: float = 1e-5,
    device: str | torch.device | None = None,
) -> LogisticResult:
    """Fit a multinomial logistic regression by L-BFGS.

    Args:
        features: float (N, D), used as they are. On a GPU float64 computes in that, any other in
            float32, with losses and gradients of chunks added up in float64; on a CPU all do in
            float64, where rounding never ends a line search.
        labels: integers (N,), a class from 0 each; -1 takes no part. Each class up to the greatest
            needs a sample.
        penalty: factor of the sum of squared weights beside the mean loss, above 0; None takes
            100 / (D C), as Kolesnikov et al. 2019 do.
        max_updates: of L-BFGS.
        tolerance: ends when no entry of the gradient is greater than this share of the greatest
            one at the start, where all is 0.
        device: where it computes, to which chunks of the features are moved; None takes theirs.

    Returns:
        The classifier.

    Raises:
        InputError: if shapes do not fit, features are not finite or all alike, fewer than two
            classes have samples or one between them has none, or a number is out of range.
    """
    features, truth = torch.as_tensor(features), torch.as_tensor(labels)
    num_classes = _check(features, truth, penalty, max_updates, tolerance)
    width = features.shape[1]
    if penalty is None:
        penalty = 100 / (width * num_classes)
    loss = _Objective(
        features, truth, num_classes, penalty, torch.device(device or features.device)
    )
    parameters = torch.zeros(
        num_classes * (width + 1), dtype=torch.float64, device=loss.device, requires_grad=True
    )
    _, steepest = loss(parameters.detach())
    # torch's own, not scipy's: that one's bookkeeping took 36 ms an update where the products took
    # 2 ms (13,000 parameters, one thread), and it ends at the same objective.
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_updates,
        max_eval=10 * max_updates,
        tolerance_grad=tolerance * float(steepest.abs().max()),
        # The gradient decides; this is where float64 makes no more progress.
        tolerance_change=1e-13,
        history_size=_MEMORY,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        value, parameters.grad = loss(parameters.detach())
        return value

    optimizer.step(evaluate)
    solved = parameters.detach()
    objective, gradient = loss(solved)
    num_updates = int(optimizer.state[parameters]["n_iter"])
    weights, bias = solved[:-num_classes].view(num_classes, width), solved[-num_classes:]
    return LogisticResult(
        weights.cpu().numpy(),
        (bias - weights @ loss.mean_D).cpu().numpy(),
        penalty,
        objective.item(),
        float(gradient.norm()),
        num_updates,
        num_updates < max_updates,
        loss.num_labelled,
    )


class _Objective:
    """Objective and gradient at W and the biases of centred features, flat in float64."""

    def __init__(
        self,
        features_ND: Tensor,
        labels_N: Tensor,
        num_classes: int,
        penalty: float,
        device: torch.device,
    ) -> None:
        self._features_ND = features_ND
        self._labels_N = labels_N.to(device, torch.int64)
        self._num_classes = num_classes
        self._penalty = penalty
        self.device = device
        is_double = features_ND.dtype == torch.float64 or device.type == "cpu"
        self._dtype = torch.float64 if is_double else torch.float32
        self._chunk = _choose_chunk(num_classes, features_ND.shape[1])
        self.num_labelled = int((labels_N >= 0).sum())
        total = torch.zeros(features_ND.shape[1], dtype=torch.float64, device=device)
        for part, labels in self._parts():
            total += part[labels >= 0].sum(0, dtype=torch.float64)
        self.mean_D = total / self.num_labelled
        """float64, of the samples with a label."""
        if not bool(torch.isfinite(self.mean_D).all()):
            raise InputError("features (NaN or infinite in some sample) must be finite")
        if all(bool((part == features_ND[0].to(part)).all()) for part, _ in self._parts()):
            raise InputError(
                "features (the same for every sample) tell nothing apart; check the trunk and its "
                "input"
            )

    def __call__(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective and its gradient, for parameters in float64 on the device."""
        num_classes = self._num_classes
        weights, bias = given[:-num_classes].view(num_classes, -1), given[-num_classes:]
        shifted = (bias - weights @ self.mean_D).to(self._dtype)
        rounded = weights.to(self._dtype)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        pull_CD = torch.zeros_like(weights)
        pull_C = torch.zeros_like(bias)
        for part, labels in self._parts():
            is_labelled = labels >= 0
            logs = torch.addmm(shifted, part, rounded.T).log_softmax(1)
            own = labels.clamp_min(0)[:, None]
            loss -= (logs.gather(1, own)[:, 0] * is_labelled).sum(dtype=torch.float64)
            rest = logs.exp_()
            rest.scatter_add_(1, own, torch.full_like(rest[:, :1], -1))
            rest *= is_labelled[:, None]
            pull_CD += rest.T @ part
            pull_C += rest.sum(0, dtype=torch.float64)
        pull_CD -= pull_C[:, None] * self.mean_D
        gradient = pull_CD.div_(self.num_labelled).add_(weights, alpha=2 * self._penalty)
        value = loss / self.num_labelled + self._penalty * weights.square().sum()
        return value, torch.cat([gradient.flatten(), pull_C / self.num_labelled])

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and labels chunk by chunk, where and as they are computed on."""
        for part, labels in zip(
            self._features_ND.split(self._chunk), self._labels_N.split(self._chunk), strict=True
        ):
            yield part.to(self.device, self._dtype), labels


def _choose_chunk(num_classes: int, width: int) -> int:
    return max(1, _CHUNK_BYTES // (8 * (2 * num_classes + width)))


def _check(
    features: Tensor, labels: Tensor, penalty: float | None, max_updates: int, tolerance: float
) -> int:
    """Refuse what cannot be fitted; return the number of classes."""
    if features.dim() != 2 or labels.shape != features.shape[:1] or not features.numel():
        raise InputError(
            f"features {tuple(features.shape)} and labels {tuple(labels.shape)} must be (N, D) and "
            "(N,)"
        )
    if labels.is_floating_point() or int(labels.min()) < -1:
        raise InputError(f"labels ({labels.min().item()}) must be whole numbers from -1 on")
    if penalty is not None and not 0 < penalty < np.inf:
        raise InputError(f"penalty ({penalty}) must be above 0; leave it out for 100 / (D C)")
    if max_updates < 1 or not 0 < tolerance < 1:
        raise InputError(
            f"max_updates ({max_updates}) must be at least 1, tolerance ({tolerance}) above 0 and "
            "below 1"
        )
    numbers = torch.bincount(labels[labels >= 0].long().cpu())
    lacking = (numbers == 0).nonzero()[:, 0].tolist()
    if len(numbers) < 2 or lacking:
        raise InputError(
            f"labels (classes 0 .. {len(numbers) - 1}, none of {lacking[:1] or 'another'}) must "
            "have a sample of each class, of two at least; number the classes that there are"
        )
    return len(numbers)
