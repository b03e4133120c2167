"""Split labelled samples into train and test, by group, and take a share of the labels.

Shape legend: N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..randomness import Stream, draw_words


@dataclass(frozen=True)
class Split(Documented):
    """Rows of the two sides."""

    train: NDArray[np.int64]
    """Rows, ascending."""
    test: NDArray[np.int64]
    """Rows, ascending."""


def split_by_group(
    labels: ArrayLike,
    groups: Sequence[str] | ArrayLike,
    test_share: float = 0.2,
    seed: int = 0,
) -> Split:
    """Hold out a share of the groups of every class.

    A pure function of its arguments that does not depend on the order of the rows. A class with one
    group stays on the training side. Give each sample a group of its own (its id, say) for a plain
    stratified split.

    Args:
        labels: (N,) integers; rows with -1 are on neither side.
        groups: (N,) names or numbers; rows of one group and class stay together.
        test_share: of the groups of a class, rounded, at least one, never all; above 0, below 1.
        seed: of the choice, 0 .. 2**64 - 1.

    Returns:
        The rows of both sides.

    Raises:
        InputError: if the lengths differ, a group has two classes, the share is out of range, or
            one side would be empty.
    """
    labels, groups = np.asarray(labels, np.int64), np.asarray(groups)
    if len(labels) != len(groups):
        raise InputError(f"labels ({len(labels)}) and groups ({len(groups)}) differ in number")
    if not 0 < test_share < 1:
        raise InputError(f"test_share ({test_share}) must lie above 0 and below 1, such as 0.2")
    _check_groups(labels, groups)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        names, group_of_row = np.unique(groups[rows], return_inverse=True)
        keys = draw_words(seed, int(label), np.arange(len(names)), Stream.SPLIT, 1)[:, 0]
        num_test = min(max(1, round(test_share * len(names))), len(names) - 1)
        held_out = np.argsort(keys, kind="stable")[:num_test]
        is_test[rows] = np.isin(group_of_row, held_out)
    train, test = np.flatnonzero(~is_test & (labels >= 0)), np.flatnonzero(is_test)
    if not len(train) or not len(test):
        is_grouped = len(np.unique(groups)) < len(labels)
        raise InputError(
            f"the split has {spell_number(len(train), 'sample')} to train on and {len(test)} to "
            "test on; label more samples, at least two of a class"
            f"{', from two groups' if is_grouped else ''}"
        )
    return Split(train, test)


def label_subset(labels: ArrayLike, share: float, seed: int = 0) -> NDArray[np.int64]:
    """Choose a share of the labelled rows of every class.

    A pure function of its arguments. The rows of a smaller share are among those of a greater: each
    class is shuffled once for a seed, and a share is the beginning of it.

    Args:
        labels: (N,) integers; rows with -1 are never chosen.
        share: of the rows of a class, rounded, at least one; above 0, at most 1.
        seed: of the choice, 0 .. 2**64 - 1.

    Returns:
        Rows, ascending.

    Raises:
        InputError: if the share is out of range, or no row has a label.
    """
    labels = np.asarray(labels, np.int64)
    if not 0 < share <= 1:
        raise InputError(f"share ({share}) must lie above 0, up to 1, such as 0.1")
    if not (labels >= 0).any():
        raise InputError("labels (none) must name the class of one row at least")
    chosen = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        # The second draw: the first one is split_by_group's, which would choose the same rows.
        keys = draw_words(seed, int(label), np.arange(len(rows)), Stream.SPLIT, 1, first=1)[:, 0]
        num = max(1, round(share * len(rows)))
        chosen.append(rows[np.argsort(keys, kind="stable")[:num]])
    return np.sort(np.concatenate(chosen))


def first_labels(ids: ArrayLike, num: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose the first samples of one shuffle: those of a smaller number are among a greater's.

    A pure function of its arguments; whether a sample comes before another depends on their ids and
    the seed alone. Classes are not balanced (Newell and Deng 2020).

    Args:
        ids: (N,) integers, the samples that there are.
        num: how many of them, up to N.
        seed: of the shuffle, 0 .. 2**64 - 1.

    Returns:
        Ids, ascending.

    Raises:
        InputError: if there are not so many.
    """
    ids = np.asarray(ids, np.int64)
    if not 0 < num <= len(ids):
        raise InputError(f"num ({num}) must lie in 1 .. {len(ids)}, the samples that there are")
    # The third draw: the first two are split_by_group's and label_subset's.
    keys = draw_words(seed, 0, ids, Stream.SPLIT, 1, first=2)[:, 0]
    return np.sort(ids[np.lexsort((ids, keys))[:num]])


def _check_groups(labels: NDArray[np.int64], groups: NDArray) -> None:
    """Raise if a group has samples of two classes: it could be on both sides."""
    labelled = labels >= 0
    _, group_of_row = np.unique(groups[labelled], return_inverse=True)
    pairs = np.unique(np.stack([group_of_row, labels[labelled]]), axis=1)
    owners = np.bincount(pairs[0]) if pairs.size else np.zeros(1, int)
    if owners.max(initial=0) > 1:
        row = np.flatnonzero(group_of_row == owners.argmax())[0]
        raise InputError(
            f"group '{groups[labelled][row]}' has samples of {owners.max()} classes; "
            "make the class a part of the group's name"
        )
