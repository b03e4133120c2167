"""Permutation sets for jigsaw puzzles by greedy Hamming selection.

The rule is that of Goyal et al. 2019: start from a random member; again and again take the
permutation whose distance to those chosen is greatest, in the mean or in the minimum; among equals
the first in lexicographic order. One running sum or minimum a permutation makes each step one pass
over the pool, so that 10,000 out of 9! take seconds. The study's sets of 100 and 701 are files by
Noroozi, which the mean does not come near: see ``JigsawConfig.selection``.

Shape legend: N permutations in the pool, Q chosen, P patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..randomness import Stream, draw_words, to_below

Selection = Literal["mean", "min"]

_MAX_PATCHES = 9
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class PermutationSet:
    """Q permutations of P patches and how far apart they are."""

    members: NDArray[np.int64]
    """(Q, P); slot j of puzzle q holds patch ``members[q, j]``."""
    mean_distance: float
    """Mean Hamming distance over all pairs, in patches; nan for one member."""
    min_distance: int
    """Smallest Hamming distance of any pair, in patches; 0 for one member."""

    def __str__(self) -> str:
        """Say what a reader of the log wants to know."""
        num, patches = self.members.shape
        return (
            f"{num} permutations of {patches} patches, Hamming distance mean "
            f"{self.mean_distance:.3f}, minimum {self.min_distance}"
        )


@lru_cache(maxsize=8)
def select_permutations(
    num_permutations: int,
    num_patches: int = 9,
    selection: Selection = "mean",
    seed: int = 0,
    has_identity: bool = True,
) -> PermutationSet:
    """Choose permutations that are far apart.

    Args:
        num_permutations: Q.
        num_patches: P, at most 9.
        selection: maximise the mean distance to those chosen, or the minimum.
        seed: of the first member.
        has_identity: whether the patches in their own order may be a member.

    Returns:
        The set; the same for the same arguments on every machine.

    Raises:
        InputError: if there are not so many permutations.
    """
    if not 2 <= num_patches <= _MAX_PATCHES:
        raise InputError(
            f"num_patches ({num_patches}) must lie in 2 .. {_MAX_PATCHES} for a set to be chosen "
            "among all permutations; set --task.grid 2 or 3, or give --task.permutations-file"
        )
    total = math.factorial(num_patches) - (not has_identity)
    if not 1 <= num_permutations <= total:
        raise InputError(
            f"num_permutations ({num_permutations}) must lie in 1 .. {num_patches}!"
            f"{'' if has_identity else ' - 1, without the identity,'} = {total}; "
            f"set --task.num-permutations to {total} or less"
        )
    if selection not in ("mean", "min"):
        raise InputError(f"selection ('{selection}') must be 'mean' or 'min'")
    # The identity is the first of all.
    pool_PN = _all_permutations(num_patches)[:, 0 if has_identity else 1 :]
    first = to_below(draw_words(seed, 0, 0, Stream.PERMUTATION_SET, 1), total)[0, 0]
    chosen = _select(pool_PN, num_permutations, selection, int(first))
    members = np.ascontiguousarray(pool_PN[:, chosen].T).astype(np.int64)
    members.setflags(write=False)
    return PermutationSet(members, *measure_distances(members))


def measure_distances(members: NDArray[np.int64]) -> tuple[float, int]:
    """Measure the pairwise Hamming distances of a set.

    Args:
        members: (Q, P).

    Returns:
        Mean over all pairs and minimum, in patches; (nan, 0) for a single member.
    """
    num, num_patches = members.shape
    if num < 2:
        return math.nan, 0
    columns = np.ascontiguousarray(members.T.astype(np.uint8))
    total, minimum = 0, num_patches
    for start in range(0, num, _ROWS_AT_ONCE):
        rows = columns[:, start : start + _ROWS_AT_ONCE]
        distances = np.zeros((rows.shape[1], num), np.uint8)
        for row, column in zip(rows, columns, strict=True):
            distances += row[:, None] != column[None]
        total += int(distances.sum(dtype=np.int64))
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = num_patches
        minimum = min(minimum, int(distances.min()))
    return total / (num * (num - 1)), minimum


def count_close_pairs(members: NDArray[np.int64], distance: int = 2) -> int:
    """Count the pairs of a set that differ in just so many patches; 2 is one swap.

    Args:
        members: (Q, P).
        distance: in patches.
    """
    rows = members.astype(np.uint8)
    return sum(
        int(((row != rows[number + 1 :]).sum(1) == distance).sum())
        for number, row in enumerate(rows)
    )


@lru_cache(maxsize=2)
def _all_permutations(num_patches: int) -> NDArray[np.uint8]:
    """All permutations in lexicographic order, (P, P!), built by prefixing each first patch."""
    rows = np.zeros((1, 1), np.uint8)
    for patches in range(2, num_patches + 1):
        tails = []
        for first in range(patches):
            # Patches from ``first`` on move up by one, which keeps the order.
            prefix = np.full((1, rows.shape[1]), first, np.uint8)
            tails.append(np.concatenate([prefix, rows + (rows >= first)]))
        rows = np.concatenate(tails, axis=1).astype(np.uint8)
    return np.ascontiguousarray(rows)


def _select(
    pool_PN: NDArray[np.uint8], num: int, selection: Selection, first: int
) -> NDArray[np.int64]:
    size = pool_PN.shape[1]
    chosen = np.empty(num, np.int64)
    is_mean = selection == "mean"
    score = np.zeros(size, np.int32) if is_mean else np.full(size, len(pool_PN) + 1, np.int32)
    latest = first
    for k in range(num):
        chosen[k] = latest
        distance = np.zeros(size, np.uint8)
        for column in pool_PN:
            distance += column != column[latest]
        if is_mean:
            score += distance
        else:
            np.minimum(score, distance, out=score)
        # A sum keeps growing, so a chosen one is put out of reach for good.
        score[latest] = np.iinfo(np.int32).min // 2 if is_mean else -1
        latest = int(score.argmax())
    return chosen
