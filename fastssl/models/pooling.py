"""From an end point's map to about 9,000 features, by each study's rule.

Shape legend: B images, C channels, H W pixels of the map, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional

from ..errors import InputError

Pooling = Literal["goyal19", "kolesnikov19", "global"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAX_FEATURES = 9000
"""About as many features as a linear classifier of the studies is given."""

# Average pooling of Goyal et al. 2019 (kernel, stride, padding) for each end point, by the side of
# its map: ResNet-50 at 224 pixels, AlexNet at 227 with a first stride of 2 or 4.
_GOYAL19: dict[tuple[str, int], tuple[int, int, int]] = {
    ("conv1", 112): (10, 10, 4),
    ("pool1", 56): (5, 5, 2),
    ("res2", 56): (16, 8, 0),
    ("res3", 28): (13, 5, 0),
    ("res4", 14): (8, 3, 0),
    ("res5", 7): (6, 1, 0),
    ("res5", 14): (12, 2, 0),
    ("conv1", 109): (28, 9, 0),
    ("pool1", 54): (6, 6, 3),
    ("conv2", 54): (24, 6, 0),
    ("pool2", 26): (4, 4, 0),
    ("conv3", 26): (14, 3, 0),
    ("conv4", 26): (14, 3, 0),
    ("conv5", 26): (16, 2, 0),
    ("pool5", 12): (2, 2, 0),
    ("conv1", 55): (19, 4, 0),
    ("conv2", 27): (12, 3, 0),
    ("conv3", 13): (9, 1, 0),
    ("conv4", 13): (9, 1, 0),
    ("conv5", 13): (8, 1, 0),
    ("pool5", 6): (1, 1, 0),
}


def has_rule(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether Goyal et al. 2019 have an end point of that shape, (C, H, W), among theirs."""
    return len(shape) == 3 and shape[1] == shape[2] and (name, shape[1]) in _GOYAL19


def pool_map(point: Tensor, name: str, pooling: Pooling) -> Tensor:
    """Pool one end point.

    - ``goyal19``: the study's average pooling where its sheet has the end point at that size
      (padding does not count); elsewhere averages over a grid whose side comes closest to 9,000
      features.
    - ``kolesnikov19``: the greatest of each window, window and stride the least that leaves about
      9,000 features; smaller maps stay whole.
    - ``global``: the mean over the map.

    Args:
        point: (B, C, H, W); (B, D) stays as it is.
        name: of the end point.
        pooling: one of ``POOLINGS``.

    Returns:
        (B, D).

    Raises:
        InputError: for another rule, or an end point that is no map.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling ({pooling}) must be one of {', '.join(POOLINGS)}")
    if point.dim() == 2:
        return point
    if point.dim() != 4:
        raise InputError(
            f"end point '{name}' {tuple(point.shape)} must be (B, C, H, W) or (B, D) to be pooled"
        )
    if pooling == "global":
        return point.mean((2, 3))
    pooled = _pool_goyal19(point, name) if pooling == "goyal19" else _pool_kolesnikov19(point)
    return pooled.flatten(1)


def pool_points(
    points: Mapping[str, Tensor], names: Sequence[str], pooling: Pooling, num_images: int
) -> dict[str, Tensor]:
    """Pool end points, and take the mean over the patches of each image.

    Args:
        points: of a trunk, P patches of each of B images behind one another.
        names: of those wanted.
        pooling: one of ``POOLINGS``.
        num_images: B.

    Returns:
        float32 (B, D) by name.
    """
    return {
        name: pool_map(points[name], name, pooling).float().unflatten(0, (num_images, -1)).mean(1)
        for name in names
    }


def _pool_goyal19(point: Tensor, name: str) -> Tensor:
    channels, height, width = point.shape[1:]
    rule = _GOYAL19.get((name, height)) if height == width else None
    if rule is not None:
        kernel, stride, padding = rule
        return functional.avg_pool2d(point, kernel, stride, padding, count_include_pad=False)
    wanted = math.sqrt(MAX_FEATURES / channels)
    sides = {max(1, math.floor(wanted)), max(1, math.ceil(wanted))}
    side = min(sides, key=lambda side: (abs(side * side * channels - MAX_FEATURES), side))
    return functional.adaptive_avg_pool2d(point, (min(side, height), min(side, width)))


def _pool_kolesnikov19(point: Tensor) -> Tensor:
    channels, height, width = point.shape[1:]
    if channels * height * width <= MAX_FEATURES:
        return point
    window = math.ceil(math.sqrt(height * width * channels / MAX_FEATURES))
    return functional.max_pool2d(point, max(1, min(window, height, width)))
