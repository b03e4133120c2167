"""k nearest neighbours by cosine: what a trunk's features are worth without training anything.

Shape legend: N samples, M of the bank, D features, K neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from .accuracy import summarize_parts
from .splits import Split, split_by_group


@dataclass(frozen=True)
class KnnResult(Documented):
    """What k nearest neighbours reach."""

    accuracy: float
    """Share of test samples classified rightly, 0 .. 1."""
    per_class: dict[int, float]
    """The same by class, for the classes that the test side holds."""
    num_train: int
    """Samples of the bank."""
    num_test: int
    """Samples classified."""
    k: int
    """Neighbours that voted."""
    top5: float | None
    """Share of test samples whose class has one of the five greatest votes; None where there are at
    most five classes."""


@torch.no_grad()
def _find_neighbours(
    queries_ND: Tensor, bank_MD: Tensor, k: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return cosines and rows of the k nearest, each (N, K), holding chunk x 16 chunk at a time."""
    cosines, rows = [], []
    bank_chunk = min(16 * chunk, len(bank_MD))
    # One room for all products: fresh memory costs a tenth of the time that fills it.
    room = torch.empty(min(chunk, len(queries_ND)) * bank_chunk, device=queries_ND.device)
    for query in queries_ND.split(chunk):
        best = torch.empty(len(query), 0, device=query.device)
        best_rows = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
        start = 0
        for part in bank_MD.split(bank_chunk):
            product = room[: len(query) * len(part)].view(len(query), len(part))
            near, at = torch.mm(query, part.T, out=product).topk(min(k, len(part)))
            best, best_rows = torch.cat([best, near], 1), torch.cat([best_rows, at + start], 1)
            best, order = best.topk(min(k, best.shape[1]))
            best_rows = best_rows.gather(1, order)
            start += len(part)
        cosines.append(best)
        rows.append(best_rows)
    return torch.cat(cosines), torch.cat(rows)


def find_neighbours(queries: Tensor, bank: Tensor, k: int, chunk: int = 1024) -> Tensor:
    """Return the rows of a bank that lie nearest to each query by cosine, the nearest first.

    Args:
        queries: float (N, D) on any device.
        bank: float (M, D) on the same device.
        k: neighbours; the whole bank where it holds fewer.
        chunk: queries at a time.

    Returns:
        int64 (N, min(k, M)).
    """
    queries = functional.normalize(queries.float(), dim=1)
    bank = functional.normalize(bank.float(), dim=1)
    return _find_neighbours(queries, bank, k, chunk)[1]


def classify_by_neighbours(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float | None = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Let the k nearest of a bank vote on each query.

    Neighbours are nearest by cosine. With a temperature T a vote weighs exp(cosine / T) (Wu et al.
    2018, "Unsupervised feature learning via non-parametric instance discrimination", 3.4); without
    one each vote counts the same. Among classes with equal votes the lowest number wins.

    Args:
        queries: float (N, D) on any device.
        bank: float (M, D) on the same device.
        bank_labels: int64 (M,), each at least 0.
        k: neighbours, at least 1; the whole bank where it holds fewer.
        temperature: T above 0, or None for plain votes.
        chunk: queries at a time; memory is about 64 chunk**2 bytes, whatever N and M.

    Returns:
        int64 (N,), the class of each query.

    Raises:
        InputError: if shapes do not fit, the bank is empty or unlabelled, or a number is out of
            range.
    """
    _check(queries, bank, bank_labels, k, temperature, chunk)
    bank = functional.normalize(bank.float(), dim=1)
    num_classes = int(bank_labels.max()) + 1
    guesses = []
    for part in queries.split(chunk):
        totals = _count_votes(part, bank, bank_labels, num_classes, k, temperature, chunk)
        # argmax may return any of several equal ones; this returns the first.
        is_best = totals == totals.max(1, keepdim=True).values
        guesses.append(is_best.to(torch.int8).argmax(1))
    return torch.cat(guesses)


def _count_votes(
    queries_ND: Tensor,
    bank_MD: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int,
    temperature: float | None,
    chunk: int,
) -> Tensor:
    """Return the votes for each class, float64 (N, C); rows of the bank have length 1."""
    queries = functional.normalize(queries_ND.float(), dim=1)
    cosines_NK, rows_NK = _find_neighbours(queries, bank_MD, k, chunk)
    if temperature is None:
        votes_NK = torch.ones_like(cosines_NK)
    else:
        # The nearest weighs 1: no overflow however small T is, and the ranking stays.
        votes_NK = ((cosines_NK - cosines_NK[:, :1]) / temperature).exp()
    labels_NK = bank_labels.to(rows_NK.device)[rows_NK]
    # In double, so that whole votes add up exactly and weighted ones tie only if they are equal.
    totals_NC = torch.zeros(len(queries), num_classes, dtype=torch.float64, device=queries.device)
    return totals_NC.scatter_add_(1, labels_NK, votes_NK.double())


def evaluate_knn(
    features: Tensor,
    labels: Tensor,
    groups: Sequence[str] | ArrayLike,
    k: int = 20,
    temperature: float | None = 0.07,
    test_share: float = 0.2,
    seed: int = 0,
    split: Split | None = None,
) -> KnnResult:
    """Classify the held-out groups of a labelled set by their neighbours among the others.

    Args:
        features: float (N, D).
        labels: int64 (N,); rows with -1 take no part.
        groups: (N,) names; no group is on both sides. Ids give a plain stratified split.
        k: neighbours.
        temperature: of the votes' weights; None for plain votes.
        test_share: of the groups of each class.
        seed: of the split.
        split: the split itself, in place of ``groups``, ``test_share`` and ``seed``.

    Returns:
        Accuracy over all test samples and by class.

    Raises:
        InputError: if there is nothing to split or an argument is out of range.
    """
    split = split or split_by_group(labels.cpu().numpy(), groups, test_share, seed)
    train, test = torch.from_numpy(split.train), torch.from_numpy(split.test)
    return measure_neighbours(
        features[test], labels[test], features[train], labels[train], k, temperature
    )


def measure_neighbours(
    queries: Tensor,
    labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float | None = 0.07,
    chunk: int = 1024,
) -> KnnResult:
    """Classify queries as ``classify_by_neighbours`` does, and compare with their labels.

    Args:
        queries: float (N, D).
        labels: int64 (N,) of the queries; -1 takes no part.
        bank: float (M, D) on the same device.
        bank_labels: int64 (M,), each at least 0.
        k: neighbours.
        temperature: of the votes' weights; None for plain votes.
        chunk: queries at a time.

    Returns:
        Accuracy over all queries and by class.

    Raises:
        InputError: as ``classify_by_neighbours``, or if no query has a label.
    """
    _check(queries, bank, bank_labels, k, temperature, chunk)
    if len(queries) != len(labels):
        raise InputError(f"queries ({len(queries)}) and labels ({len(labels)}) differ in number")
    bank = functional.normalize(bank.float(), dim=1)
    num_classes = 1 + max(int(bank_labels.max()), int(labels.max()) if len(labels) else 0)
    found = summarize_parts(
        (_count_votes(part, bank, bank_labels, num_classes, k, temperature, chunk), truth)
        for part, truth in zip(queries.split(chunk), labels.split(chunk), strict=True)
    )
    return KnnResult(
        found.top1, found.per_class, len(bank), found.num_samples, min(k, len(bank)), found.top5
    )


def _check(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int,
    temperature: float | None,
    chunk: int,
) -> None:
    if queries.dim() != 2 or bank.dim() != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(
            f"queries {tuple(queries.shape)} and bank {tuple(bank.shape)} must be (N, D) and (M, D)"
        )
    if len(bank) == 0 or len(bank) != len(bank_labels) or int(bank_labels.min()) < 0:
        raise InputError(
            f"bank_labels {tuple(bank_labels.shape)} must name a class from 0 for each of the "
            f"{spell_number(len(bank), 'row')} of the bank, at least one; leave out rows without a "
            "label"
        )
    if k < 1 or chunk < 1 or (temperature is not None and temperature <= 0):
        raise InputError(
            f"k ({k}), chunk ({chunk}) and temperature ({temperature}) must be positive"
        )
