"""The bins of colorization and what a pixel of each counts."""

from __future__ import annotations

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.ops import color_bins, rebalance_bins

# For each a of the published 313 points the first and the last b (Zhang et al. 2016).
PUBLISHED = {
    -90: (50, 90),
    -80: (20, 90),
    -70: (0, 90),
    -60: (-20, 90),
    -50: (-30, 100),
    -40: (-40, 100),
    -30: (-50, 100),
    -20: (-50, 100),
    -10: (-60, 100),
    0: (-70, 100),
    10: (-80, 90),
    20: (-80, 90),
    30: (-90, 90),
    40: (-100, 90),
    50: (-100, 80),
    60: (-110, 80),
    70: (-110, 80),
    80: (-110, 70),
    90: (-110, 70),
    100: (-90, 0),
}


def test_the_bins_of_grid_10_are_the_published_ones():
    wanted = [(a, b) for a, (low, high) in PUBLISHED.items() for b in range(low, high + 1, 10)]
    bins = color_bins(10)
    assert bins.dtype == np.float32
    assert len(wanted) == 313
    assert [(int(a), int(b)) for a, b in bins] == wanted


@pytest.mark.parametrize(("grid", "count"), [(5, 1083), (15, 159), (20, 101)])
def test_other_grids_have_points_of_their_own_step(grid, count):
    bins = color_bins(grid)
    assert bins.shape == (count, 2)
    assert (bins % grid == 0).all()
    assert len(np.unique(bins, axis=0)) == count


def test_a_caller_cannot_change_the_bins_of_the_next():
    color_bins(10)[:] = 0
    assert color_bins(10).any()


def test_rare_colours_count_more_and_the_mean_under_the_prior_is_one():
    prior = np.random.default_rng(0).random(313) ** 4
    weights = rebalance_bins(prior)
    shares = prior / prior.sum()
    assert weights.dtype == np.float32
    assert (shares * weights).sum() == pytest.approx(1, rel=1e-6)
    plain = rebalance_bins(prior, sigma=0, uniform_share=0.5)
    wanted = 1 / (0.5 * shares + 0.5 / 313)
    np.testing.assert_allclose(plain, wanted / (shares @ wanted), rtol=1e-5)
    assert (np.diff(plain[np.argsort(prior)]) <= 0).all()


def test_smoothing_lends_to_neighbours_alone():
    bins = color_bins(10)
    centre = int(np.flatnonzero((bins == 0).all(1))[0])
    prior = np.zeros(313)
    prior[centre] = 1
    weights = rebalance_bins(prior, sigma=5, uniform_share=0.5)
    order = np.argsort(weights)
    distances = np.hypot(*(bins - bins[centre]).T)
    assert order[0] == centre
    assert (distances[order[1:5]] == 10).all()
    assert weights[distances > 60].std() < 1e-4 * weights.max()


def test_an_even_prior_gives_equal_weights_without_smoothing():
    np.testing.assert_allclose(rebalance_bins(np.ones(313), sigma=0), 1, rtol=1e-6)
    np.testing.assert_allclose(rebalance_bins(np.arange(313), uniform_share=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prior_Q": np.ones(262)}, r"shape \(262,\), the grid of step 10 has 313 bins"),
        ({"prior_Q": -np.ones(313)}, "numbers from 0 up"),
        ({"prior_Q": np.zeros(313)}, "one of them above 0"),
        ({"prior_Q": np.full(313, np.nan)}, "numbers from 0 up"),
        ({"grid": 1}, r"grid \(1\) must lie in 2 \.\. 50"),
        ({"uniform_share": 1.5}, r"uniform_share \(1.5\) must lie in 0 \.\. 1"),
        ({"sigma": -1}, r"sigma \(-1\) must be at least 0"),
        ({"prior_Q": np.eye(313)[0], "sigma": 0, "uniform_share": 0}, "an empty bin"),
    ],
)
def test_wrong_priors_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        rebalance_bins(**{"prior_Q": np.ones(313)} | change)
