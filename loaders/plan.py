"""What a batch shall hold, before a byte of it is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchPlan:
    """The samples and boxes of one batch: pure functions of the position."""

    sample_ids: NDArray[np.int64]
    """(B,) ids that the order planned."""
    epochs: NDArray[np.int64]
    """(B,)."""
    boxes: NDArray[np.int32]
    """(B, V, 4) left, top, width, height in upright pixels."""
    faults: NDArray[np.uint8]
    """(B,) ``fastssl.shards.rows.RowFault``: samples whose row of the index says what cannot be."""

    def __len__(self) -> int:
        """Return B."""
        return len(self.sample_ids)
