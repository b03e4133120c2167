"""Permutation sets: the greedy rule of Goyal et al. 2019, done the slow way beside the fast one."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.tasks import JigsawConfig
from fastssl.tasks.jigsaw import LIKE_NOROOZIS_FILES, load_permutations
from fastssl.tasks.permutations import (
    count_close_pairs,
    measure_distances,
    select_permutations,
)

TASK_PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def select_slowly(num, num_patches, selection, first):
    """Recompute all distances to all chosen at every step, as the rule is written."""
    pool = [list(p) for p in itertools.permutations(range(num_patches))]
    chosen = [pool.pop(first)]
    while len(chosen) < num:
        distances = [[sum(a != b for a, b in zip(p, c, strict=True)) for c in chosen] for p in pool]
        scores = [np.mean(d) if selection == "mean" else min(d) for d in distances]
        chosen.append(pool.pop(int(np.argmax(scores))))
    return chosen


@pytest.mark.parametrize("selection", ["mean", "min"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_fast_rule_chooses_what_the_slow_one_does(selection, seed):
    fast = select_permutations(40, 4 + 1, selection, seed).members.tolist()
    first = list(itertools.permutations(range(5))).index(tuple(fast[0]))
    assert fast == select_slowly(40, 5, selection, first)


@pytest.mark.parametrize("selection", ["mean", "min"])
@pytest.mark.parametrize("num", [100, 2000])
def test_members_are_distinct_permutations(selection, num):
    members = select_permutations(num, 9, selection).members
    assert len({tuple(row) for row in members.tolist()}) == num
    assert (np.sort(members, axis=1) == np.arange(9)).all()


def test_distances_are_those_of_all_pairs():
    members = select_permutations(60, 6, "min").members
    pairs = [(a != b).sum() for a, b in itertools.combinations(members, 2)]
    mean, minimum = measure_distances(members)
    assert mean == pytest.approx(np.mean(pairs))
    assert minimum == min(pairs)


def test_maximising_the_minimum_keeps_permutations_apart():
    by_mean, by_min = (select_permutations(100, 9, rule) for rule in ("mean", "min"))
    assert by_min.min_distance > by_mean.min_distance
    assert by_mean.mean_distance >= by_min.mean_distance


def test_the_hundred_by_mean_are_as_far_apart_as_the_published_ones():
    """Noroozi's set of 100: mean 8.08 (protocol fact)."""
    assert select_permutations(100).mean_distance == pytest.approx(8.08, abs=0.01)


def read_row(name):
    """Return what docs/tasks.md says of a set: mean, smallest, pairs one swap apart, identity."""
    page = TASK_PAGE.read_text(encoding="ascii")
    row = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", page, re.MULTILINE).group(1)
    mean, smallest, swaps, identity = (cell.strip() for cell in row.split("|"))
    return float(mean), int(smallest), int(swaps.replace(",", "")), identity == "yes"


@pytest.mark.parametrize("num", [100, 701])
@pytest.mark.parametrize("rule", ["mean", "minimum"])
def test_the_docs_say_how_far_apart_sets_are(num, rule):
    changes = LIKE_NOROOZIS_FILES if rule == "minimum" else {}
    chosen = load_permutations(JigsawConfig(num_permutations=num, **changes))
    mean, smallest, swaps, identity = read_row(f"{num} by the {rule}")
    assert chosen.mean_distance == pytest.approx(mean, abs=0.005)
    assert (chosen.min_distance, count_close_pairs(chosen.members)) == (smallest, swaps)
    assert (chosen.members == np.arange(9)).all(axis=1).any() == identity


@pytest.mark.parametrize("num", [100, 701])
def test_sets_for_noroozis_rows_are_no_closer_than_his_files(num):
    """His sets have 5 and no pairs one swap apart, no identity (computed from the files)."""
    _, smallest, swaps, identity = read_row(f"{num} by the minimum")
    _, smallest_of_file, swaps_of_file, identity_of_file = read_row(f"Noroozi's file of {num}")
    assert smallest >= smallest_of_file
    assert swaps <= swaps_of_file
    assert identity is identity_of_file is False


def test_without_the_identity_all_others_can_be_chosen():
    members = select_permutations(23, 4, has_identity=False).members.tolist()
    assert [0, 1, 2, 3] not in members
    assert len({tuple(row) for row in members}) == 23
    with pytest.raises(InputError, match=r"4! - 1, without the identity, = 23; .* to 23 or less"):
        select_permutations(24, 4, has_identity=False)


@pytest.mark.parametrize("form", [JigsawConfig.noroozi(), JigsawConfig.kolesnikov()])
def test_forms_that_were_published_with_noroozis_file_take_the_minimum(form):
    assert (form.num_permutations, form.selection, form.has_identity) == (100, "min", False)


def test_seeds_choose_other_sets():
    first = [tuple(select_permutations(10, 9, "mean", seed).members[0]) for seed in range(4)]
    assert len(set(first)) == 4


def test_all_permutations_can_be_chosen():
    assert len(select_permutations(24, 4).members) == 24


def test_one_member_has_no_distance():
    chosen = select_permutations(1, 4)
    assert math.isnan(chosen.mean_distance)
    assert chosen.min_distance == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((25, 4), r"num_permutations \(25\) must lie in 1 \.\. 4! = 24"),
        ((0, 4), r"num_permutations \(0\)"),
        ((10, 16), r"num_patches \(16\)"),
        ((10, 4, "max"), "must be 'mean' or 'min'"),
    ],
)
def test_sets_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        select_permutations(*arguments)
