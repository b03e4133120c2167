"""The index of a dataset: ``index.bin``, 64 bytes of header and 32 bytes a sample.

Little-endian; row = sample id; memory-mapped by readers. docs/shards.md has the table of fields.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from ..counts import spell_number
from ..errors import InputError
from ..system.files import open_regular, refusing_unreadable
from .jpeg import Sampling

INDEX_NAME = "index.bin"
MAGIC = b"FSSLIDX1"
VERSION = 1
_HEADER = struct.Struct("<8sIIQ32s8x")
HEADER_BYTES = _HEADER.size

ROW = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u4"),
        ("crc32", "<u4"),
        ("width", "<u2"),
        ("height", "<u2"),
        ("flags", "<u4"),
        ("label", "<i4"),
        ("span", "<u4"),
    ]
)
"""One sample."""


class Payload(IntEnum):
    """What the payload of a sample is; the numbers are part of the format."""

    JPEG = 0
    PNG = 1
    NPY = 2


@dataclass(frozen=True)
class SampleFlags:
    """The ``flags`` field of a row, taken apart."""

    orientation: int = 1
    """EXIF orientation of the payload, 1..8 (bits 0-2 hold it minus 1)."""
    is_grey: bool = False
    """One channel (bit 3)."""
    is_progressive: bool = False
    """Progressive JPEG (bit 4)."""
    payload: Payload = Payload.JPEG
    """Kind of payload (bits 5-7)."""
    sampling: Sampling = Sampling.S444
    """Chroma sampling of a JPEG (bits 8-10); 4:4:4 or grey otherwise."""
    use_reference: bool = False
    """Only the reference decoder is sure to read it as it should be (bit 11)."""
    restart_interval: int = 0
    """MCUs between restart markers of a JPEG, 0 none (bits 16-31)."""

    def pack(self) -> int:
        """Return the 32 bits."""
        return (
            (self.orientation - 1)
            | self.is_grey << 3
            | self.is_progressive << 4
            | int(self.payload) << 5
            | int(self.sampling) << 8
            | self.use_reference << 11
            | self.restart_interval << 16
        )

    @classmethod
    def unpack(cls, bits: int) -> SampleFlags:
        """Take 32 bits apart."""
        bits = int(bits)
        return cls(
            orientation=(bits & 7) + 1,
            is_grey=bool(bits >> 3 & 1),
            is_progressive=bool(bits >> 4 & 1),
            payload=Payload(bits >> 5 & 7),
            sampling=Sampling(bits >> 8 & 7),
            use_reference=bool(bits >> 11 & 1),
            restart_interval=bits >> 16,
        )


@dataclass(frozen=True)
class IndexHeader:
    """The first 64 bytes of an index."""

    count: int
    """Samples."""
    digest: str
    """The dataset's digest, 64 hex digits."""

    @property
    def num_bytes(self) -> int:
        """Size of the whole index."""
        return HEADER_BYTES + self.count * ROW.itemsize

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        return _HEADER.pack(MAGIC, VERSION, ROW.itemsize, self.count, bytes.fromhex(self.digest))


def parse_index_header(start: bytes, where: Path | str) -> IndexHeader:
    """Take the header of an index apart.

    Args:
        start: the first ``HEADER_BYTES`` of the file, or fewer if it is shorter.
        where: named in errors.

    Returns:
        The header.

    Raises:
        InputError: if they are not the header of an index of this version.
    """
    if len(start) < HEADER_BYTES or start[:8] != MAGIC:
        raise InputError(
            f"{where}: it begins with {start[:8]!r}, an index begins with {MAGIC!r}; "
            "restore it, or make the dataset again"
        )
    _, version, record_size, count, digest = _HEADER.unpack(start)
    if version != VERSION or record_size != ROW.itemsize:
        raise InputError(
            f"{where}: index version {version} with {record_size} bytes a sample, this fastssl "
            f"reads version {VERSION} with {ROW.itemsize}; make the dataset again"
        )
    return IndexHeader(count, digest.hex())


def read_index_header(path: Path) -> IndexHeader:
    """Read and check the header of an index, and the size of its file.

    Args:
        path: an ``index.bin``.

    Returns:
        The header.

    Raises:
        InputError: if the file is missing, is no index of this version, or has another size than
            its header says.
    """
    remedy = "restore it, or make the dataset again"
    try:
        with refusing_unreadable(path, remedy), open(open_regular(path), "rb") as file:
            start = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise InputError(f"{path}: the index is missing; {remedy}") from None
    header = parse_index_header(start, path)
    if size != header.num_bytes:
        raise InputError(
            f"{path}: {size} bytes, wanted {header.num_bytes} for "
            f"{spell_number(header.count, 'sample')}; {remedy}"
        )
    return header


def map_index(path: Path) -> np.memmap:
    """Map the rows of an index, read-only; nothing is copied.

    Args:
        path: an ``index.bin`` whose header is good.

    Returns:
        A structured array of ``ROW``, one row a sample.
    """
    return np.memmap(path, ROW, "r", HEADER_BYTES)
