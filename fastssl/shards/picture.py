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
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..views import MAX_SIDE
from . import npy
from .jpeg import count_scans

MAX_PIXELS = 2**27
"""Pixels of the largest picture that a dataset holds and a loader decodes, 11,585 x 11,585: 0.4 GB
as RGB, of which a decoder may need three and more at once."""

MAX_SCANS = 100
"""Scans of a JPEG that is decoded: programs write about ten, and each goes over every pixel."""

REASONS = (
    *("zero-byte", "non-image", "truncated", "corrupt", "animated", "16-bit"),
    *("too-large", "too-many-scans", "heic"),
)
"""Why bytes are not a picture."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Files of one picture in several views, of which the first, or the main one, is taken.
_OF_VIEWS = ("MPO", "HEIF")
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
_HEIC_REMEDY = (
    'HEIC or HEIF, which takes pillow-heif: pip install "fastssl[heif]", or convert it first'
)
_STRIP_PIXELS = 1 << 22
_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_pixel_limit_lock = threading.Lock()


@dataclass(frozen=True)
class DecodeLimits:
    """How much work a picture may make; the defaults are what every loader keeps."""

    max_pixels: int = MAX_PIXELS
    """Pixels, width x height."""
    max_scans: int = MAX_SCANS
    """Scans, of a JPEG."""


LIMITS = DecodeLimits()
"""What holds where nothing else is asked for."""


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
    with contextlib.suppress(ImportError):  # what is missing is said of each file that wants it
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _no_pixel_limit() -> Iterator[None]:
    with _pixel_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _guarded_pixels() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")


def _open(payload: bytes) -> Image.Image:
    # Pillow's guard against decompression bombs is a global and would refuse a legal picture of
    # 20,000 px; our own limit is checked right after, before a pixel is decoded.
    with _no_pixel_limit():
        return Image.open(io.BytesIO(payload), formats=_formats())


def _is_heic(payload: bytes) -> bool:
    return payload[4:8] == b"ftyp" and payload[8:12] in _HEIC_BRANDS


def _is_deep(image: Image.Image, payload: bytes) -> bool:
    if image.mode in _DEEP_MODES:
        return True
    # Pillow quietly keeps the high bytes of 16-bit colour, so the file itself is asked.
    if image.format == "PNG":
        return len(payload) > 24 and payload[24] == 16
    if image.format == "TIFF":
        return max(getattr(image, "tag_v2", {}).get(258, (8,))) > 8
    return image.format == "HEIF" and image.info.get("bit_depth", 8) > 8


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture that is larger than those that are decoded.

    Raises:
        PictureError: ``too-large``.
    """
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise PictureError(
            "too-large",
            f"{width} x {height} px; sides up to {MAX_SIDE:,} px and {max_pixels:,} pixels in all",
        )


def _check_scans(payload: bytes, max_scans: int) -> None:
    if (found := count_scans(payload)) > max_scans:
        raise PictureError("too-many-scans", f"a JPEG of {found:,} scans; up to {max_scans:,}")


def _describe(error: Exception) -> str:
    """Return what a library says without addresses of objects, which differ from run to run."""
    return _OBJECT.sub("it", " ".join(str(error).split())) or type(error).__name__


def _open_raw(payload: bytes, max_pixels: int) -> Image.Image:
    try:
        height, width, _ = npy.parse_npy(payload)
        check_size(width, height, max_pixels)
        image = Image.fromarray(npy.view_npy(payload))
    except npy.NpyError as error:
        raise PictureError(error.reason, error.detail) from None
    image.format = "NPY"
    return image


def open_picture(payload: bytes, limits: DecodeLimits = LIMITS) -> Image.Image:
    """Open a picture and read its header; its pixels are decoded when they are first asked for.

    Args:
        payload: the bytes of an image file, or raw pixels as ``.npy``.
        limits: how much work it may make.

    Returns:
        The opened image, one frame of 8 bits a channel, in its stored orientation.

    Raises:
        PictureError: if the bytes are no such image.
    """
    if not payload:
        raise PictureError("zero-byte", "the file is empty")
    if payload.startswith(npy.MAGIC):
        return _open_raw(payload, limits.max_pixels)
    try:
        image = _open(payload)
        num_frames = getattr(image, "n_frames", 1)
    except MemoryError:
        raise
    except Exception as error:  # Parsers of hostile bytes raise whatever their code runs into.
        if _is_heic(payload) and "HEIF" not in _formats():
            raise PictureError("heic", _HEIC_REMEDY) from None
        if payload.startswith(_MAGIC) or _is_heic(payload):
            what = "damaged" if isinstance(error, UnidentifiedImageError) else _describe(error)
            raise PictureError("corrupt", f"its header cannot be read ({what})") from None
        raise PictureError("non-image", "it is in no image format that is read here") from None
    # OpenJPEG holds four bytes a channel, and more than one copy of them.
    share = 2 if image.format == "JPEG2000" else 1
    check_size(*image.size, limits.max_pixels // share)
    if image.format in ("JPEG", "MPO"):
        _check_scans(payload, limits.max_scans)
    if num_frames > 1 and image.format not in _OF_VIEWS:
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
    # Pillow asks its guard once more where it decodes a TIFF; see _open.
    is_guarded = image.format == "TIFF" and image.width * image.height > _guarded_pixels()
    try:
        with _no_pixel_limit() if is_guarded else contextlib.nullcontext():
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # see open_picture
        what = _describe(error)
        reason = "truncated" if "truncated" in what else "corrupt"
        raise PictureError(reason, f"its pixels cannot be decoded ({what})") from None


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


def _lay_over_white(image: Image.Image) -> Image.Image:
    """Return the image without its transparency, made strip by strip: whole it is held twice."""
    flat = Image.new("RGB", image.size)
    height = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        strip = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        flat.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return flat


def _flatten(image: Image.Image) -> Image.Image:
    """Return the image as L or RGB, transparency laid over white."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _lay_over_white(image)
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
    if (right - left) * (bottom - top) <= _guarded_pixels():
        return image.crop(box)
    with _no_pixel_limit():
        return image.crop(box)
