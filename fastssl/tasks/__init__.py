"""Pretext tasks, one file each. A new task is one file and one line in ``_TASKS``."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..command import nearest
from ..errors import InputError
from .base import Inputs, Task
from .jigsaw import Jigsaw, JigsawConfig

__all__ = ["Inputs", "Jigsaw", "JigsawConfig", "Task", "build_task"]

_TASKS: dict[str, type] = {"jigsaw": Jigsaw}


def build_task(config: Any, trunk: nn.Module) -> Task:
    """Build the task that a config describes, on a trunk.

    Args:
        config: a task's own config; its ``name`` chooses the task.
        trunk: what shall learn.

    Returns:
        The task, with a fresh head.

    Raises:
        InputError: for an unknown task.
    """
    if config.name not in _TASKS:
        raise InputError(f"task ('{config.name}') is not known{nearest(config.name, _TASKS)}")
    return _TASKS[config.name](config, trunk)
