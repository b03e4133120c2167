from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.evaluation import label_subset, split_by_group

LABELS = np.repeat(np.arange(3), 40)
GROUPS = np.array([f"{label}-{i % 8}" for i, label in enumerate(LABELS)])


def test_no_group_is_on_both_sides():
    split = split_by_group(LABELS, GROUPS)
    assert not set(GROUPS[split.train]) & set(GROUPS[split.test])


def test_every_labelled_row_is_on_one_side():
    labels = LABELS.copy()
    labels[5:9] = -1
    split = split_by_group(labels, GROUPS)
    rows = np.concatenate([split.train, split.test])
    assert sorted(rows) == np.flatnonzero(labels >= 0).tolist()


def test_share_of_groups_is_held_out_in_every_class():
    split = split_by_group(LABELS, GROUPS, 0.25)
    held_out = {
        label: len(set(GROUPS[split.test][LABELS[split.test] == label])) for label in range(3)
    }
    assert held_out == {0: 2, 1: 2, 2: 2}


def test_split_follows_the_groups_not_the_order_of_rows():
    order = np.random.default_rng(1).permutation(120)
    straight, shuffled = (
        split_by_group(LABELS, GROUPS),
        split_by_group(LABELS[order], GROUPS[order]),
    )
    assert set(order[shuffled.test]) == set(straight.test)


def test_seeds_hold_out_other_groups():
    sides = {tuple(split_by_group(LABELS, GROUPS, seed=seed).test) for seed in range(5)}
    assert len(sides) == 5


def test_class_with_one_group_stays_in_training():
    split = split_by_group([0, 0, 1, 1, 1], ["a", "b", "c", "c", "c"])
    assert set(split.train) >= {2, 3, 4}


def test_ids_as_groups_give_a_stratified_split():
    split = split_by_group(LABELS, np.arange(120))
    assert np.bincount(LABELS[split.test]).tolist() == [8, 8, 8]


def test_group_of_two_classes_is_refused():
    with pytest.raises(InputError, match="group 'a' has samples of 2 classes"):
        split_by_group([0, 1, 1], ["a", "a", "b"])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="test_share"):
        split_by_group(LABELS, GROUPS, share)


@pytest.mark.parametrize("labels", [[-1, -1], [0, 1]])
def test_nothing_to_hold_out_is_refused(labels):
    with pytest.raises(InputError, match="at least two of a class"):
        split_by_group(labels, ["a", "b"])


def test_groups_are_spoken_of_where_there_are_some():
    with pytest.raises(InputError, match=r"at least two of a class$"):
        split_by_group([0, 1], [0, 1])
    with pytest.raises(InputError, match=r"at least two of a class, from two groups$"):
        split_by_group([0, 0, 1], ["a", "a", "b"])


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match="differ in number"):
        split_by_group([0, 1], ["a"])


def test_subset_takes_a_share_of_every_class():
    labels = LABELS.copy()
    labels[::10] = -1
    rows = label_subset(labels, 0.1)
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
    assert (np.diff(rows) > 0).all()
    assert label_subset(labels, 1).tolist() == np.flatnonzero(labels >= 0).tolist()


def test_smaller_subsets_lie_in_greater_ones():
    subsets = [set(label_subset(LABELS, share, 3)) for share in (0.01, 0.05, 0.1, 0.5, 1)]
    assert all(small <= great for small, great in itertools.pairwise(subsets))
    assert len(subsets[0]) == 3  # one of each class


def test_subsets_of_other_seeds_and_the_split_are_independent():
    subsets = {tuple(label_subset(LABELS, 0.2, seed)) for seed in range(5)}
    held_out = {tuple(split_by_group(LABELS, np.arange(120), 0.2, seed).test) for seed in range(5)}
    assert len(subsets | held_out) == 10
    assert tuple(label_subset(LABELS, 0.2, 4)) in subsets


@pytest.mark.parametrize(("labels", "share"), [(LABELS, 0), (LABELS, 1.1), ([-1, -1], 0.5)])
def test_subset_of_nothing_is_refused(labels, share):
    with pytest.raises(InputError, match="must"):
        label_subset(labels, share)
