"""Utility of pretraining by cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.evaluation import utility

COUNTS = [100, 200, 1000]


def test_the_count_is_read_off_between_two_points_linearly():
    found = utility(COUNTS, [[50, 60, 80]], [[55, 70, 80]])
    # 55 takes 150 labels from scratch, 70 takes 600, 80 takes 1000.
    np.testing.assert_allclose(found.values, [[0.5, 2.0, 0.0]])
    assert not found.is_bound.any()


def test_the_scratch_curve_is_the_mean_of_its_seeds():
    found = utility(COUNTS, [[40, 50, 70], [60, 70, 90]], [55, 70, 80])
    np.testing.assert_allclose(found.values, [[0.5, 2.0, 0.0]])


def test_less_than_the_first_point_takes_no_labels():
    found = utility(COUNTS, [50, 60, 80], [49.9, 50, 49])
    np.testing.assert_allclose(found.values, [[-1.0, -0.5, -1.0]])


def test_more_than_the_maximum_is_a_bound_at_its_count():
    found = utility(COUNTS, [50, 80, 70], [90, 80, 80.1])
    np.testing.assert_allclose(found.values, [[1.0, 0.0, 200 / 1000 - 1]])
    assert found.is_bound.tolist() == [[True, False, True]]


def test_the_first_crossing_counts_where_scratch_falls_and_rises():
    found = utility([100, 200, 300, 400], [50, 70, 40, 90], [60, 70, 60, 80])
    np.testing.assert_allclose(found.values, [[0.5, 0.0, 150 / 300 - 1, 380 / 400 - 1]])


def test_a_plateau_is_reached_at_its_first_count():
    found = utility(COUNTS, [50, 50, 80], [50, 50, 50])
    np.testing.assert_allclose(found.values, [[0.0, -0.5, -0.9]])


def test_each_seed_has_its_own_value_then_mean_and_deviation():
    found = utility(COUNTS, [50, 60, 80], [[55, 60, 80], [60, 60, 90]])
    np.testing.assert_allclose(found.values, [[0.5, 0.0, 0.0], [1.0, 0.0, 0.0]])
    # A seed beyond the maximum counts with its bound, as its mean with the others.
    assert found.is_bound.tolist() == [[False, False, False], [False, False, True]]
    np.testing.assert_allclose(found.mean, [0.75, 0.0, 0.0])
    np.testing.assert_allclose(found.std, [0.25, 0.0, 0.0])


def test_a_trunk_that_is_worth_nothing_has_utility_zero():
    rng = np.random.default_rng(0)
    curve = np.sort(rng.random(8))
    counts = np.unique(rng.integers(1, 10**5, 8))
    np.testing.assert_allclose(utility(counts, curve, curve).values, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "counts"),
        (([100, 100], [1, 2], [1, 2]), "counts"),
        (([0, 100], [1, 2], [1, 2]), "counts"),
        (([1.5, 100], [1, 2], [1, 2]), "counts"),
        (([1, 2], [1, 2, 3], [1, 2]), r"scratch \(3,\) must be \(seeds, 2\)"),
        (([1, 2], [1, 2], [[1, 2], [1, np.nan]]), "finetuned must be finite"),
        (([1, 2], np.empty((0, 2)), [1, 2]), "scratch"),
    ],
)
def test_what_is_no_curve_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        utility(*arguments)


def test_fine_tuning_may_have_other_counts():
    found = utility(COUNTS, [50, 60, 80], [[55, 70]], [50, 600])
    np.testing.assert_allclose(found.values, [[2.0, 0.0]])
    assert found.counts.tolist() == [50, 600]


def test_the_grey_region_begins_where_scratch_is_best():
    found = utility(COUNTS, [50, 80, 70], [60, 60, 60])
    assert found.best_count == 200
    np.testing.assert_allclose(found.ceiling, [1.0, 0.0, -0.8])
