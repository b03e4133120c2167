"""Targets that lie outside a dataset, since they are made of it: proposals, for one.

``<name>.npy`` has a row a sample, as a dataset's own targets have; ``<name>.json`` beside it says
of which dataset: {"dataset_digest", "sha256", ...}. The JSON is written last and without it the
array is nothing; its own SHA-256 stands for both.

Shape legend: N samples of the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from ..counts import spell_number
from ..errors import InputError
from ..system.files import open_regular, publish_bytes, read_own, refusing_unreadable
from .npy import MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, NpyError, NpyHeader, parse_header
from .reader import ShardDataset
from .targets import DTYPES, TargetEntry, TargetSpec, write_rows

ENDING = ".json"
"""Of the file beside the array."""

_MAX_BYTES = 1 << 20
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _About(msgspec.Struct):
    dataset_digest: _Sha256
    sha256: _Sha256


def write_target_file(
    path: Path,
    spec: TargetSpec,
    dataset: ShardDataset,
    parts: Iterable[np.ndarray],
    about: dict[str, Any],
) -> None:
    """Write an array of a row a sample, and what says so.

    Args:
        path: its ``.npy``; the name is the target's.
        spec: what it is.
        dataset: of which.
        parts: rows in the order of sample ids, (n, ...) each, N in all.
        about: what else its JSON shall say; of equal rows the same.
    """
    beside = path.with_suffix(ENDING)
    beside.unlink(missing_ok=True)
    entry = write_rows(path, spec, dataset.num_samples, parts)
    said = {"dataset_digest": dataset.digest, "sha256": entry.sha256, **about}
    publish_bytes(beside, (json.dumps(said, indent=1) + "\n").encode("ascii"))


def open_target_file(path: Path, dataset: ShardDataset) -> np.memmap:
    """Map an array of a row a sample.

    Args:
        path: its ``.npy``.
        dataset: the one that batches are of.

    Returns:
        (N, ...), row = sample id, read-only.

    Raises:
        InputError: if it is missing, no such array, of another dataset, or of too few rows.
    """
    about = _read_about(path)
    if about.dataset_digest != dataset.digest:
        raise InputError(
            f"data.target_files: {path} was made of the dataset {about.dataset_digest[:12]}, and "
            f"{dataset.path} is {dataset.digest[:12]}; make it of this one"
        )
    remedy = "restore it, or make it again"
    try:
        with refusing_unreadable(path, remedy), open(open_regular(path), "rb") as file:
            content = file.read(PREFIX_BYTES + MAX_HEADER_BYTES)
            size = file.seek(0, 2)
        header = _parse(content)
        kinds = {descr: dtype for dtype, descr in DTYPES.items()}
        entry = TargetEntry(path.stem, kinds[header.descr], header.shape, about.sha256)
    except FileNotFoundError:
        raise InputError(f"data.target_files: {path}: no such file; {remedy}") from None
    except (NpyError, KeyError, ValueError) as error:
        what = error.detail if isinstance(error, NpyError) else str(error)
        raise InputError(f"data.target_files: {path} is no target ({what}); {remedy}") from None
    if entry.shape[0] != dataset.num_samples:
        raise InputError(
            f"data.target_files: {path} has {spell_number(entry.shape[0], 'row')}, {dataset.path} "
            f"has {spell_number(dataset.num_samples, 'sample')}; make it again"
        )
    wanted = header.start + entry.num_bytes - len(entry.header)
    if size != wanted:
        raise InputError(
            f"data.target_files: {path}: {size:,} bytes, {entry.describe()} takes {wanted:,}; "
            f"{remedy}"
        )
    return np.memmap(path, DTYPES[entry.dtype], "r", header.start, entry.shape)


def _parse(content: bytes) -> NpyHeader:
    if not content.startswith(MAGIC):
        raise NpyError("non-image", f"it begins with {content[: len(MAGIC)]!r}")
    header = parse_header(content)
    if header.descr not in DTYPES.values():
        raise NpyError("non-image", f"an .npy of {header.text}")
    return header


def _read_about(path: Path) -> _About:
    beside = path.with_suffix(ENDING)
    try:
        return msgspec.json.decode(read_own(beside, _MAX_BYTES), type=_About)
    except FileNotFoundError:
        raise InputError(
            f"data.target_files: {beside}, which says what {path.name} is of, is missing; restore "
            "it, or make both again"
        ) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(
            f"data.target_files: {beside} is not what says of which dataset a target is ({error}); "
            "restore it, or make both again"
        ) from None
