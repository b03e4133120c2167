"""What a run costs, known before it starts: the arithmetic of its trunk and head.

Shape legend: D features of a trunk, E of a patch behind the head's projection, Q classes.
"""

from __future__ import annotations

from typing import Any

from ..config import RunConfig
from ..errors import InputError
from ..tasks import (
    ColorizationConfig,
    ExemplarConfig,
    JigsawConfig,
    RelativeLocationConfig,
    RotationConfig,
    SupervisedConfig,
)

# (Network, side of an image) -> 10^9 multiplications, each with its addition, of one image through
# it at widths 4 and 16. Between them: a w^2 + b w, for the channels of an image do not grow.
_FORWARD: dict[tuple[str, int], tuple[float, float]] = {
    ("alexnet", 64): (0.1490, 2.0789),
    ("alexnet_color", 224): (0.5282, 8.0446),
    ("alexnet_stride4", 224): (0.5959, 8.3156),
    ("resnet50", 64): (0.3336, 5.2227),
    ("resnet50", 224): (4.0871, 63.9780),
    ("resnet50_color", 224): (6.1279, 97.5743),
    ("resnet50_patch", 64): (2.0266, 31.9637),
    ("revnet50", 224): (1.3455, 15.8636),
    ("revnet50_patch", 64): (0.5998, 7.7469),
    ("vgg19_bn", 224): (4.9287, 78.3385),
    ("vgg19_bn_patch", 64): (0.4062, 6.4566),
}
# Trunks that are counted as another: their convolutions have the same shapes.
_COUNTED_AS = {
    "alexnet_no_bn": "alexnet",
    "resnet50_v1": "resnet50",
    "resnet50_v2": "resnet50",
    "resnet50_v2_minus": "resnet50",
    "revnet50_minus": "revnet50",
}
_NUM_BINS = 313
_NUM_PLACES = 8


def estimate_cost(config: RunConfig[Any], num_images: int) -> float:
    """Estimate the arithmetic of a whole run: every multiplication and addition counted as one.

    A training step is three forward passes, four of a trunk that computes its activations again
    (RevNet). Left out are norms, activations, and a head that is one Linear layer on a whole image,
    which together stay below a hundredth.

    Args:
        config: of the run; its trunk and task as the studies have them.
        num_images: of the dataset.

    Returns:
        10^18 floating-point operations.

    Raises:
        InputError: for a trunk or a size of image that the studies do not have.
    """
    images, side = count_trunk_images(config.task)
    trunk = images * _count_trunk(config.trunk, config.width, side)
    passes = 4 if config.trunk.startswith("revnet") else 3
    operations = 2e9 * (passes * trunk + 3 * _count_head(config))
    return operations * num_images * config.schedule.epochs / 1e18


def count_trunk_images(task: Any) -> tuple[int, int]:
    """Return how many images pass the trunk for one of the dataset, and their side in pixels.

    Args:
        task: a task's own config.
    """
    match task:
        case JigsawConfig():
            return task.num_patches, task.patch
        case RelativeLocationConfig():
            return _NUM_PLACES + 1, task.patch
        case RotationConfig():
            return (4 if task.copies == "all" else 1), task.size
        case ExemplarConfig():
            return task.num_crops, task.size
        case ColorizationConfig():
            return 1, task.crop
        case SupervisedConfig():
            return 1, task.size
    raise InputError(f"task ({task.name}) has no rule for its cost; add one to estimate_cost")


def _count_trunk(name: str, width: int, side: int) -> float:
    """Count 10^9 multiplications of one image."""
    body, patch = name.removesuffix("_patch"), "_patch" if name.endswith("_patch") else ""
    network = _COUNTED_AS.get(body, body) + patch
    if (network, side) not in _FORWARD:
        raise InputError(
            f"trunk ('{name}') on images of {side} px is of no study, so its cost is not known; "
            f"known: {', '.join(f'{known} {px} px' for known, px in sorted(_FORWARD))}"
        )
    narrow, wide = _FORWARD[network, side]
    square = (wide - 4 * narrow) / (16**2 - 4 * 4**2)
    linear = (narrow - 4**2 * square) / 4
    return square * width**2 + linear * width


def _count_head(config: RunConfig[Any]) -> float:
    """Count 10^9 multiplications of the head for one image of the dataset."""
    task, is_alexnet = config.task, config.trunk.startswith("alexnet")
    features = (256 if is_alexnet else 512) * config.width
    if isinstance(task, JigsawConfig):
        slots, num_classes = task.num_patches, task.num_permutations
        orders = task.permutations_per_image
    elif isinstance(task, RelativeLocationConfig):
        slots, num_classes, orders = 2, _NUM_PLACES, _NUM_PLACES
    elif isinstance(task, ColorizationConfig):
        return _count_color_head(task, features // 4 if is_alexnet else features)
    else:
        return 0.0
    arranged = slots * task.hidden
    if isinstance(task, JigsawConfig) and task.head == "concat":
        whole = arranged * num_classes
    else:
        whole = (arranged + num_classes) * task.joint_hidden
    images, _ = count_trunk_images(task)
    return (images * features * task.hidden + orders * whole) / 1e9


def _count_color_head(task: ColorizationConfig, num_channels: int) -> float:
    """Count 10^9 multiplications: a 3 x 3 convolution, doublings, another, one to the bins."""
    places, hidden = (task.crop // 16) ** 2, task.hidden
    total = 9 * num_channels * hidden * places
    last = (task.crop // task.head_stride) ** 2
    while places < last:
        total += 16 * hidden**2 * places
        places *= 4
    return (total + 9 * hidden**2 * last + hidden * _NUM_BINS * last) / 1e9
