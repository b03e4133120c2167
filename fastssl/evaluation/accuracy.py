"""How often the right class has the greatest score, or one of the five greatest.

Shape legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..fields import Documented
from ..tasks.base import rank_own


@dataclass(frozen=True)
class Accuracy(Documented):
    """Shares of samples whose own class is among the best, 0 .. 1."""

    top1: float
    """Its own class has the greatest score."""
    top5: float | None
    """Its own class has one of the five greatest; None where there are at most five classes."""
    per_class: dict[int, float]
    """``top1`` by class, for the classes that a sample has."""
    num_samples: int
    """Samples with a label."""


def measure_accuracy(scores: Tensor, labels: Tensor) -> Accuracy:
    """Compare scores with labels. Of equal scores that of the lowest class is the greater.

    Args:
        scores: (N, C), greater for what is more likely.
        labels: int64 (N,), a class each; -1 takes no part.

    Returns:
        The shares.

    Raises:
        InputError: if shapes differ, a score is not a number, a label is no class, or no sample has
            a label.
    """
    return summarize_parts([(scores, labels)])


def summarize_parts(parts: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Do as ``measure_accuracy`` for scores and labels that come in parts, one at a time."""
    ranks, truths, num_classes = [], [], 0
    for scores, labels in parts:
        labels = labels.to(scores.device)
        num_classes = scores.shape[-1]
        _check(scores, labels)
        is_labelled = labels >= 0
        ranks.append(rank_own(scores[is_labelled], labels[is_labelled]).cpu())
        truths.append(labels[is_labelled].cpu())
    if not sum(map(len, truths)):
        raise InputError("labels (none) must name the class of one sample at least")
    return summarize_ranks(torch.cat(ranks), torch.cat(truths), num_classes)


def summarize_ranks(rank: Tensor, truth: Tensor, num_classes: int) -> Accuracy:
    """Return the shares for samples whose own classes' ranks are known.

    Args:
        rank: int64 (N,), N above 0, from ``rank_own``.
        truth: int64 (N,), the class of each.
        num_classes: C.
    """
    numbers = torch.bincount(truth, minlength=num_classes)
    hits = torch.bincount(truth[rank == 0], minlength=num_classes).double()
    return Accuracy(
        (rank == 0).double().mean().item(),
        (rank < 5).double().mean().item() if num_classes > 5 else None,
        {c: (hits[c] / numbers[c]).item() for c in numbers.nonzero()[:, 0].tolist()},
        len(truth),
    )


def _check(scores: Tensor, labels: Tensor) -> None:
    if scores.dim() != 2 or labels.shape != scores.shape[:1]:
        raise InputError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must be (N, C) and (N,)"
        )
    if bool(scores.isnan().any()):
        raise InputError(f"scores ({int(scores.isnan().sum())} of them) must be numbers")
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise InputError(
            f"labels ({int(labels.min())} .. {int(labels.max())}) must lie in -1 .. "
            f"{scores.shape[1] - 1}, the classes that have scores"
        )
