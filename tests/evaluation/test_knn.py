from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional

from fastssl.errors import InputError
from fastssl.evaluation import (
    classify_by_neighbours,
    evaluate_knn,
    find_neighbours,
    measure_neighbours,
)


@pytest.fixture(scope="module")
def clouds():
    """Five overlapping clouds: about a third of the points lies nearer to another class."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 700)
    centres = generator.normal(size=(5, 12))
    features = centres[labels] + 1.5 * generator.normal(size=(700, 12))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def reference(features, labels, k, weights):
    """Classify the last 200 rows by the others with scikit-learn."""
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    model.fit(features[:500].double().numpy(), labels[:500].numpy())
    return model.predict(features[500:].double().numpy())


@pytest.mark.parametrize("k", [1, 20])
def test_plain_votes_agree_with_scikit_learn(clouds, k):
    features, labels = clouds
    guesses = classify_by_neighbours(features[500:], features[:500], labels[:500], k, None)
    np.testing.assert_array_equal(guesses, reference(features, labels, k, "uniform"))


def test_weighted_votes_agree_with_scikit_learn(clouds):
    features, labels = clouds
    expected = reference(features, labels, 20, lambda distance: np.exp((1 - distance) / 0.07))
    guesses = classify_by_neighbours(features[500:], features[:500], labels[:500], 20, 0.07)
    np.testing.assert_array_equal(guesses, expected)
    assert 0.4 < (guesses == labels[500:]).double().mean() < 0.9


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_change_nothing(clouds, chunk):
    features, labels = clouds
    arguments = features[500:540], features[:500], labels[:500]
    expected = classify_by_neighbours(*arguments)
    torch.testing.assert_close(classify_by_neighbours(*arguments, chunk=chunk), expected)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_neighbours_are_those_of_brute_force(chunk):
    """Over many chunks of the bank: the best of each are merged."""
    generator = torch.Generator().manual_seed(0)
    queries, bank = (torch.randn(n, 16, generator=generator) for n in (50, 700))
    cosines = functional.normalize(queries.double()) @ functional.normalize(bank.double()).T
    wanted = (-cosines).argsort(1)[:, :20]
    torch.testing.assert_close(find_neighbours(queries, bank, 20, chunk), wanted)


def test_length_of_features_does_not_count(clouds):
    features, labels = clouds
    scaled = features * torch.linspace(0.1, 50, 700)[:, None]
    torch.testing.assert_close(
        classify_by_neighbours(scaled[500:], scaled[:500], labels[:500]),
        classify_by_neighbours(features[500:], features[:500], labels[:500]),
    )


def test_tiny_temperature_follows_the_nearest_without_overflow(clouds):
    features, labels = clouds
    arguments = features[500:], features[:500], labels[:500]
    torch.testing.assert_close(
        classify_by_neighbours(*arguments, 20, 1e-6), classify_by_neighbours(*arguments, 1, None)
    )


def test_equal_votes_go_to_the_lowest_class():
    bank = torch.eye(4)
    guess = classify_by_neighbours(torch.ones(1, 4), bank, torch.tensor([3, 1, 2, 1]), 1000, None)
    assert guess.tolist() == [1]
    guess = classify_by_neighbours(torch.ones(1, 4), bank, torch.tensor([3, 1, 2, 0]), 4, None)
    assert guess.tolist() == [0]


def test_result_counts_by_class():
    """Three groups of class 0 lie together; class 1 lies among class 0 and is never found."""
    features = torch.tensor([[1.0, 0.0]] * 9 + [[1.0, 0.01]] * 2)
    labels = torch.tensor([0] * 9 + [1] * 2)
    groups = [f"a{i // 3}" for i in range(9)] + ["b0", "b1"]
    result = evaluate_knn(features, labels, groups, k=20, temperature=None)
    assert result.per_class == {0: 1.0, 1: 0.0}
    assert result.accuracy == pytest.approx(3 / 4)
    assert (result.num_train, result.num_test, result.k) == (7, 4, 7)


def test_queries_of_another_set_are_measured(clouds):
    features, labels = clouds
    result = measure_neighbours(
        features[500:], labels[500:], features[:500], labels[:500], 20, None
    )
    wanted = reference(features, labels, 20, "uniform") == labels[500:].numpy()
    assert result.accuracy == pytest.approx(wanted.mean(), abs=1e-12)
    assert result.top5 is None
    assert (result.num_train, result.num_test, result.k) == (500, 200, 20)


def test_the_five_classes_of_most_votes_are_counted():
    """Seven classes of one neighbour each; the two farthest are not among the five."""
    angles = torch.arange(7) / 10
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    queries = torch.tensor([[1.0, 0.0]]).repeat(7, 1)
    result = measure_neighbours(queries, torch.arange(7), bank, torch.arange(7), 7)
    assert (result.accuracy, result.top5) == (pytest.approx(1 / 7), pytest.approx(5 / 7))


def test_a_class_that_the_bank_lacks_is_never_found():
    result = measure_neighbours(
        torch.eye(2), torch.tensor([0, 3]), torch.eye(2), torch.tensor([0, 1])
    )
    assert result.per_class == {0: 1.0, 3: 0.0}


def test_rows_without_a_label_take_no_part(clouds):
    features, labels = clouds
    hidden = labels.clone()
    hidden[:100] = -1
    result = evaluate_knn(features, hidden, np.arange(700))
    assert result.num_train + result.num_test == 600


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"queries": torch.ones(3, 5)}, r"queries \(3, 5\) and bank"),
        ({"bank_labels": torch.zeros(3, dtype=torch.int64)}, "bank_labels"),
        ({"bank_labels": torch.full((4,), -1)}, "without a label"),
        ({"k": 0}, r"k \(0\)"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_input_is_refused(change, match):
    arguments = {
        "queries": torch.ones(3, 4),
        "bank": torch.ones(4, 4),
        "bank_labels": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(InputError, match=match):
        classify_by_neighbours(**{**arguments, **change})
