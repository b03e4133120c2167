"""Pretext tasks, one file each. A new task is one file and one line in ``_TASKS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError, nearest
from ..models import Trunk
from ..models.input_spec import InputSpec
from .base import Inputs, Task
from .colorization import Colorization, ColorizationConfig
from .exemplar import Exemplar, ExemplarConfig
from .jigsaw import Jigsaw, JigsawConfig
from .relative_location import RelativeLocation, RelativeLocationConfig
from .rotation import Rotation, RotationConfig
from .supervised import Supervised, SupervisedConfig

__all__ = [
    "Colorization",
    "ColorizationConfig",
    "Exemplar",
    "ExemplarConfig",
    "InputSpec",
    "Inputs",
    "Jigsaw",
    "JigsawConfig",
    "RelativeLocation",
    "RelativeLocationConfig",
    "Rotation",
    "RotationConfig",
    "Supervised",
    "SupervisedConfig",
    "Task",
    "build_task",
]

# (config, trunk, number of classes) -> task; a pretext task is not told of classes.
_TASKS: dict[str, Callable[[Any, Trunk, int], Task]] = {
    "colorization": lambda config, trunk, _: Colorization(config, trunk),
    "exemplar": lambda config, trunk, _: Exemplar(config, trunk),
    "jigsaw": lambda config, trunk, _: Jigsaw(config, trunk),
    "relative_location": lambda config, trunk, _: RelativeLocation(config, trunk),
    "rotation": lambda config, trunk, _: Rotation(config, trunk),
    "supervised": Supervised,
}


def build_task(config: Any, trunk: Trunk, num_classes: int = 0) -> Task:
    """Build the task that a config describes, on a trunk.

    Args:
        config: a task's own config; its ``name`` chooses the task.
        trunk: what shall learn.
        num_classes: of the dataset's labels; 0 without labels.

    Returns:
        The task, with a fresh head.

    Raises:
        InputError: for an unknown task, one that needs labels where there are none, or a trunk that
            takes other images than the task has.
    """
    if config.name not in _TASKS:
        raise InputError(f"task ('{config.name}') is not known{nearest(config.name, _TASKS)}")
    task = _TASKS[config.name](config, trunk, num_classes)
    if trunk.in_channels != task.input_spec.channels:
        raise InputError(
            f"trunk ('{trunk.name}') takes images of {trunk.in_channels} channel(s), task "
            f"{config.name} has images of {task.input_spec.channels}; choose another --trunk"
        )
    return task
