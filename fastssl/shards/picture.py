"""What a picture is: the reference decoder that every back end is measured against.

Pillow with libjpeg-turbo (islow DCT, fancy upsampling), grey made RGB, EXIF orientation applied,
transparency laid over white. One frame of 8 bits a channel; everything else is refused with a
reason from ``REASONS``. Raw pixels (``.npy``, uint8 (H, W, 3), upright) are pictures too.

Shape legend: H W pixels, upright.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..views import MAX_SIDE
from . import npy

MAX_PIXELS = 2**29
"""Pixels of the largest picture that is decoded (1.5 GiB as RGB); 20,000 x 20,000 px is below."""

REASONS = ("zero-byte", "non-image", "truncated", "corrupt", "animated", "16-bit", "too-large")
"""Why bytes are not a picture."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*")
_ORIENTATION_TAG = 0x0112
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_pixel_limit_lock = threading.Lock()


class PictureError(ValueError):
    """Bytes that the reference decoder does not take."""

    def __init__(self, reason: str, detail: str):
        """Keep the reason (one of ``REASONS``) and a sentence that says more."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Return reason and detail in one line."""
        return f"{self.reason}: {self.detail}"


@functools.lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return those of our formats that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _no_pixel_limit() -> Iterator[None]:
    with _pixel_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(payload: bytes) -> Image.Image:
    # Pillow's guard against decompression bombs is a global and would refuse a legal picture of
    # 20,000 px; our own limit is checked right after, before a pixel is decoded.
    with _no_pixel_limit():
        return Image.open(io.BytesIO(payload), formats=_formats())


def _is_deep(image: Image.Image, payload: bytes) -> bool:
    if image.mode in _DEEP_MODES:
        return True
    # Pillow quietly keeps the high bytes of 16-bit colour, so the file itself is asked.
    if image.format == "PNG":
        return len(payload) > 24 and payload[24] == 16
    if image.format == "TIFF":
        return max(getattr(image, "tag_v2", {}).get(258, (8,))) > 8
    return False


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise PictureError(
            "too-large",
            f"{width} x {height} px; sides up to {MAX_SIDE:,} px and {MAX_PIXELS:,} pixels in all",
        )


def _open_raw(payload: bytes) -> Image.Image:
    try:
        height, width, _ = npy.parse_npy(payload)
        _check_size(width, height)
        image = Image.fromarray(npy.view_npy(payload))
    except npy.NpyError as error:
        raise PictureError(error.reason, error.detail) from None
    image.format = "NPY"
    return image


def open_picture(payload: bytes) -> Image.Image:
    """Open a picture and read its header; its pixels are decoded when they are first asked for.

    Args:
        payload: the bytes of an image file, or raw pixels as ``.npy``.

    Returns:
        The opened image, one frame of 8 bits a channel, in its stored orientation.

    Raises:
        PictureError: if the bytes are no such image.
    """
    if not payload:
        raise PictureError("zero-byte", "the file is empty")
    if payload.startswith(npy.MAGIC):
        return _open_raw(payload)
    try:
        image = _open(payload)
        num_frames = getattr(image, "n_frames", 1)
    except MemoryError:
        raise
    except Exception as error:  # Parsers of hostile bytes raise whatever their code runs into.
        if payload.startswith(_MAGIC):
            raise PictureError("corrupt", f"its header cannot be read ({error})") from None
        raise PictureError("non-image", "it is in no image format that is read here") from None
    _check_size(*image.size)
    if num_frames > 1 and image.format != "MPO":  # MPO: a JPEG that carries further views
        raise PictureError("animated", f"{num_frames} frames; a picture has one")
    if _is_deep(image, payload):
        raise PictureError("16-bit", "more than 8 bits a channel; reduce it to 8 bits first")
    return image


def load_pixels(image: Image.Image) -> None:
    """Decode the pixels of an opened picture.

    Args:
        image: what ``open_picture`` returned.

    Raises:
        PictureError: ``truncated`` or ``corrupt``.
    """
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # see open_picture
        reason = "truncated" if "truncated" in str(error) else "corrupt"
        raise PictureError(reason, f"its pixels cannot be decoded ({error})") from None


def parse_orientation(exif: bytes) -> int:
    """Read the orientation out of an EXIF block.

    Args:
        exif: the block, with or without its ``Exif`` prefix.

    Returns:
        1..8; 1 where the block has none or is damaged.
    """
    if exif.startswith(b"Exif\x00\x00"):
        exif = exif[6:]
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for i in range(count):
            tag, kind, length = struct.unpack_from(order + "HHI", exif, start + 2 + 12 * i)
            if tag != _ORIENTATION_TAG:
                continue
            width = {1: "B", 3: "H", 4: "I"}.get(kind)
            if width is None or length != 1:
                return 1
            (value,) = struct.unpack_from(order + width, exif, start + 10 + 12 * i)
            return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1..8.

    Only JPEG, PNG and WebP carry one that is left to us: Pillow turns TIFF and AVIF by itself.
    """
    if image.format in ("JPEG", "MPO", "PNG", "WEBP"):
        return parse_orientation(image.info.get("exif", b""))
    return 1


def _flatten(image: Image.Image) -> Image.Image:
    """Return the image as L or RGB, transparency laid over white."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def to_upright(image: Image.Image) -> Image.Image:
    """Return the image as L or RGB with its EXIF orientation applied.

    Raises:
        PictureError: if its pixels cannot be decoded.
    """
    load_pixels(image)
    # After load: a PNG may carry its EXIF block behind the pixels.
    orientation = read_orientation(image)
    upright = _flatten(image)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    if upright is not image:
        upright.info = {}  # so that nobody turns it again
    return upright


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return the picture that an opened image shows.

    EXIF orientation is applied; grey, palette and CMYK become RGB; transparent pixels lie over
    white.

    Args:
        image: what ``open_picture`` returned.

    Returns:
        An RGB image.

    Raises:
        PictureError: if its pixels cannot be decoded.
    """
    upright = to_upright(image)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def decode_picture(payload: bytes) -> NDArray[np.uint8]:
    """Decode a picture by the reference decoder.

    Args:
        payload: the bytes of an image file, or raw pixels as ``.npy``.

    Returns:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        PictureError: if the bytes are not a picture.
    """
    return np.array(to_upright_rgb(open_picture(payload)))


def crop_picture(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Cut a box out of a picture that may be larger than Pillow's guard allows.

    Args:
        image: a decoded picture.
        box: left, top, right, bottom in pixels, inside the picture.

    Returns:
        The picture itself where the box is the whole of it, else a copy of the box.
    """
    left, top, right, bottom = box
    if box == (0, 0, *image.size):
        return image
    if (right - left) * (bottom - top) <= (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        return image.crop(box)
    with _no_pixel_limit():
        return image.crop(box)
