"""What a run costs, known before it starts: the arithmetic of trunk and head as torch counts it."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..config import RunConfig
from ..counts import spell_number
from ..training.memory import outline_task
from ..training.pace import count_operations as count_task_operations
from ..training.pace import measure_speed

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


def measure_device() -> tuple[float, str]:
    """Measure roughly what the device that a run would take computes.

    Returns:
        10^9 operations a second (``training.pace.measure_speed``), and the device's name.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"this CPU ({spell_number(torch.get_num_threads(), 'thread')} of {os.cpu_count()})"
    )
    return measure_speed(device), name
