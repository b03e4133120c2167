"""Our SVMs against liblinear's, by objective, cross-validation and scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from fastssl.errors import InputError
from fastssl.evaluation import fit_svms, normalize_rows
from fastssl.evaluation.svm import cut_folds

COSTS = (1e-3, 1.0, 100.0)


def make_samples(num, width, num_classes, seed=0):
    """Return features with a few strong axes, as trunks give them, and labels of 1 and -1."""
    rng = np.random.default_rng(seed)
    features = np.abs(rng.normal(size=(num, width))) * np.exp(rng.normal(size=width))
    features = normalize_rows(torch.from_numpy(features)).numpy()
    answers = (features - features.mean(0)) @ rng.normal(size=(width, num_classes))
    answers += 0.5 * answers.std() * rng.normal(size=answers.shape)
    return features, np.where(answers > np.quantile(answers, 0.8, axis=0), 1, -1)


def find_objective(weights, bias, features, signs, cost):
    """Return what liblinear minimises, the bias being a weight like others."""
    slack = np.maximum(0, 1 - signs * (features @ weights + bias))
    losses = np.where(signs > 0, 2.0, 1.0) * slack**2
    return (weights @ weights + bias**2) / 2 + cost * losses.sum()


def fit_liblinear(features, signs, cost):
    """Fit by liblinear's Newton method, to its end."""
    svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=False, tol=1e-8, max_iter=100_000)
    svm.fit(features, signs)
    return svm.coef_[0], svm.intercept_[0]


# More features than samples, and fewer: the axes come from the one or the other Gram matrix.
@pytest.mark.parametrize("shape", [(120, 200), (200, 30)])
def test_objectives_are_those_of_liblinear(shape):
    features, labels = make_samples(*shape, num_classes=3)
    for cost in COSTS:
        found = fit_svms(features, labels, [cost])
        for c in range(3):
            ours = find_objective(found.weights[c], found.bias[c], features, labels[:, c], cost)
            wanted = find_objective(
                *fit_liblinear(features, labels[:, c], cost), features, labels[:, c], cost
            )
            assert ours == pytest.approx(wanted, rel=1e-6)
            # The certificate: no solution is better than ours by more than the gap.
            assert ours * (1 - found.gap[c]) <= wanted * (1 + 1e-9)
            assert found.gap[c] <= 1e-6


def test_costs_are_chosen_as_by_scikit_learn():
    features, labels = make_samples(150, 40, num_classes=2)
    # Both to their end: samples with nearly equal scores would change places otherwise.
    found = fit_svms(features, labels, COSTS, tolerance=1e-12)
    for c in range(2):
        for k, cost in enumerate(COSTS):
            svm = LinearSVC(
                C=cost, class_weight={1: 2, -1: 1}, dual=False, tol=1e-8, max_iter=100_000
            )
            wanted = cross_val_score(svm, features, labels[:, c], cv=3, scoring="average_precision")
            assert found.cv_ap[c, k] == pytest.approx(wanted.mean(), abs=1e-9)
        assert found.best_cost[c] == COSTS[int(found.cv_ap[c].argmax())]
    assert found.cv_gap.shape == (2, 3, 3)
    assert found.cv_gap.max() <= 1e-6


def test_the_published_solver_stops_close_by():
    """LIBLINEAR as the study calls it: dual, tol 1e-4, 2,000 passes."""
    features, labels = make_samples(150, 200, num_classes=2)
    ours = fit_svms(features, labels, COSTS)
    published = fit_svms(features, labels, COSTS, solver="sklearn")
    np.testing.assert_allclose(published.cv_ap, ours.cv_ap, atol=2e-3)
    assert published.best_cost.tolist() == ours.best_cost.tolist()
    np.testing.assert_allclose(published.score(features), ours.score(features), atol=0.05)
    assert ours.gap.max() <= 1e-7 < published.gap.max() < 1e-2
    for c, cost in enumerate(ours.best_cost):
        best, near = (
            find_objective(one.weights[c], one.bias[c], features, labels[:, c], cost)
            for one in (ours, published)
        )
        assert best <= near * (1 + 1e-9)
        # The certificate holds: what is better than the published one, its gap allows for.
        assert near * (1 - published.gap[c]) <= best


def test_the_published_solver_leaves_out_what_folds_hold():
    features, labels = make_samples(60, 90, num_classes=1)
    labels[::7] = 0
    found = fit_svms(features, labels, [1.0], solver="sklearn")
    assert found.cv_gap.shape == (1, 1, 3)
    assert found.cv_ap[0, 0] == pytest.approx(
        fit_svms(features, labels, [1.0]).cv_ap[0, 0], abs=0.02
    )


def test_a_sample_that_is_not_counted_might_as_well_not_be_there():
    features, labels = make_samples(100, 150, num_classes=1)
    labels[::7] = 0
    found = fit_svms(features, labels, COSTS)
    counted = labels[:, 0] != 0
    wanted = fit_svms(features[counted], labels[counted], COSTS)
    np.testing.assert_allclose(found.cv_ap, wanted.cv_ap, atol=1e-12)
    # Two solutions of gaps below 1e-7.
    np.testing.assert_allclose(found.score(features), wanted.score(features), atol=2e-3)


def test_difficult_objects_may_count_as_negatives():
    features, labels = make_samples(100, 150, num_classes=1)
    labels[::7] = 0
    found = fit_svms(features, labels, [1.0], uncounted="negative")
    wanted = fit_svms(features, np.where(labels == 0, -1, labels), [1.0])
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-12)


def test_the_first_of_equal_costs_wins():
    features, labels = make_samples(60, 10, num_classes=1)
    features[labels[:, 0] > 0] += 100.0  # Every cost ranks them rightly.
    assert fit_svms(features, labels, [10.0, 0.1, 1.0]).best_cost.tolist() == [10.0]


@pytest.mark.parametrize("seed", range(20))
def test_folds_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(rng.integers(12, 60)) < 0.4, 1, -1)
    signs[:6] = [1, -1, 1, -1, 1, -1]
    found = cut_folds(signs, 3, seed=None)
    for fold, (_, rows) in enumerate(StratifiedKFold(3).split(signs, signs)):
        assert np.flatnonzero(found[:, fold]).tolist() == rows.tolist()


def test_a_seed_shuffles_the_folds():
    signs = np.where(np.arange(60) % 3, -1, 1)
    in_order, first, again, other = (cut_folds(signs, 3, seed) for seed in (None, 5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != in_order).any()
    assert (first.sum(1) == 1).all()
    assert sorted((first[:, f] & (signs > 0)).sum() for f in range(3)) == [6, 7, 7]


def test_float32_on_a_tensor_is_taken_too():
    features, labels = make_samples(80, 100, num_classes=1)
    found = fit_svms(torch.from_numpy(features).float(), labels, [1.0])
    wanted = fit_svms(features, labels, [1.0])
    np.testing.assert_allclose(found.score(features), wanted.score(features), atol=2e-3)


def spoil(features, labels, **changes):
    return {"features": features, "labels": labels, "costs": [1.0], **changes}


FEATURES, LABELS = make_samples(20, 5, num_classes=2)
ONE_POSITIVE = np.where(np.arange(20)[:, None] == 0, 1, -1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (spoil(FEATURES, LABELS[:5]), "must be"),
        (spoil(FEATURES, LABELS * 2), r"labels \(-?2\)"),
        (spoil(np.where(FEATURES > 0.5, np.nan, FEATURES), LABELS), "must be finite"),
        (spoil(np.ones((20, 5)), LABELS), "the same for every sample"),
        (spoil(FEATURES, ONE_POSITIVE), "class 0 has 1 positives"),
        (spoil(FEATURES, -ONE_POSITIVE), "class 0 has 1 negatives"),
        (spoil(FEATURES, LABELS, costs=[]), "costs"),
        (spoil(FEATURES, LABELS, costs=[0.0]), "costs"),
        (spoil(FEATURES, LABELS, folds=1), "folds"),
        (spoil(FEATURES, LABELS, positive_weight=0), "positive_weight"),
        (spoil(FEATURES, LABELS, uncounted="maybe"), "uncounted"),
        (spoil(FEATURES, LABELS, solver="other"), "solver"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        fit_svms(**arguments)
