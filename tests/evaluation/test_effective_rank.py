"""RankMe against singular values by NumPy, and where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.errors import InputError
from fastssl.evaluation import effective_rank


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_it_is_that_of_the_singular_values(shape):
    features = np.random.default_rng(0).normal(size=shape) * 0.5 ** np.arange(shape[1])
    singular = np.linalg.svd(features, compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    expected = np.exp(-(shares * np.log(shares)).sum())
    # Eigenvalues of the Gram matrix: half the digits of the smallest ones.
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-6)


def test_one_direction_is_one_and_equal_ones_are_all():
    line = torch.linspace(1, 2, 50)[:, None] * torch.ones(8)
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert effective_rank(3 * torch.eye(8)) == pytest.approx(8, abs=1e-4)
    assert effective_rank(torch.zeros(5, 8)) == 0


def test_what_is_not_finite_or_empty_is_refused():
    with pytest.raises(InputError, match="features must be finite"):
        effective_rank(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(InputError, match=r"\(0, 4\) must be \(N, D\)"):
        effective_rank(torch.zeros(0, 4))
