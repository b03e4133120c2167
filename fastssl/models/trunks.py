"""The trunks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..config import MAX_WIDTH
from ..errors import InputError, nearest
from .alexnet import AlexNet
from .amdim_encoder import AmdimEncoder
from .base import Trunk
from .caffenet import CaffeNet
from .halves import HalvesTrunk
from .representation import RepresentationTrunk
from .resnet9 import ResNet9, ResNet9Half
from .resnet50 import ResNet50, ResNet50V1
from .resnet50_newell import ResNet50Newell
from .resnet50_v2 import ResNet50V2
from .revnet50 import RevNet50
from .vgg19_bn import VGG19BN

STANDARD_WIDTH, STANDARD_VGG_WIDTH = 4, 8
MAX_REPRESENTATION = 65536

_PATCH: dict[str, Any] = {"root_stride": 1, "last_stride": 1}

# A trunk's options are part of its name, so that a run's config and an exported file name it whole.
_TRUNKS: dict[str, Callable[[int], Trunk]] = {
    "alexnet": AlexNet,
    "alexnet_bn": partial(AlexNet, norm="all", lrn=False),
    "alexnet_color": partial(
        AlexNet, stride=4, norm="all", lrn=False, in_channels=1, has_affine=False
    ),
    "alexnet_no_bn": partial(AlexNet, norm="none"),
    "alexnet_no_lrn": partial(AlexNet, lrn=False),
    "alexnet_stride4": partial(AlexNet, stride=4),
    "alexnet_stride4_bn": partial(AlexNet, stride=4, norm="all", lrn=False),
    "amdim_encoder": AmdimEncoder,
    "caffenet": CaffeNet,
    "resnet50": ResNet50,
    "resnet50_color": partial(ResNet50, in_channels=1, last_stride=1),
    "resnet50_newell": ResNet50Newell,
    "resnet50_newell_dense": partial(ResNet50Newell, is_dense=True),
    "resnet50_newell_dense_halves": partial(
        HalvesTrunk, half=partial(ResNet50Newell, is_half=True, is_dense=True)
    ),
    "resnet50_newell_halves": partial(HalvesTrunk, half=partial(ResNet50Newell, is_half=True)),
    "resnet50_patch": partial(ResNet50, **_PATCH),
    "resnet50_v1": ResNet50V1,
    "resnet50_v1_noskip": partial(ResNet50V1, has_skip=False),
    "resnet50_v1_patch": partial(ResNet50V1, **_PATCH),
    "resnet50_v2": ResNet50V2,
    "resnet50_v2_minus": partial(ResNet50V2, last_relu=False),
    "resnet50_v2_minus_patch": partial(ResNet50V2, last_relu=False, **_PATCH),
    "resnet50_v2_noskip": partial(ResNet50V2, has_skip=False),
    "resnet50_v2_patch": partial(ResNet50V2, **_PATCH),
    "resnet9": ResNet9,
    "resnet9_dense": partial(ResNet9, is_dense=True),
    "resnet9_dense_halves": partial(HalvesTrunk, half=partial(ResNet9Half, is_dense=True)),
    "resnet9_halves": partial(HalvesTrunk, half=ResNet9Half),
    "revnet50": RevNet50,
    "revnet50_minus": partial(RevNet50, last_relu=False),
    "revnet50_minus_patch": partial(RevNet50, last_relu=False, **_PATCH),
    "revnet50_patch": partial(RevNet50, **_PATCH),
    "vgg19_bn": VGG19BN,
    "vgg19_bn_patch": partial(VGG19BN, side=64),
}

# Options without weights: forms of one network that differ in these take the same ones.
_WEIGHTLESS = {"stride", "root_stride", "last_stride", "lrn"}

# What is asked for and cannot be: the study's other switches on the wrong trunk.
_IMPOSSIBLE = {
    "resnet50_minus": "the units of v1 end with a ReLU; take resnet50_v2_minus",
    "resnet50_v1_minus": "the units of v1 end with a ReLU; take resnet50_v2_minus",
    "revnet50_noskip": "a reversible unit is its skip connection; take resnet50_v2_noskip",
    "revnet50_minus_noskip": "a reversible unit is its skip connection; take resnet50_v2_noskip",
    "vgg19_bn_noskip": "it has no skip connections; take vgg19_bn",
}


def trunk_names() -> list[str]:
    """Return the names that ``build_trunk`` knows, sorted."""
    return sorted(_TRUNKS)


def is_one_network(name: str, other: str) -> bool:
    """Tell whether two names are forms of one network, so that the weights of one fit the other.

    Args:
        name: of a trunk.
        other: of another.
    """
    return _network_of(name) == _network_of(other)


def _network_of(name: str) -> tuple[Any, ...]:
    """Return what of a name its weights belong to: all but options that have none."""
    body, _, size = name.partition("_linear")
    built: Any = _TRUNKS[body]
    if not isinstance(built, partial):
        return built, {}, size
    options = {key: value for key, value in built.keywords.items() if key not in _WEIGHTLESS}
    return built.func, options, size


def build_trunk(name: str, width: int = STANDARD_WIDTH) -> Trunk:
    """Build a trunk with fresh weights from torch's global generator.

    Args:
        name: one of ``trunk_names()``; with ``_linearN`` behind it, N in 1 .. 65536, a Linear layer
            makes the pre-logits N features, whatever the width.
        width: 1 .. 64; 4 is the standard network, 8 the standard VGG, and every channel count is
            proportional to it.

    Returns:
        The trunk, in training mode.

    Raises:
        InputError: if the name is not known or the width is out of range.
    """
    body, _, size = name.partition("_linear")
    if body in _IMPOSSIBLE:
        raise InputError(f"trunk ('{name}') cannot be: {_IMPOSSIBLE[body]}")
    if body not in _TRUNKS:
        raise InputError(f"trunk ('{name}') is not known{nearest(body, _TRUNKS, lists_all=True)}")
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
        standard = STANDARD_VGG_WIDTH if body.startswith("vgg") else STANDARD_WIDTH
        raise InputError(
            f"width ({width!r}) must be a whole number in 1 .. {MAX_WIDTH}; "
            f"{standard} is the standard {name}"
        )
    trunk = _TRUNKS[body](width)
    if body != name:
        # No sign, no leading zero: one network, one name.
        is_number = size.isdecimal() and len(size) < 6 and size == str(int(size))
        if not (is_number and 1 <= int(size) <= MAX_REPRESENTATION):
            raise InputError(
                f"trunk ('{name}') must end with a whole number in 1 .. {MAX_REPRESENTATION}, the "
                f"features of its Linear layer, got '{size}'; say {body}_linear2048"
            )
        trunk = RepresentationTrunk(trunk, int(size))
    trunk.name, trunk.width = name, width
    return trunk
