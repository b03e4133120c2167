"""What a run costs, known before it starts: the arithmetic of trunk and head as torch counts it."""

from __future__ import annotations

from typing import Any

from ..config import RunConfig
from ..training.memory import outline_task
from ..training.pace import count_operations as count_task_operations

_NUM_CLASSES = 1000


def count_operations(config: RunConfig[Any]) -> float:
    """Count the arithmetic of a training step for one image of the dataset, in seconds.

    Args:
        config: of the run; a supervised one as on ImageNet's 1000 classes.

    Returns:
        10^9 floating-point operations, every multiplication and addition counted as one.

    Raises:
        InputError: if trunk and task do not fit.
    """
    return count_task_operations(outline_task(config, _NUM_CLASSES))
