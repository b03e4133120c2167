"""Trunks as files: safetensors that name their trunk, and the digest of what they hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..errors import InputError, nearest_beside
from ..system.files import publish_bytes
from .archives import find_long_header
from .base import Trunk
from .towers import first_tower_state
from .trunks import build_trunk

TRUNK_NAME = "trunk.safetensors"
"""The file that a run exports its trunk to."""


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


def find_trunk_file(source: Path, what: str) -> Path:
    """Return the file of the trunk that a run or a file stands for.

    Args:
        source: a run that has ended, or a file.
        what: the option or argument that named it.

    Raises:
        InputError: if there is none.
    """
    if source.is_file():
        return source
    if (source / TRUNK_NAME).is_file():
        return source / TRUNK_NAME
    if source.is_dir():
        raise InputError(
            f"{what} ({source}) is a folder without {TRUNK_NAME}, which a run exports when it "
            "ends; give a run that has ended, or a file; one that was stopped ends when it is "
            "started again with --max-steps at the step that it has come to"
        )
    hint = nearest_beside(source) or "; give a run that has ended, or a file"
    raise InputError(f"{what} ({source}) is not there{hint}")


def is_export(path: Path) -> bool:
    """Tell whether a file is safetensors that name their trunk."""
    if path.suffix != ".safetensors":
        return False
    if find_long_header(path) is not None:
        return True  # load_trunk refuses it
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return True  # damaged: load_trunk says how
    return "name" in metadata and "width" in metadata


def load_trunk(path: str | Path) -> tuple[Trunk, dict[str, str]]:
    """Build the trunk that a run has exported, or a file holds, and load its weights, on the CPU.

    Args:
        path: a run directory, or a file by ``save_trunk``.

    Returns:
        The trunk, in training mode, and its metadata with name and width.

    Raises:
        InputError: if the file is missing, damaged, or does not hold the weights that it names.
    """
    path = find_trunk_file(Path(path), "path")
    if (size := find_long_header(path)) is not None:
        raise InputError(
            f"{path} is not a file of a trunk (its header has {size:,} bytes); export again"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            name, width = _read_name(path, metadata)
            _check_shapes(path, name, width, shapes)
            state = {key: file.get_tensor(key) for key in shapes}
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); export again"
        ) from None
    trunk = build_trunk(name, width)
    trunk.load_state_dict(state)
    return trunk, metadata


def _read_name(path: Path, metadata: Mapping[str, str]) -> tuple[str, int]:
    """Return the name and the width of the trunk that a file says it holds."""
    name, width = metadata.get("name", ""), metadata.get("width", "")
    # No name is longer or holds what moves a terminal's cursor; no width has a thousand digits.
    if not (re.fullmatch(r"\w{1,80}", name, re.ASCII) and re.fullmatch("[0-9]{1,3}", width)):
        raise InputError(
            f"{path} does not name its trunk: metadata must hold name and width, got "
            f"{sorted(metadata)[:20]}; export it with fastssl.models.save_trunk"
        )
    return name, int(width)


def _check_shapes(path: Path, name: str, width: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError that names missing, unexpected and misshapen tensors.

    The trunk is built without memory: a small file may name one of many gigabytes.
    """
    try:
        with torch.device("meta"):
            outline = build_trunk(name, width)
    except InputError as error:
        raise InputError(f"{path} names a trunk that cannot be: {error}") from None
    wanted = {key: tuple(value.shape) for key, value in outline.state_dict().items()}
    wrong = {
        "missing": wanted.keys() - shapes.keys(),
        "unexpected": shapes.keys() - wanted.keys(),
        "of another shape": {
            f"{key} {shapes[key]} instead of {wanted[key]}"
            for key in wanted.keys() & shapes.keys()
            if wanted[key] != shapes[key]
        },
    }
    found = "; ".join(f"{what}: {_first_few(keys)}" for what, keys in wrong.items() if keys)
    if found:
        raise InputError(
            f"{path} does not hold the weights of {name} of width {width}: {found}; export it again"
        )
