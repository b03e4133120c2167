"""The trunks by name, and their export."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..config import MAX_WIDTH
from ..errors import InputError, nearest
from ..system.files import publish_bytes
from .alexnet import AlexNet
from .representation import RepresentationTrunk
from .resnet9 import ResNet9
from .resnet50 import ResNet50, ResNet50V1
from .resnet50_v2 import ResNet50V2
from .revnet50 import RevNet50
from .towers import first_tower_state
from .vgg19_bn import VGG19BN

STANDARD_WIDTH, STANDARD_VGG_WIDTH = 4, 8
MAX_REPRESENTATION = 65536

_PATCH: dict[str, Any] = {"root_stride": 1, "last_stride": 1}

# A trunk's options are part of its name, so that a run's config and an exported file name it whole.
_TRUNKS: dict[str, Callable[[int], nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_bn": partial(AlexNet, norm="all", lrn=False),
    "alexnet_color": partial(
        AlexNet, stride=4, norm="all", lrn=False, in_channels=1, has_affine=False
    ),
    "alexnet_no_bn": partial(AlexNet, norm="none"),
    "alexnet_no_lrn": partial(AlexNet, lrn=False),
    "alexnet_stride4": partial(AlexNet, stride=4),
    "alexnet_stride4_bn": partial(AlexNet, stride=4, norm="all", lrn=False),
    "resnet50": ResNet50,
    "resnet50_color": partial(ResNet50, in_channels=1, last_stride=1),
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
    "revnet50": RevNet50,
    "revnet50_minus": partial(RevNet50, last_relu=False),
    "revnet50_minus_patch": partial(RevNet50, last_relu=False, **_PATCH),
    "revnet50_patch": partial(RevNet50, **_PATCH),
    "vgg19_bn": VGG19BN,
    "vgg19_bn_patch": partial(VGG19BN, side=64),
}

# What is asked for and cannot be: the study's other switches on the wrong trunk.
_IMPOSSIBLE = {
    "resnet50_minus": "the units of v1 end with a ReLU; take resnet50_v2_minus",
    "resnet50_v1_minus": "the units of v1 end with a ReLU; take resnet50_v2_minus",
    "revnet50_noskip": "a reversible unit is its skip connection; take resnet50_v2_noskip",
    "revnet50_minus_noskip": "a reversible unit is its skip connection; take resnet50_v2_noskip",
    "vgg19_bn_noskip": "it has no skip connections; take vgg19_bn",
}


class Trunk(Protocol):
    """What every trunk offers beside being an ``nn.Module``."""

    name: str
    """The name that ``build_trunk`` knows it by."""
    width: int
    """The width that it was built with."""
    num_features: int
    """D, the features of its pre-logits."""
    min_side: int
    """Smallest side of an image that it takes, in pixels."""
    in_channels: int
    """Channels of an image that it takes; 3, or 1 for lightness alone."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to pre-logits (B, D)."""

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the named end points, pre_logits the last of them."""


def trunk_names() -> list[str]:
    """Return the names that ``build_trunk`` knows, sorted."""
    return sorted(_TRUNKS)


def build_trunk(name: str, width: int = STANDARD_WIDTH) -> nn.Module:
    """Build a trunk with fresh weights from torch's global generator.

    Args:
        name: one of ``trunk_names()``; with ``_linearN`` behind it, N in 1 .. 65536, a Linear layer
            makes the pre-logits N features, whatever the width.
        width: 1 .. 64; 4 is the standard network, 8 the standard VGG, and every channel count is
            proportional to it.

    Returns:
        A module with ``name``, ``width``, ``num_features``, ``min_side``, ``in_channels`` and
        ``forward_features``; see ``Trunk``.

    Raises:
        InputError: if the name is not known or the width is out of range.
    """
    body, _, size = name.partition("_linear")
    if body in _IMPOSSIBLE:
        raise InputError(f"trunk ('{name}') cannot be: {_IMPOSSIBLE[body]}")
    if body not in _TRUNKS:
        raise InputError(f"trunk ('{name}') is not known{nearest(body, _TRUNKS)}")
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
        standard = STANDARD_VGG_WIDTH if body.startswith("vgg") else STANDARD_WIDTH
        raise InputError(
            f"width ({width!r}) must be a whole number in 1 .. {MAX_WIDTH}; "
            f"{standard} is the standard {name}"
        )
    trunk = _TRUNKS[body](width)
    if body != name:
        # No sign, no leading zero: one network, one name.
        is_number = size.isdecimal() and size == str(int(size))
        if not (is_number and 1 <= int(size) <= MAX_REPRESENTATION):
            raise InputError(
                f"trunk ('{name}') must end with a whole number in 1 .. {MAX_REPRESENTATION}, the "
                f"features of its Linear layer, got '{size}'; say {body}_linear2048"
            )
        trunk = RepresentationTrunk(trunk, int(size))
    named = cast(Trunk, trunk)
    named.name, named.width = name, width
    return trunk


def _sort_header(data: bytes) -> bytes:
    """Give safetensors' bytes a header in sorted order: equal trunks make equal files.

    safetensors keeps metadata in a hash map and writes it in another order in every process.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def save_trunk(trunk: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Export a trunk as safetensors; equal weights and metadata make equal bytes.

    Args:
        trunk: from ``build_trunk``; its name and width join the metadata. Of a trunk with towers
            the first one's batch norms are kept, and the metadata's ``batch_norm`` says so.
        path: the file to write, by temporary file, fsync and rename.
        metadata: more to keep beside the weights, such as recipe, dataset digest and step.

    Raises:
        ValueError: if metadata holds something else than text, or another name or width.
        OSError: if the file cannot be written.
    """
    named = cast(Trunk, trunk)
    weights, num_towers = first_tower_state(trunk)
    own = {"name": named.name, "width": str(named.width)}
    if num_towers > 1:
        own["batch_norm"] = f"tower 1 of {num_towers}"
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise ValueError(f"metadata['{key}'] must be text, got {value!r}; use str()")
        if own.get(key, value) != value:
            raise ValueError(f"metadata['{key}'] ({value}) must be the trunk's own, {own[key]}")
    state = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    data = safetensors.torch.save(state, {**metadata, **own})
    publish_bytes(Path(path), _sort_header(data))


def _first_few(names: set[str]) -> str:
    """List names for an error message without filling the screen."""
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _check_state(path: Path, title: str, state: dict[str, Tensor], wanted: dict[str, Tensor]):
    """Raise InputError that names missing, unexpected and misshapen tensors."""
    wrong = {
        "missing": wanted.keys() - state.keys(),
        "unexpected": state.keys() - wanted.keys(),
        "of another shape": {
            f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in wanted.keys() & state.keys()
            if wanted[key].shape != state[key].shape
        },
    }
    found = "; ".join(f"{what}: {_first_few(keys)}" for what, keys in wrong.items() if keys)
    if found:
        raise InputError(f"{path} does not hold the weights of {title}: {found}; export it again")


def load_trunk(path: str | Path) -> tuple[nn.Module, dict[str, str]]:
    """Build the trunk that a file holds and load its weights, on the CPU.

    Args:
        path: a file by ``save_trunk``.

    Returns:
        The trunk, in training mode, and its metadata with name and width.

    Raises:
        InputError: if the file is missing, damaged, or does not hold the weights that it names.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a trunk.safetensors that a run has exported")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); export again"
        ) from None
    if "name" not in metadata or not metadata.get("width", "").isdecimal():
        raise InputError(
            f"{path} does not name its trunk: metadata must hold name and width, got "
            f"{sorted(metadata)}; export it with fastssl.models.save_trunk"
        )
    trunk = build_trunk(metadata["name"], int(metadata["width"]))
    title = f"{metadata['name']} of width {metadata['width']}"
    _check_state(path, title, state, trunk.state_dict())
    trunk.load_state_dict(state)
    return trunk, dict(metadata)
