from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from fastssl.errors import InputError
from fastssl.evaluation import measure_accuracy


def test_shares_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(500, 9)), rng.integers(0, 8, 500)
    scores[np.arange(500), labels] += 1
    found = measure_accuracy(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found.top1 == pytest.approx(accuracy_score(labels, scores.argmax(1)), abs=1e-12)
    wanted = top_k_accuracy_score(labels, scores, k=5, labels=range(9))
    assert found.top5 == pytest.approx(wanted, abs=1e-12)
    assert set(found.per_class) == set(range(8))
    for c, share in found.per_class.items():
        wanted = (scores.argmax(1) == c)[labels == c].mean()
        assert share == pytest.approx(wanted, abs=1e-6)


def test_of_equal_scores_the_lowest_class_is_the_greater():
    found = measure_accuracy(torch.zeros(7, 7), torch.arange(7))
    assert found.top1 == pytest.approx(1 / 7)
    assert found.top5 == pytest.approx(5 / 7)


def test_five_classes_have_no_top_five():
    assert measure_accuracy(torch.eye(5), torch.arange(5)).top5 is None


def test_samples_without_a_label_take_no_part():
    found = measure_accuracy(torch.eye(3), torch.tensor([0, -1, 1]))
    assert (found.top1, found.num_samples, found.per_class) == (0.5, 2, {0: 1.0, 1: 0.0})


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.eye(3), torch.arange(2), "must be"),
        (torch.eye(3), torch.tensor([0, 1, 3]), r"labels \(0 .. 3\) must lie in -1 .. 2"),
        (torch.eye(3), torch.tensor([0, 1, -2]), "must lie in"),
        (torch.eye(3), torch.full((3,), -1), "none"),
        (torch.eye(3).log() - torch.eye(3).log(), torch.arange(3), "must be numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        measure_accuracy(scores, labels)
