"""Whether batches are the same, for tests of loaders."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from fastssl.batch import Batch


def assert_equal(batches: Iterable[Batch], wanted: Iterable[Batch]) -> None:
    """See that as many batches hold the same pixels, labels and samples."""
    for batch, other in zip(batches, wanted, strict=True):
        assert torch.equal(batch.sample_ids, other.sample_ids)
        # Before pixels, which follow; whence a sample could not be had is said in other words.
        taken = [[(s.planned, s.used) for s in b.substitutions] for b in (batch, other)]
        assert taken[0] == taken[1], (batch.substitutions, other.substitutions)
        assert torch.equal(batch.images, other.images)
        assert np.array_equal(batch.labels, other.labels)
