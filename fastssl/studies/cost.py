"""What a run costs, known before it starts: the arithmetic of trunk and head as torch counts it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..config import RunConfig
from ..training.memory import forward_without_memory, outline_task

_NUM_CLASSES = 1000


def count_operations(config: RunConfig[Any]) -> float:
    """Count the arithmetic of a training step for one image of the dataset, in seconds.

    A step counts as three forward passes of trunk, head and loss: the backward pass as two. (Torch
    counts a backward pass too, but the weights' gradient of grouped convolutions as if they had no
    groups.) A trunk that computes its activations again (RevNet) has one forward pass more. Torch
    counts convolutions and matrix products; all else together is less than a hundredth.

    Args:
        config: of the run; a supervised one as on ImageNet's 1000 classes.

    Returns:
        10^9 floating-point operations, every multiplication and addition counted as one.

    Raises:
        InputError: if trunk and task do not fit.
    """
    task = outline_task(config, _NUM_CLASSES)
    size = max(task.batch_multiple, 2)  # batch norm refuses one image
    with forward_without_memory(task, size, "fp32") as (forward, _, _):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward()
    whole = counter.get_total_flops()
    again = 0
    if getattr(task.trunk, "recomputes", False):
        names = counter.get_flop_counts()
        again = sum(names[f"{type(task).__name__}.trunk"].values())
    return (3 * whole + again) / size / 1e9
