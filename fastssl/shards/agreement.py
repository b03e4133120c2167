"""Whether a picture is the one that its row tells of: boxes are drawn by the row."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .jpeg import JpegError, count_scans, parse_jpeg
from .picture import MAX_SCANS, PictureError, open_picture, parse_orientation, to_upright_rgb

_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD_BYTES = 4096  # hold the header of nearly every JPEG; to copy all of it takes longer
_PLAIN_COLORS = (0, 2)  # grey and RGB, without a palette and without transparency


def decode_as_said(
    payload: bytes,
    width: int,
    height: int,
    open_payload: Callable[[bytes], Image.Image] = open_picture,
) -> Image.Image:
    """Decode a picture by the reference decoder.

    Args:
        payload: the bytes of an image file, or raw pixels as ``.npy``.
        width: in pixels, upright, that its row tells.
        height: likewise.
        open_payload: opens the bytes.

    Returns:
        The picture, RGB and upright.

    Raises:
        PictureError: if the bytes are no picture, or one of another size.
    """
    picture = open_payload(payload)
    # Before a pixel is decoded, for they may be many; which way is up may stand behind them.
    if picture.size in ((width, height), (height, width)):
        picture = to_upright_rgb(picture)
    if picture.size != (width, height):
        size = f"{picture.size[0]} x {picture.size[1]} px"
        raise PictureError("corrupt", f"{size}, its row says {width} x {height}")
    return picture


def is_as_said(
    payload: bytes | NDArray[np.uint8], width: int, height: int, orientation: int
) -> bool:
    """Tell whether any decoder makes of a picture what the reference decoder does.

    For decoders that trust a row. Ten microseconds; nothing is decoded, and what is not sure is
    the reference decoder's.

    Args:
        payload: of a JPEG or PNG.
        width: in pixels, as stored, that a row tells.
        height: likewise.
        orientation: EXIF orientation that a row tells, 1..8.

    Returns:
        Whether the size and the orientation are those, and it is a JPEG, grey or YCbCr, or a PNG,
        grey or RGB, of 8 bits and without transparency. What follows its header may be anything.
    """
    head = bytes(payload[:_HEAD_BYTES])
    if head.startswith(_PNG):
        return orientation == 1 and _is_plain_png(bytes(payload), width, height)
    try:
        header = parse_jpeg(head)
    except JpegError:
        try:
            header = parse_jpeg(bytes(payload))
        except JpegError:
            return False
    return (
        (header.width, header.height) == (width, height)
        and header.is_common
        and (header.is_single_scan or count_scans(bytes(payload)) <= MAX_SCANS)
        and parse_orientation(header.exif) == orientation
    )


def _is_plain_png(payload: bytes, width: int, height: int) -> bool:
    if len(payload) < 26:
        return False
    *size, depth, color = struct.unpack_from(">IIBB", payload, 16)
    is_plain = depth <= 8 and color in _PLAIN_COLORS
    # These may stand anywhere before the pixels, one of them behind them too.
    has_more = b"tRNS" in payload or b"eXIf" in payload
    return size == [width, height] and is_plain and not has_more
