"""Raw pixels as ``.npy``: one kind of array, one header, read without NumPy's own parser.

NumPy's parser evaluates the header as Python and may unpickle what follows; bytes from elsewhere
get neither here.

Shape legend: H W pixels, upright.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
"""How every ``.npy`` begins."""

PIXELS_AT = 128
"""Where the pixels begin in the arrays that we write."""

_PREFIX = struct.Struct("<6sBBH")
_LONG_PREFIX = struct.Struct("<6sBBI")
_MAX_HEADER_BYTES = 4096
# What np.save and other writers of version 1 to 3 make of a uint8 array; a side has five digits at
# most anyway.
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'[|<>=]?u1',\s*'fortran_order':\s*False,\s*"
    rb"'shape':\s*\(\s*([0-9]{1,9}),\s*([0-9]{1,9}),\s*3,?\s*\),?\s*\}\s*"
)


class NpyError(ValueError):
    """Bytes that begin like an ``.npy`` and are no picture."""

    def __init__(self, reason: str, detail: str):
        """Keep the reason (one of ``picture.REASONS``) and a sentence that says more."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def pack_npy(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """Return an ``.npy`` that any NumPy reads: version 1.0, pixels from byte ``PIXELS_AT`` on.

    np.save leaves room in its header that differs between versions of NumPy; these bytes do not.

    Args:
        pixels_HWC: uint8 (H, W, 3).
    """
    height, width, channels = pixels_HWC.shape
    assert pixels_HWC.dtype == np.uint8
    assert channels == 3
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}, 3), }}"
    room = PIXELS_AT - _PREFIX.size
    header = text.encode("ascii").ljust(room - 1) + b"\n"
    assert len(header) == room
    return _PREFIX.pack(MAGIC, 1, 0, room) + header + np.ascontiguousarray(pixels_HWC).tobytes()


def parse_npy(payload: bytes) -> tuple[int, int, int]:
    """Read the header of raw pixels.

    Args:
        payload: bytes that begin with ``MAGIC``.

    Returns:
        Height, width, and where the pixels begin; the payload ends with the last of them.

    Raises:
        NpyError: if it is no C-ordered uint8 (H, W, 3) of at least one pixel, or is cut.
    """
    prefix = _PREFIX if payload[6:7] == b"\x01" else _LONG_PREFIX
    if len(payload) < prefix.size:
        raise NpyError("truncated", "the .npy ends in its header")
    length = prefix.unpack_from(payload)[3]
    start = prefix.size + length
    if length > _MAX_HEADER_BYTES:
        raise NpyError("non-image", f"an .npy with a header of {length:,} bytes")
    if len(payload) < start:
        raise NpyError("truncated", "the .npy ends in its header")
    header = payload[prefix.size : start]
    match = _HEADER.fullmatch(header)
    height, width = map(int, match.groups()) if match else (0, 0)
    if not height or not width:
        shown = header[:80].decode("ascii", "backslashreplace").strip()
        raise NpyError("non-image", f"an .npy of {shown}; a picture is uint8 (H, W, 3)")
    return height, width, start


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
