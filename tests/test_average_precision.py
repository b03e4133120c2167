"""Average precision against scikit-learn and against the definition, word for word."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fastssl.errors import InputError
from fastssl.evaluation import average_precision, step_average_precision


def draw(seed, num=60, num_scores=None):
    """Return scores and labels of 1, 0, -1; with ``num_scores`` many scores are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=num) if num_scores is None else rng.integers(0, num_scores, num)
    labels = rng.choice([-1, 0, 1], num, p=[0.6, 0.1, 0.3])
    labels[0] = 1
    return scores.astype(float), labels


def walk_ranking(scores, labels):
    """Return (recall, precision) after each counted sample, best first, equal ones as they come."""
    ranking = sorted((i for i in range(len(scores)) if labels[i]), key=lambda i: -scores[i])
    positives = sum(label == 1 for label in labels)
    hits, points = 0, []
    for rank, i in enumerate(ranking, 1):
        hits += labels[i] == 1
        points.append((hits / positives, hits / rank))
    return points


def area_under_envelope(points):
    area, last = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - last) * max(precision for _, precision in points[i:])
        last = recall
    return area


@pytest.mark.parametrize("num_scores", [None, 4])
@pytest.mark.parametrize("seed", range(10))
def test_all_points_are_the_area_under_the_envelope(seed, num_scores):
    scores, labels = draw(seed, num_scores=num_scores)
    wanted = area_under_envelope(walk_ranking(scores, labels))
    assert average_precision(scores, labels) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("num_scores", [None, 4])
@pytest.mark.parametrize("seed", range(10))
def test_eleven_points_are_the_best_precision_at_each_tenth_of_recall(seed, num_scores):
    scores, labels = draw(seed, num_scores=num_scores)
    points = walk_ranking(scores, labels)
    best = [
        max((p for recall, p in points if recall >= tenth / 10 - 1e-9), default=0.0)
        for tenth in range(11)
    ]
    assert average_precision(scores, labels, points=11) == pytest.approx(np.mean(best), abs=1e-12)


@pytest.mark.parametrize("num_scores", [None, 4])
@pytest.mark.parametrize("seed", range(10))
def test_steps_are_those_of_scikit_learn(seed, num_scores):
    scores, labels = draw(seed, num_scores=num_scores)
    counted = labels != 0
    wanted = average_precision_score(labels[counted] == 1, scores[counted])
    assert step_average_precision(scores, labels) == pytest.approx(wanted, abs=1e-12)


def test_recall_of_three_tenths_reaches_the_fourth_point():
    """0.1 * 3 is more than 3 / 10 in floating point."""
    labels = [1, 1, 1] + [-1] * 1000 + [1] * 7
    found = average_precision(np.arange(len(labels), 0, -1), labels, points=11)
    assert found == pytest.approx((4 * 1 + 7 * 10 / 1010) / 11, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1, 2], [1], "equal in N"),
        ([1, np.nan], [1, -1], "must be finite"),
        ([1, 2], [1, 2], r"labels \(2\) must be 1"),
        ([1, 2], [0, -1], "none is 1"),
    ],
)
def test_what_has_no_precision_is_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        average_precision(scores, labels)


def test_other_numbers_of_points_are_refused():
    with pytest.raises(InputError, match=r"points \(10\) must be 'all' or 11"):
        average_precision([1.0], [1], points=10)
