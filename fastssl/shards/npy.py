"""``.npy`` without NumPy's own parser: raw pixels, and the headers of targets.

NumPy's parser evaluates the header as Python and may unpickle what follows; bytes from elsewhere
get neither here.

Shape legend: H W pixels, upright.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
"""How every ``.npy`` begins."""

PIXELS_AT = 128
"""Where the pixels begin in the arrays that we write."""

MAX_HEADER_BYTES = 4096
"""Length of the longest header that is read, without the prefix."""

_PREFIX = struct.Struct("<6sBBH")
_LONG_PREFIX = struct.Struct("<6sBBI")
PREFIX_BYTES = _LONG_PREFIX.size
"""Bytes before a header, at the most."""

_ALIGNMENT = 64
# What np.save and other writers of version 1 to 3 make of an array of numbers in C order.
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([|<>=]?[a-z][0-9]{1,2})',\s*'fortran_order':\s*False,\s*"
    rb"'shape':\s*\(\s*((?:[0-9]{1,18},\s*)*(?:[0-9]{1,18})?)\s*\),?\s*\}\s*"
)


class NpyError(ValueError):
    """Bytes that begin like an ``.npy`` and are no picture."""

    def __init__(self, reason: str, detail: str):
        """Keep the reason (one of ``picture.REASONS``) and a sentence that says more."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class NpyHeader:
    """What the header of an ``.npy`` says."""

    descr: str
    """Type of the items as NumPy writes it, ``<f4``; empty for objects, records, Fortran order."""
    shape: tuple[int, ...]
    """Shape of the array."""
    start: int
    """Where its items begin."""
    text: str
    """The beginning of the header, for messages."""


def pack_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of an ``.npy``: version 1.0, items from a multiple of 64 bytes on.

    np.save leaves room in its header that differs between versions of NumPy; these bytes do not.

    Args:
        descr: type of the items, ``|u1``, ``<f4``.
        shape: of the array, in C order.
    """
    inside = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({inside}), }}"
    size = max(PIXELS_AT, -(-(_PREFIX.size + len(text) + 1) // _ALIGNMENT) * _ALIGNMENT)
    room = size - _PREFIX.size
    return _PREFIX.pack(MAGIC, 1, 0, room) + text.encode("ascii").ljust(room - 1) + b"\n"


def parse_header(content: bytes) -> NpyHeader:
    """Read the header of an ``.npy``.

    Args:
        content: bytes that begin with ``MAGIC``; of the array itself none are needed.

    Raises:
        NpyError: if the header is cut, or too long to be one.
    """
    prefix = _PREFIX if content[6:7] == b"\x01" else _LONG_PREFIX
    if len(content) < prefix.size:
        raise NpyError("truncated", "the .npy ends in its header")
    length = prefix.unpack_from(content)[3]
    start = prefix.size + length
    if length > MAX_HEADER_BYTES:
        raise NpyError("non-image", f"an .npy with a header of {length:,} bytes")
    if len(content) < start:
        raise NpyError("truncated", "the .npy ends in its header")
    header = content[prefix.size : start]
    shown = header[:80].decode("ascii", "backslashreplace").strip()
    match = _HEADER.fullmatch(header)
    if match is None:
        return NpyHeader("", (), start, shown)
    shape = tuple(int(side) for side in match[2].split(b",") if side.strip())
    return NpyHeader(match[1].decode("ascii"), shape, start, shown)


def pack_npy(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """Return an ``.npy`` that any NumPy reads: version 1.0, pixels from byte ``PIXELS_AT`` on.

    Args:
        pixels_HWC: uint8 (H, W, 3).
    """
    height, width, channels = pixels_HWC.shape
    assert pixels_HWC.dtype == np.uint8
    assert channels == 3
    return pack_header("|u1", (height, width, 3)) + np.ascontiguousarray(pixels_HWC).tobytes()


def parse_npy(payload: bytes) -> tuple[int, int, int]:
    """Read the header of raw pixels.

    Args:
        payload: bytes that begin with ``MAGIC``.

    Returns:
        Height, width, and where the pixels begin; the payload ends with the last of them.

    Raises:
        NpyError: if it is no C-ordered uint8 (H, W, 3) of at least one pixel, or is cut.
    """
    header = parse_header(payload)
    is_picture = len(header.shape) == 3 and header.shape[2] == 3 and min(header.shape) > 0
    if header.descr.lstrip("|<>=") != "u1" or not is_picture:
        raise NpyError("non-image", f"an .npy of {header.text}; a picture is uint8 (H, W, 3)")
    return header.shape[0], header.shape[1], header.start


def view_npy(payload: bytes) -> NDArray[np.uint8]:
    """Look at raw pixels; nothing is copied.

    Args:
        payload: an ``.npy``.

    Returns:
        uint8 (H, W, 3), read-only.

    Raises:
        NpyError: as ``parse_npy``, and if the pixels are not exactly those of the header.
    """
    height, width, start = parse_npy(payload)
    wanted, found = height * width * 3, len(payload) - start
    if found != wanted:
        raise NpyError(
            "truncated" if found < wanted else "corrupt",
            f"{found} bytes of pixels, {height} x {width} x 3 are {wanted}",
        )
    return np.frombuffer(payload, np.uint8, wanted, start).reshape(height, width, 3)
