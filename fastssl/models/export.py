"""Trunks as files: safetensors that name their trunk, and the digest of what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import InputError
from ..system.files import publish_bytes
from .base import Trunk
from .towers import first_tower_state
from .trunks import build_trunk


def digest_trunk(trunk: Trunk) -> str:
    """Return the SHA-256 of a trunk's name, width and weights: names, types, shapes and bytes.

    It is that of the trunk as it would be exported: equal on every device, and whatever else the
    file says of it.
    """
    weights, _ = first_tower_state(trunk)
    digest = hashlib.sha256(json.dumps([trunk.name, trunk.width]).encode())
    for key, value in sorted(weights.items()):
        digest.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode())
        content = value.detach().cpu().contiguous().flatten()
        digest.update(memoryview(content.view(torch.uint8).numpy()))
    return digest.hexdigest()


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


def save_trunk(trunk: Trunk, path: str | Path, metadata: Mapping[str, str]) -> None:
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
    weights, num_towers = first_tower_state(trunk)
    own = {"name": trunk.name, "width": str(trunk.width)}
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


def load_trunk(path: str | Path) -> tuple[Trunk, dict[str, str]]:
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
