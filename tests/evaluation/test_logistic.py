"""Multinomial logistic regression against scikit-learn's, by objective and accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fastssl.errors import InputError
from fastssl.evaluation import fit_logistic, logistic


def make_samples(num, seed):
    """Return features as trunks give them, positive, of uneven axes, and one of seven classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(7, 20))
    labels = rng.integers(0, 7, num)
    scales = np.exp(np.random.default_rng(8).normal(size=20))
    features = np.abs(centres[labels] + 1.2 * rng.normal(size=(num, 20))) * scales + 3
    return features, labels


TRAIN, LABELS = make_samples(600, seed=0)
TEST, TEST_LABELS = make_samples(2000, seed=1)
PENALTY = 1e-3


@pytest.fixture(scope="module")
def reference():
    """Fit by scikit-learn: half the squared weights and C times the summed losses."""
    factor = 1 / (2 * PENALTY * len(LABELS))
    model = LogisticRegression(C=factor, solver="newton-cg", tol=1e-10, max_iter=1000)
    return model.fit(TRAIN, LABELS)


def find_objective(weights, bias, penalty=PENALTY):
    """Return the mean loss and the penalty, in plain NumPy."""
    logits = TRAIN @ weights.T + bias
    logits -= logits.max(1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -logs[np.arange(len(LABELS)), LABELS].mean() + penalty * (weights**2).sum()


# A float32's rounding, about 1e-7 of the greatest logit, is what the second tolerance allows for.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_objective_and_accuracy_are_those_of_scikit_learn(reference, dtype, tolerance):
    found = fit_logistic(torch.tensor(TRAIN, dtype=dtype), LABELS, PENALTY)
    wanted = find_objective(reference.coef_, reference.intercept_)
    assert find_objective(found.weights, found.bias) == pytest.approx(wanted, rel=tolerance)
    assert found.objective == pytest.approx(wanted, rel=tolerance)
    measured = found.measure(torch.tensor(TEST, dtype=dtype), TEST_LABELS)
    share = reference.score(TEST, TEST_LABELS)
    assert 0.5 < share < 0.95
    assert measured.top1 == pytest.approx(share, abs=1e-3)
    assert measured.top1 < measured.top5 < 1
    assert found.has_converged
    assert found.num_updates < 800
    assert found.gradient_norm < 1e-3


def test_the_penalty_is_the_published_one_and_spares_the_biases():
    """100 / (D C); features that tell nothing leave the biases at the classes' shares."""
    noise = torch.tensor(TRAIN)[torch.randperm(600)] * 1e-9
    found = fit_logistic(noise, LABELS)
    assert found.penalty == 100 / (20 * 7)
    shares = torch.tensor(found.bias).softmax(0)
    np.testing.assert_allclose(shares, np.bincount(LABELS) / 600, atol=1e-4)


def test_rows_without_a_label_take_no_part():
    labels = LABELS.copy()
    labels[::3] = -1
    found = fit_logistic(TRAIN, labels, PENALTY)
    wanted = fit_logistic(TRAIN[labels >= 0], labels[labels >= 0], PENALTY)
    assert found.num_train == wanted.num_train == 400
    assert found.objective == pytest.approx(wanted.objective, rel=1e-7)  # where both ended
    np.testing.assert_allclose(found.score(TEST), wanted.score(TEST), atol=1e-3)


def test_chunks_change_nothing_but_rounding(monkeypatch):
    whole = fit_logistic(TRAIN, LABELS, PENALTY, max_updates=20)
    monkeypatch.setattr(logistic, "_CHUNK_BYTES", 8 * 34 * 170)
    found = fit_logistic(TRAIN, LABELS, PENALTY, max_updates=20)
    assert found.objective == pytest.approx(whole.objective, rel=1e-9)
    assert found.measure(TEST, TEST_LABELS) == whole.measure(TEST, TEST_LABELS)


def test_updates_end_where_they_are_told_to():
    found = fit_logistic(TRAIN, LABELS, PENALTY, max_updates=3)
    assert found.num_updates == 3
    assert not found.has_converged


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (TRAIN, LABELS[:5], {}, "must be"),
        (np.where(TRAIN > 5, np.nan, TRAIN), LABELS, {}, "must be finite"),
        (np.where(TRAIN > 5, np.inf, TRAIN), LABELS, {}, "must be finite"),
        (np.ones_like(TRAIN), LABELS, {}, "the same for every sample"),
        (TRAIN, np.where(LABELS == 2, 1, LABELS), {}, r"none of \[2\]"),
        (TRAIN, 0 * LABELS, {}, "two at least"),
        (TRAIN, 0 * LABELS - 1, {}, "two at least"),
        (TRAIN, LABELS - 2, {}, "whole numbers"),
        (TRAIN, LABELS / 2, {}, "whole numbers"),
        (TRAIN, LABELS, {"penalty": 0.0}, "penalty"),
        (TRAIN, LABELS, {"max_updates": 0}, "max_updates"),
        (TRAIN, LABELS, {"tolerance": 0.0}, "tolerance"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, labels, options, message):
    with pytest.raises(InputError, match=message):
        fit_logistic(features, labels, **options)


def test_features_of_another_width_are_refused():
    found = fit_logistic(TRAIN, LABELS, PENALTY, max_updates=1)
    with pytest.raises(InputError, match=r"must be \(N, 20\)"):
        found.measure(TEST[:, :9], TEST_LABELS)
    with pytest.raises(InputError, match="must lie in"):
        found.measure(TEST, TEST_LABELS + 1)
