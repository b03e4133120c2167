"""Permutation sets from files: published sets are not the product of any seed.

Three formats, told apart by their content: Noroozi's binary (int32, little-endian: count, patches,
then one permutation after the other), NumPy's ``.npy``, and text with a permutation a line. Entries
count from 0 or from 1.

Shape legend: Q permutations, P patches.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .permutations import PermutationSet, measure_distances

_NPY_MAGIC = b"\x93NUMPY"
_TEXT = frozenset(b"0123456789+-,;\t\r\n ")
_HEADER_VALUES = 2
_MAX_BYTES = 1 << 30


def read_permutations(path: str | Path, num_permutations: int, num_patches: int) -> PermutationSet:
    """Read a permutation set.

    Args:
        path: the file.
        num_permutations: Q that the file must hold.
        num_patches: P that each must have.

    Returns:
        The set, counted from 0.

    Raises:
        InputError: if the file cannot be read or holds another number of permutations, those of
            another grid, or what is no set of permutations.
    """
    path = Path(path)
    table = _parse(path, _read_bytes(path))
    if table.shape[1] != num_patches:
        raise InputError(
            f"task.permutations_file {path} is for {_name_grid(table.shape[1])}, the puzzle has "
            f"{_name_grid(num_patches)}; set --task.grid or give another file"
        )
    if len(table) != num_permutations:
        raise InputError(
            f"task.permutations_file {path} holds {len(table)} permutations, "
            f"task.num_permutations is {num_permutations}; set --task.num-permutations {len(table)}"
        )
    members = np.ascontiguousarray(table - (1 if table.min() == 1 else 0))
    wrong = (np.sort(members, axis=1) != np.arange(num_patches)).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"task.permutations_file {path}: row {row + 1} {table[row].tolist()} is no permutation "
            f"of {num_patches} patches, counted from 0 or from 1; correct the file"
        )
    _, first, counts = np.unique(members, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = int(first[counts > 1].min())
        raise InputError(
            f"task.permutations_file {path}: row {row + 1} {table[row].tolist()} stands there "
            "twice, so that two labels would mean one puzzle; correct the file"
        )
    members.setflags(write=False)
    return PermutationSet(members, *measure_distances(members))


def _name_grid(num_patches: int) -> str:
    side = math.isqrt(num_patches)
    grid = f" (grid {side} x {side})" if side * side == num_patches else ""
    return f"{num_patches} patches{grid}"


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"task.permutations_file {path} cannot be read ({error.strerror}); name a file, or "
            "leave it out to generate a set"
        ) from None
    if len(content) > _MAX_BYTES:
        raise InputError(
            f"task.permutations_file {path} is larger than {_MAX_BYTES} bytes; no set is"
        )
    return content


def _parse(path: Path, content: bytes) -> NDArray[np.int64]:
    """Return the table (Q, P) as it stands in the file."""
    try:
        if content.startswith(_NPY_MAGIC):
            table = _parse_npy(content)
        elif _TEXT.issuperset(content):
            table = _parse_text(content)
        else:
            table = _parse_binary(content)
    except ValueError as error:
        raise InputError(
            f"task.permutations_file {path} is neither int32 binary with a header, nor .npy, nor "
            f"text with a permutation a line: {error}"
        ) from None
    return table


def _parse_npy(content: bytes) -> NDArray[np.int64]:
    table = np.load(io.BytesIO(content), allow_pickle=False)
    if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"the array must be integers (Q, P), got {table.dtype} {table.shape}")
    return table.astype(np.int64)


def _parse_text(content: bytes) -> NDArray[np.int64]:
    lines = content.decode("ascii").replace(",", " ").replace(";", " ").splitlines()
    rows = [[int(word) for word in line.split()] for line in lines if line.strip()]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"lines must have one length, got {sorted(lengths) or 'no line'}")
    return np.array(rows, np.int64)


def _parse_binary(content: bytes) -> NDArray[np.int64]:
    if len(content) % 4 or len(content) < 4 * _HEADER_VALUES:
        raise ValueError(f"{len(content)} bytes are no table of int32")
    values = np.frombuffer(content, "<i4").astype(np.int64)
    count, patches = values[:_HEADER_VALUES].tolist()
    entries = values[_HEADER_VALUES:]
    if count < 1 or patches < 1 or len(entries) != count * patches:
        raise ValueError(
            f"the header says {count} permutations of {patches} patches, {len(entries)} entries "
            "follow"
        )
    return entries.reshape(count, patches)
