"""The trunks by name, and their export."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..command import nearest
from ..errors import InputError
from ..publish import publish_bytes
from .alexnet import AlexNet
from .resnet9 import ResNet9
from .resnet50 import ResNet50
from .towers import first_tower_state

STANDARD_WIDTH = 4
MAX_WIDTH = 64

# A trunk's options are part of its name, so that a run's config and an exported file name it whole.
_TRUNKS: dict[str, Callable[[int], nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_bn": partial(AlexNet, norm="all", lrn=False),
    "alexnet_no_bn": partial(AlexNet, norm="none"),
    "alexnet_no_lrn": partial(AlexNet, lrn=False),
    "alexnet_stride4": partial(AlexNet, stride=4),
    "alexnet_stride4_bn": partial(AlexNet, stride=4, norm="all", lrn=False),
    "resnet50": ResNet50,
    "resnet50_patch": partial(ResNet50, root_stride=1, last_stride=1),
    "resnet9": ResNet9,
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

    def __call__(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to pre-logits (B, D)."""

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the named end points, pre_logits the last of them."""


def trunk_names() -> list[str]:
    """Return the names that ``build_trunk`` knows, sorted."""
    return sorted(_TRUNKS)


def build_trunk(name: str, width: int = STANDARD_WIDTH) -> nn.Module:
    """Build a trunk with fresh weights from torch's global generator.

    Args:
        name: one of ``trunk_names()``.
        width: 1 .. 64; 4 is the standard network and every channel count is proportional to it.

    Returns:
        A module with ``name``, ``width``, ``num_features`` and ``forward_features``; see ``Trunk``.

    Raises:
        InputError: if the name is not known or the width is out of range.
    """
    if name not in _TRUNKS:
        raise InputError(f"trunk ('{name}') is not known{nearest(name, _TRUNKS)}")
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
        raise InputError(
            f"width ({width!r}) must be a whole number in 1 .. {MAX_WIDTH}; "
            f"{STANDARD_WIDTH} is the standard {name}"
        )
    trunk = _TRUNKS[name](width)
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
