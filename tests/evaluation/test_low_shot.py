"""Low-shot SVMs: what is drawn, what is fitted to it, and how costs are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from fastssl.errors import InputError
from fastssl.evaluation import average_precision, draw_low_shot, low_shot

COSTS = (1.0, 0.01, 100.0)


def make_samples(num, seed):
    """Return features, labels of three classes that overlap, and a class for each sample."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(100).normal(size=(3, 12))
    classes = rng.integers(0, 3, num)
    features = 0.6 * centres[classes] + rng.normal(size=(num, 12))
    labels = np.where(classes[:, None] == np.arange(3), 1, -1)
    labels[rng.random(labels.shape) < 0.05] = 0
    return features, labels, classes


TRAIN, LABELS, CLASSES = make_samples(300, seed=0)
TEST, TEST_LABELS, TEST_CLASSES = make_samples(120, seed=1)


@pytest.fixture(scope="module")
def result():
    return low_shot(TRAIN, LABELS, TEST, TEST_LABELS, ks=(1, 3), draws=2, costs=COSTS)


def fit_reference(rows, signs, cost):
    """Return the test scores of liblinear, to its end."""
    svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=False, tol=1e-10, max_iter=100_000)
    return svm.fit(TRAIN[rows], signs)


def test_a_draw_takes_positives_and_19_negatives_of_each_class():
    draw = draw_low_shot(LABELS, 4)
    assert draw.positives.shape == (3, 4)
    assert draw.negatives.shape == (3, 76)
    for c in range(3):
        assert (LABELS[draw.positives[c], c] == 1).all()
        assert (LABELS[draw.negatives[c], c] == -1).all()
        assert len({*draw.positives[c], *draw.negatives[c]}) == 80


def test_a_draw_of_one_label_a_sample_takes_samples_of_each_class():
    draw = draw_low_shot(CLASSES, 4)
    assert draw.negatives is None
    assert (CLASSES[draw.positives] == np.arange(3)[:, None]).all()
    assert len(draw.rows) == 12
    places = draw.places()
    assert ((places > 0).sum(0) == 4).all()
    assert ((places < 0).sum(0) == 8).all()


@pytest.mark.parametrize("labels", [LABELS, CLASSES])
def test_a_smaller_draw_is_the_beginning_of_a_greater(labels):
    small, great = draw_low_shot(labels, 2, 3, 5), draw_low_shot(labels, 5, 3, 5)
    assert (great.positives[:, :2] == small.positives).all()
    if great.negatives is not None:
        assert (great.negatives[:, :38] == small.negatives).all()


def test_draws_seeds_and_classes_are_independent():
    """Classes with the same labels are drawn apart; so are draws, and seeds."""
    twice = np.repeat(LABELS[:, :1], 2, axis=1)
    draws = [
        draw_low_shot(twice, 4, number, seed).positives for number in (0, 1) for seed in (0, 1)
    ]
    assert len({tuple(rows) for draw in draws for rows in draw}) == 8
    assert (draw_low_shot(twice, 4, 1, 1).positives == draws[3]).all()


def test_a_draw_is_the_same_for_ever():
    """Golden rows: results name them."""
    assert draw_low_shot(CLASSES, 3, draw=2, seed=7).positives.tolist() == [
        [287, 97, 34],
        [211, 138, 263],
        [276, 161, 28],
    ]


def test_fits_are_those_of_liblinear(result):
    for found in result.results:
        for number, draw in enumerate(found.draws):
            for c in range(3):
                rows = np.concatenate([draw.positives[c], draw.negatives[c]])
                signs = np.repeat([1, -1], [found.k, 19 * found.k])
                for i, cost in enumerate(COSTS):
                    scores = fit_reference(rows, signs, cost).decision_function(TEST)
                    wanted = average_precision(scores, TEST_LABELS[:, c])
                    # Scores within a gap of 1e-7 may let neighbours change places.
                    assert found.test_ap[c, i, number] == pytest.approx(wanted, abs=2e-3)
    assert max(found.gap.max() for found in result.results) <= 1e-7


def test_cross_validation_is_that_of_scikit_learn(result):
    found = result.results[1]
    rows = np.concatenate([found.draws[0].positives[1], found.draws[0].negatives[1]])
    signs = np.repeat([1, -1], [3, 57])
    # Dealt round in the order drawn.
    fold = np.concatenate([np.arange(3), np.arange(57) % 3])
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(3)]
    svm = LinearSVC(C=1.0, class_weight={1: 2, -1: 1}, dual=False, tol=1e-10, max_iter=100_000)
    wanted = cross_val_score(svm, TRAIN[rows], signs, cv=folds, scoring="average_precision")
    assert found.cv_ap[1, 0, 0] == pytest.approx(wanted.mean(), abs=2e-3)


def test_the_published_cost_is_the_best_on_the_test_set(result):
    for found in result.results:
        best = found.test_ap.mean((0, 2)).argmax()
        assert found.published.costs.tolist() == [COSTS[best]] * 2
        np.testing.assert_allclose(found.published.values, found.test_ap[:, best].mean(0))
        np.testing.assert_allclose(found.published.per_class, found.test_ap[:, best].mean(1))
        assert found.published.min <= found.published.mean <= found.published.max
        assert "test" in found.published.chosen_by


def test_the_honest_cost_is_that_of_each_draw_s_own_folds(result):
    found = result.results[1]
    best = found.cv_ap.mean(0).argmax(0)
    assert found.honest.costs.tolist() == [COSTS[i] for i in best]
    np.testing.assert_allclose(
        found.honest.values, [found.test_ap[:, i, number].mean() for number, i in enumerate(best)]
    )
    assert found.honest.mean <= found.published.mean or len(set(best)) > 1


def test_honest_costs_do_not_depend_on_the_test_set(result):
    other = low_shot(TRAIN, LABELS, -TEST, TEST_LABELS, ks=(1, 3), draws=2, costs=COSTS)
    for found, again in zip(result.results, other.results, strict=True):
        assert found.honest.costs.tolist() == again.honest.costs.tolist()
        assert not np.allclose(found.test_ap, again.test_ap)


def test_one_positive_takes_the_cost_of_two(result):
    pair = low_shot(TRAIN, LABELS, TEST, TEST_LABELS, ks=(2,), draws=2, costs=COSTS).results[0]
    one = result.results[0]
    assert one.cv_ap is None
    assert one.honest.costs.tolist() == pair.honest.costs.tolist()
    assert "k = 2" in one.honest.chosen_by


def test_a_draw_of_most_samples_is_fitted_as_one_of_few():
    """Few rows of a large set have axes of their own, most of a small one its axes."""
    most = low_shot(TRAIN[:30], CLASSES[:30], TEST, TEST_CLASSES, ks=(6,), draws=1, costs=(1.0,))
    rows = most.results[0].draws[0].rows
    assert 2 * len(rows) >= 30
    signs = np.where(CLASSES[rows] == 1, 1, -1)
    scores = fit_reference(rows, signs, 1.0).decision_function(TEST)
    wanted = average_precision(scores, np.where(TEST_CLASSES == 1, 1, -1))
    assert most.results[0].test_ap[1, 0, 0] == pytest.approx(wanted, abs=2e-3)
    few = low_shot(TRAIN, CLASSES, TEST, TEST_CLASSES, ks=(6,), draws=1, costs=(1.0,))
    assert few.results[0].gap.max() <= 1e-7


def test_what_a_class_has_not_enough_for_is_left_out_and_said():
    few = CLASSES.copy()
    few[np.flatnonzero(few == 2)[3:]] = -1
    result = low_shot(TRAIN, few, TEST, TEST_CLASSES, ks=(4, 2, 3, 96), draws=1, costs=(1.0,))
    assert [found.k for found in result.results] == [2, 3]
    assert result.skipped[4] == "class 2 has 3 samples, k (4) needs 4"
    assert set(result.skipped) == {4, 96}


def test_a_class_of_one_sample_has_no_honest_cost():
    one = CLASSES.copy()
    one[np.flatnonzero(one == 2)[1:]] = -1
    result = low_shot(TRAIN, one, TEST, TEST_CLASSES, ks=(1,), draws=1, costs=(1.0,))
    assert result.results[0].honest is None
    assert 0 < result.results[0].published.mean <= 1


def spoil(**changes):
    given = {
        "train_features": TRAIN,
        "train_labels": LABELS,
        "test_features": TEST,
        "test_labels": TEST_LABELS,
        "ks": (1,),
        "draws": 1,
        "costs": (1.0,),
    }
    return given | changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (spoil(ks=(20,)), r"class 2 has 176 negatives, k \(20\) needs 380; take a smaller k"),
        (spoil(ks=(200,)), "class 0 has 84 positives"),
        (spoil(ks=(0,)), "ks"),
        (spoil(draws=0), "draws"),
        (spoil(costs=(0.0,)), "costs"),
        (spoil(positive_weight=0), "positive_weight"),
        (spoil(train_labels=2 * LABELS), "must be"),
        (spoil(train_labels=CLASSES / 2), "must be"),
        (spoil(train_labels=0 * CLASSES), "at least two classes"),
        (spoil(train_labels=LABELS[:9]), "must be"),
        (spoil(test_labels=TEST_CLASSES), "form and classes"),
        (spoil(test_labels=np.where(TEST_LABELS > 0, -1, TEST_LABELS)), "none of class 0"),
        (spoil(test_features=np.where(TEST > 1, np.inf, TEST)), "must be finite"),
        (spoil(train_features=np.where(TRAIN > 1, np.inf, TRAIN)), "must be finite"),
        (spoil(train_labels=np.where(LABELS > 0, -1, LABELS)), "class 0 has 0 positives"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        low_shot(**arguments)


def test_a_draw_of_more_than_a_class_is_refused():
    with pytest.raises(InputError, match=r"class \d has \d+ samples, k \(200\) needs 200; take"):
        draw_low_shot(CLASSES, 200)
