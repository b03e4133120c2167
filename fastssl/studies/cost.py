"""What a run costs, known before it starts: the arithmetic of trunk and head as torch counts it."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from ..config import RunConfig
from ..training.memory import outline_task
from ..training.pace import count_operations as count_task_operations

_NUM_CLASSES = 1000
_MEASURED_S = 0.3


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


def measure_speed() -> tuple[float, str]:
    """Measure roughly what the device that a run would take computes, in a third of a second.

    Returns:
        10^9 operations a second of a convolution forward and backward in float32, and the device's
        name. That is what most of a run is; matrix products, the best of a CPU, are faster, small
        layers and waiting for data slower.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"this CPU ({torch.get_num_threads()} threads of {os.cpu_count()})"
    )
    batch = 64 if device.type == "cuda" else 4
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False, device=device)
    images = torch.zeros(batch, 64, 56, 56, device=device, requires_grad=True)

    def run() -> None:
        layer(images).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < _MEASURED_S:
        run()
        rounds += 1
    operations = rounds * 3 * 2 * batch * 56 * 56 * 64 * 64 * 9
    return operations / (time.perf_counter() - began) / 1e9, name
