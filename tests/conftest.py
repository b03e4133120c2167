"""What every test shares: one torch thread, and tests that need a GPU are skipped without one."""

from __future__ import annotations

import pytest
import torch

# Tests are small; more threads only fight with each other, and sums change with their number.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
