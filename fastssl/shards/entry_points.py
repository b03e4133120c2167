"""Entry points: the file beside the index that lets JPEGs be decoded from their middle on.

``entry_points.bin``, little-endian: 64 bytes of header, then where each sample's record begins and
the last one ends (N + 1 of 8 bytes, from the file's beginning), then the records. A record is bound
to its payload by CRC-32s and is of ``csrc/jpeg/entry_points.h``; a sample without one has none of
length 0. They change no pixel, so they are no part of the dataset's digest.

Shape legend: N samples of the dataset, B samples of a batch.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..system.files import published

ENTRY_POINTS_NAME = "entry_points.bin"
MAX_SHARE = 0.015
"""Of a payload's bytes that its record may take."""

_MAGIC = b"FSSLENT1"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQ32s8x")
HEADER_BYTES = _HEADER.size
OFFSET = np.dtype("<u8")
"""Where a record begins or ends, in the table behind the header."""
_CHUNK_BYTES = 1 << 22


def pack_header(num_samples: int, digest: str) -> bytes:
    """Return how the file of a dataset begins.

    Args:
        num_samples: N.
        digest: of the dataset, 64 hex digits.
    """
    return _HEADER.pack(_MAGIC, _VERSION, 0, num_samples, bytes.fromhex(digest))


@dataclass(frozen=True)
class EntryPointsFile:
    """The file, as the manifest names it."""

    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Its size."""
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Its SHA-256, 64 hex digits."""
    samples: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Samples that have a record."""


class EntryPointsPart:
    """The records of some samples in a row, while the file is not written yet."""

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        """Begin, as a rule without any."""
        self._records = list(records)

    @classmethod
    def parse(cls, content: bytes) -> EntryPointsPart:
        """Read what ``pack`` wrote."""
        lengths = _read_lengths(io.BytesIO(content))
        ends = np.cumsum(lengths).astype(np.int64) + 8 + 4 * len(lengths)
        begins = ends - lengths.astype(np.int64)
        return cls(content[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True))

    def __len__(self) -> int:
        """Return how many samples it is of."""
        return len(self._records)

    def choose(self, places: NDArray[np.int64]) -> EntryPointsPart:
        """Return a part of it.

        Args:
            places: of the samples that stay, in their order.
        """
        return EntryPointsPart(self._records[place] for place in places.tolist())

    def add(self, *records: bytes) -> None:
        """Add those of the next samples; empty for one that has none."""
        self._records += records

    def add_none(self, count: int) -> None:
        """Go on over samples that have none."""
        self._records += [b""] * count

    def pack(self) -> bytes:
        """Return what ``write_entry_points`` takes: N, N lengths of 4 bytes, the records."""
        lengths = np.array([len(record) for record in self._records], "<u4")
        return len(lengths).to_bytes(8, "little") + lengths.tobytes() + b"".join(self._records)


def _read_lengths(file: BinaryIO) -> NDArray[np.uint64]:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(4 * count), "<u4").astype(np.uint64)


def write_entry_points(
    target: Path, digest: str, num_samples: int, parts: Iterable[Path], scratch: Path | None = None
) -> EntryPointsFile | None:
    """Put the records of all samples together.

    Args:
        target: the file.
        digest: of the dataset, 64 hex digits.
        num_samples: N.
        parts: files of what ``EntryPointsPart.pack`` gave, in the order of sample ids.
        scratch: folder in which the file grows; None takes the target's.

    Returns:
        What the manifest says of it; None where no sample has a record, and nothing was written.
    """
    paths = list(parts)
    at, count = HEADER_BYTES + (num_samples + 1) * OFFSET.itemsize, 0
    sha256, size = hashlib.sha256(), at

    def lengths_of(path: Path) -> NDArray[np.uint64]:
        with path.open("rb") as part:
            return _read_lengths(part)

    count = sum(int(np.count_nonzero(lengths_of(path))) for path in paths)
    if not count:
        return None
    with published(target, scratch) as file:

        def write(content: bytes) -> None:
            file.write(content)
            sha256.update(content)

        write(pack_header(num_samples, digest))
        write(np.array([at], OFFSET).tobytes())
        for path in paths:
            ends = np.cumsum(lengths_of(path)) + np.uint64(size)
            size = int(ends[-1]) if len(ends) else size
            write(ends.astype(OFFSET).tobytes())
        for path in paths:
            with path.open("rb") as part:
                _read_lengths(part)
                while chunk := part.read(_CHUNK_BYTES):
                    write(chunk)
    assert target.stat().st_size == size
    return EntryPointsFile(size, sha256.hexdigest(), count)
