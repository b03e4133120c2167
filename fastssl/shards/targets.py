"""Targets: what else is known of every sample, one memory-mapped array each.

``targets/<name>.npy`` beside the index, row = sample id, any shape behind it. The manifest lists
type, shape and SHA-256 of each; a file that says otherwise is refused before an item is read.

Shape legend: N samples of the dataset, C classes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..counts import spell_number
from ..errors import InputError, nearest
from ..system.files import check_mapped, open_regular, published, refusing_unreadable
from .npy import MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, NpyError, pack_header, parse_header

FOLDER_NAME = "targets"
"""Folder of a dataset that holds its targets."""

LABELS = "labels"
"""Target with several labels an image: int8 (N, C), a column a class of the manifest."""

OBJECTS = "objects"
"""Target with the objects of a picture: float32 (N, M, 6), a row an object, ``x1 y1 x2 y2 class
difficult``: corners in pixels of the upright picture as it is stored, x2 and y2 behind the box; the
class's place among the manifest's; 1 for what is not to be counted. M is the most that a picture
has; unused rows are ``NO_OBJECT``, behind the others."""

NO_OBJECT = (0.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""A row of ``objects`` that holds none."""

PRESENT, NOT_COUNTED, ABSENT = 1, 0, -1
"""What ``labels`` holds; 0 for difficult objects only, and where nobody looked."""

DTYPES = {
    "bool": "|b1",
    "int8": "|i1",
    "uint8": "|u1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
}
"""Types that a target may have, and how an ``.npy`` spells them: all that torch knows too."""

MAX_ROW_BYTES = 1 << 26
"""Bytes of the largest row: a map of 4,096 x 4,096 numbers of four bytes."""

_NAME = re.compile("[a-z0-9_]{1,64}")
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_AXES = 8


@dataclass(frozen=True)
class TargetSpec:
    """What a target is, whatever the number of samples."""

    name: str
    """``[a-z0-9_]+``: its file is ``targets/<name>.npy``."""
    dtype: str
    """One of ``DTYPES``."""
    row_shape: tuple[int, ...] = ()
    """Shape of one sample's."""

    def __post_init__(self) -> None:
        """Refuse what no dataset may hold."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a target is named {self.name!r}, wanted a-z, 0-9 and _")
        if self.dtype not in DTYPES:
            raise ValueError(f"target {self.name!r} is {self.dtype!r}{nearest(self.dtype, DTYPES)}")
        sides = self.row_shape
        if len(sides) >= _MAX_AXES or any(type(side) is not int or side < 1 for side in sides):
            raise ValueError(f"target {self.name!r} has rows of shape {str(list(sides))[:80]}")
        if self.row_bytes > MAX_ROW_BYTES:
            what = f"rows of {self.row_bytes:,} bytes, up to {MAX_ROW_BYTES:,}"
            raise ValueError(f"target {self.name!r} has {what}")

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample's."""
        return math.prod(self.row_shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def describe(self) -> str:
        """Say type and shape, as ``int8 (N, 20)``."""
        inside = ", ".join(["N", *map(str, self.row_shape)])
        return f"{self.dtype} ({inside}{'' if self.row_shape else ','})"


@dataclass(frozen=True)
class TargetEntry:
    """One target of a dataset, as the manifest lists it."""

    name: str
    """``[a-z0-9_]+``: its file is ``targets/<name>.npy``."""
    dtype: str
    """One of ``DTYPES``."""
    shape: tuple[int, ...]
    """(N, ...)."""
    sha256: str
    """SHA-256 of the file, 64 hex digits."""

    def __post_init__(self) -> None:
        """Refuse what no dataset may hold."""
        _ = self.spec
        if not self.shape or type(self.shape[0]) is not int or self.shape[0] < 1:
            raise ValueError(f"target {self.name!r} has the shape {list(self.shape)}")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"target {self.name!r} has no SHA-256")

    @property
    def spec(self) -> TargetSpec:
        """What it is, whatever the number of samples."""
        return TargetSpec(self.name, self.dtype, tuple(self.shape[1:]))

    @property
    def file_name(self) -> str:
        """Where it lies, relative to the dataset's folder."""
        return f"{FOLDER_NAME}/{self.name}.npy"

    @property
    def header(self) -> bytes:
        """How its file begins."""
        return pack_header(DTYPES[self.dtype], self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of its file as ``write_target`` makes it."""
        itemsize = np.dtype(DTYPES[self.dtype]).itemsize
        return len(self.header) + math.prod(self.shape) * itemsize

    def describe(self) -> str:
        """Say type and shape, as ``int8 (5011, 20)``."""
        return f"{self.dtype} {self.shape}"


def check_entries(entries: Sequence[TargetEntry], num_samples: int, num_classes: int) -> None:
    """See that a manifest's targets fit the rest of it.

    Raises:
        ValueError: if they do not.
    """
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError("it lists a target twice")
    for entry in entries:
        if entry.shape[0] != num_samples:
            raise ValueError(
                f"target {entry.name!r} has {spell_number(entry.shape[0], 'row')} for "
                f"{spell_number(num_samples, 'sample')}"
            )
        wanted = ("int8", (num_samples, num_classes))
        if entry.name == LABELS and (entry.dtype, entry.shape) != wanted:
            raise ValueError(
                f"target {LABELS!r} is {entry.describe()}, wanted int8 {wanted[1]}: a column "
                "a class"
            )
        is_objects = entry.dtype == "float32" and entry.shape[2:] == (len(NO_OBJECT),)
        if entry.name == OBJECTS and not is_objects:
            raise ValueError(
                f"target {OBJECTS!r} is {entry.describe()}, wanted float32 (N, M, {len(NO_OBJECT)})"
            )


# --- Reading --------------------------------------------------------------------------------------


def check_target(path: Path, entry: TargetEntry) -> None:
    """See by its header and its size that a file is the array that the manifest lists.

    Args:
        path: the file.
        entry: what the manifest says of it.

    Raises:
        InputError: if it is another array, cut, or missing.
    """
    remedy = "restore it, or make the dataset again"
    try:
        with refusing_unreadable(path, remedy), open(open_regular(path), "rb") as file:
            start = file.read(PREFIX_BYTES + MAX_HEADER_BYTES)
            size = file.seek(0, 2)
    except FileNotFoundError:
        raise InputError(f"{path}: the target is missing; {remedy}") from None
    if not start.startswith(entry.header):
        raise InputError(
            f"{path}: {_describe_file(start, entry)}, the manifest says {entry.describe()}; "
            f"{remedy}"
        )
    if size != entry.num_bytes:
        raise InputError(
            f"{path}: {size} bytes, {entry.describe()} takes {entry.num_bytes}; {remedy}"
        )


def _describe_file(start: bytes, entry: TargetEntry) -> str:
    """Say what a file is that is not the array that it should be."""
    if not start.startswith(MAGIC):
        return f"it begins with {start[: len(MAGIC)]!r}"
    try:
        header = parse_header(start)
    except NpyError as error:
        return error.detail
    kinds = {descr: dtype for dtype, descr in DTYPES.items()}
    if header.descr not in kinds:
        return f"an .npy of {header.text}"
    found = f"{kinds[header.descr]} {header.shape}"
    return found if found != entry.describe() else f"{found} behind another writer's header"


class Targets(Mapping[str, np.memmap]):
    """The targets of a dataset by name; each is mapped, read-only, when it is first asked for."""

    def __init__(self, entries: Sequence[TargetEntry], find: Callable[[TargetEntry], Path]) -> None:
        """Map nothing yet.

        Args:
            entries: what the manifest lists.
            find: gives the file of one; of a remote dataset it fetches it.
        """
        self._entries = {entry.name: entry for entry in entries}
        self._find = find
        self._mapped: dict[str, np.memmap] = {}

    def __getitem__(self, name: str) -> np.memmap:
        """Return (N, ...), row = sample id.

        Raises:
            KeyError: for a name that the dataset does not have.
            InputError: if the file is not what the manifest lists.
            RunFailed: if it was cut since it was first asked for.
        """
        if name not in self._mapped:
            if name not in self._entries:
                raise KeyError(f"no target {name!r}{nearest(name, self._entries)}")
            entry = self._entries[name]
            path = self._find(entry)
            check_target(path, entry)
            self._mapped[name] = np.memmap(
                path, DTYPES[entry.dtype], "r", len(entry.header), entry.shape
            )
        check_mapped(self._mapped[name])
        return self._mapped[name]

    def __contains__(self, name: object) -> bool:
        """Return whether the dataset has a target; nothing is mapped."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self._entries)

    def close(self) -> None:
        """Let go of every array; nothing can be asked for any more."""
        self._entries = {}
        self._mapped = {}


# --- Writing --------------------------------------------------------------------------------------


def write_target(
    folder: Path,
    spec: TargetSpec,
    num_samples: int,
    parts: Iterable[np.ndarray],
    scratch: Path | None = None,
) -> TargetEntry:
    """Write one target of a dataset; it appears whole or not at all.

    Args:
        folder: the dataset's.
        spec: what the target is.
        num_samples: N.
        parts: rows in the order of sample ids, (n, ...) each, N in all.
        scratch: where the file lies while it is written; None takes the dataset's ``targets``.

    Returns:
        What the manifest shall list.
    """
    path = folder / FOLDER_NAME / f"{spec.name}.npy"
    path.parent.mkdir(exist_ok=True)
    return write_rows(path, spec, num_samples, parts, scratch)


def write_rows(
    path: Path,
    spec: TargetSpec,
    num_samples: int,
    parts: Iterable[np.ndarray],
    scratch: Path | None = None,
) -> TargetEntry:
    """Write the array of a target, wherever; it appears whole or not at all.

    Args:
        path: its file.
        spec: what the target is.
        num_samples: N.
        parts: rows in the order of sample ids, (n, ...) each, N in all.
        scratch: where the file lies while it is written; None takes its own folder.

    Returns:
        What it is, with its SHA-256.
    """
    shape, descr = (num_samples, *spec.row_shape), np.dtype(DTYPES[spec.dtype])
    draft = TargetEntry(spec.name, spec.dtype, shape, "0" * 64)
    digest, num_written = hashlib.sha256(draft.header), 0
    with published(path, scratch) as file:
        file.write(draft.header)
        for rows in parts:
            assert rows.dtype == descr
            assert rows.shape[1:] == spec.row_shape
            content = rows.tobytes()
            file.write(content)
            digest.update(content)
            num_written += len(rows)
        assert num_written == num_samples
    return TargetEntry(spec.name, spec.dtype, shape, digest.hexdigest())
