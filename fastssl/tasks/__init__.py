"""Pretext tasks, one file each. A new task is one file and one line in ``_TASKS``."""

from __future__ import annotations

from typing import Any

from ..counts import spell_number
from ..errors import InputError, nearest
from ..models import InputSpec as InputSpec
from ..models import Trunk
from .amdim import Amdim, AmdimConfig
from .base import Inputs, Metric, Task, score_answers
from .classification import (
    Classification,
    ClassificationConfig,
    PhotographClassificationConfig,
)
from .cmc import CMC, CMCConfig
from .colorization import Colorization, ColorizationConfig
from .depth import Depth, DepthConfig
from .detection import Detection, DetectionConfig
from .divided_table import DividedTable
from .exemplar import Exemplar, ExemplarConfig
from .jigsaw import Jigsaw, JigsawConfig
from .linear import LinearHeads
from .multilabel import Multilabel, MultilabelConfig
from .normals import Normals, NormalsConfig
from .pose import Pose, PoseConfig
from .relative_location import RelativeLocation, RelativeLocationConfig
from .rotation import NewellRotationConfig, Rotation, RotationConfig
from .segmentation import Segmentation, SegmentationConfig
from .supervised import Supervised, SupervisedConfig
from .vae import Vae, VaeConfig

__all__ = [
    "CMC",
    "Amdim",
    "AmdimConfig",
    "CMCConfig",
    "Classification",
    "ClassificationConfig",
    "Colorization",
    "ColorizationConfig",
    "Depth",
    "DepthConfig",
    "Detection",
    "DetectionConfig",
    "DividedTable",
    "Exemplar",
    "ExemplarConfig",
    "Inputs",
    "Jigsaw",
    "JigsawConfig",
    "Metric",
    "Multilabel",
    "MultilabelConfig",
    "NewellRotationConfig",
    "Normals",
    "NormalsConfig",
    "PhotographClassificationConfig",
    "Pose",
    "PoseConfig",
    "RelativeLocation",
    "RelativeLocationConfig",
    "Rotation",
    "RotationConfig",
    "Segmentation",
    "SegmentationConfig",
    "Supervised",
    "SupervisedConfig",
    "Task",
    "Vae",
    "VaeConfig",
    "add_task",
    "build_task",
    "find_task",
    "score_answers",
]

_TASKS: dict[str, type[Task]] = {
    "amdim": Amdim,
    "classification": Classification,
    "cmc": CMC,
    "colorization": Colorization,
    "depth": Depth,
    "detection": Detection,
    "exemplar": Exemplar,
    "jigsaw": Jigsaw,
    "linear": LinearHeads,
    "mlp": LinearHeads,
    "multilabel": Multilabel,
    "normals": Normals,
    "pose": Pose,
    "relative_location": RelativeLocation,
    "rotation": Rotation,
    "segmentation": Segmentation,
    "supervised": Supervised,
    "vae": Vae,
}


def add_task(name: str, task: type[Task]) -> None:
    """Give a task of your own a name, so that ``build_task`` and the trainer know it.

    Args:
        name: of its config, whose field ``name`` says it: a frozen dataclass that derives from
            ``fastssl.fields.Checked``.
        task: made of (config, trunk), and the number of classes where it ``needs_labels``.

    Raises:
        InputError: if another task has the name.
    """
    if _TASKS.setdefault(name, task) is not task:
        raise InputError(f"task ('{name}') is there already; choose another name")


def find_task(name: str) -> type[Task]:
    """Return the class of a task.

    Args:
        name: of its config.

    Raises:
        InputError: for an unknown task.
    """
    if name not in _TASKS:
        hint = nearest(name, _TASKS, lists_all=True)
        raise InputError(f"task ('{name}') is not known{hint}")
    return _TASKS[name]


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
    kind: Any = find_task(config.name)
    # Who learns no labels is not told of classes.
    task = kind(config, trunk, num_classes) if kind.needs_labels else kind(config, trunk)
    if trunk.in_channels != task.input_spec.channels:
        raise InputError(
            f"trunk ('{trunk.name}') takes images of {spell_number(trunk.in_channels, 'channel')}, "
            f"task {config.name} has images of {task.input_spec.channels}; choose another --trunk"
        )
    return task
