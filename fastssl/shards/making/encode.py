"""From the bytes of any image file to the payload of a sample."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import numpy as np
from PIL import Image

from ...fields import Checked, Range
from ...views import MAX_SIDE
from ..index import Payload, SampleFlags
from ..jpeg import JpegError, JpegHeader, Quality, Sampling, parse_jpeg
from ..npy import pack_npy
from ..picture import (
    LIMITS,
    DecodeLimits,
    check_size,
    load_pixels,
    open_picture,
    read_orientation,
    to_upright,
)
from .tiled import NotTiledError, tile_jpeg

EncodingName = Literal["keep", "tiled", "resized", "raw"]
ENCODINGS: tuple[str, ...] = get_args(EncodingName)
"""How payloads can be made."""


@dataclass(frozen=True)
class Encoding(Checked, prefix="encoding's "):
    """How payloads are made."""

    name: EncodingName = "keep"
    """One of ``ENCODINGS``."""
    resize_short: Annotated[int, Range(1, MAX_SIDE)] = 256
    """Short side in pixels that ``resized`` and ``raw`` bring larger images down to."""
    quality: Quality = 90
    """JPEG quality of ``resized``, 1..100."""

    @property
    def options(self) -> dict[str, int]:
        """The options that matter to this encoding."""
        if self.name == "resized":
            return {"resize_short": self.resize_short, "quality": self.quality}
        if self.name == "raw":
            return {"resize_short": self.resize_short}
        return {}


@dataclass(frozen=True)
class EncodedPicture:
    """The payload of a sample, and what the index says about it."""

    payload: bytes
    """The bytes that are stored."""
    extension: str
    """``jpg``, ``png`` or ``npy``."""
    width: int
    """Upright width in pixels."""
    height: int
    """Upright height in pixels."""
    flags: SampleFlags
    """The ``flags`` field of the index."""
    tiling: str | None = None
    """What came of the wish for tiles: ``tiled``, or why a JPEG was kept as it is; None where there
    was no such wish."""
    made_from: tuple[int, int, int] | None = None
    """What ``source`` says, where the payload is not as its source was."""

    @property
    def source(self) -> tuple[int, int, int]:
        """Upright width and height of the source, and the EXIF orientation that it had."""
        return self.made_from or (self.width, self.height, self.flags.orientation)


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def _describe_source(image: Image.Image) -> tuple[int, int, int]:
    """Return what ``EncodedPicture.source`` says of a picture whose pixels are loaded."""
    orientation = read_orientation(image)
    return (*_upright_size(image, orientation), orientation)


def jpeg_flags(payload: bytes, orientation: int) -> tuple[SampleFlags, JpegHeader | None]:
    """Return the flags of a JPEG payload, and its header where that can be read."""
    try:
        header = parse_jpeg(payload)
    except JpegError:
        # Pillow read it all the same; nobody else is trusted with it.
        odd = SampleFlags(orientation=orientation, sampling=Sampling.OTHER, use_reference=True)
        return odd, None
    flags = SampleFlags(
        orientation=orientation,
        is_grey=header.num_components == 1,
        is_progressive=header.is_progressive,
        sampling=header.sampling,
        use_reference=not header.is_common,
        restart_interval=header.restart_interval,
    )
    return flags, header


def _png_flags(image: Image.Image, orientation: int) -> SampleFlags:
    is_plain = image.mode in ("RGB", "L") and "transparency" not in image.info
    is_grey = image.mode in ("1", "L")
    return SampleFlags(
        orientation=orientation,
        is_grey=is_grey,
        payload=Payload.PNG,
        sampling=Sampling.GREY if is_grey else Sampling.S444,
        # Decoders disagree about palettes, transparency and EXIF in PNG.
        use_reference=not is_plain or orientation != 1,
    )


def _describe(payload: bytes, image: Image.Image) -> tuple[int, int, SampleFlags]:
    orientation = read_orientation(image)
    if image.format == "NPY":
        flags = SampleFlags(payload=Payload.NPY)
    elif image.format == "PNG":
        flags = _png_flags(image, orientation)
    else:
        flags, _ = jpeg_flags(payload, orientation)
    return (*_upright_size(image, orientation), flags)


def describe_payload(payload: bytes) -> tuple[int, int, SampleFlags]:
    """Decode a stored payload and say what the index has to say about it.

    Args:
        payload: a JPEG, a PNG, or raw pixels as ``.npy``.

    Returns:
        Upright width, upright height and flags.

    Raises:
        PictureError: if the reference decoder refuses it.
    """
    image = open_picture(payload)
    load_pixels(image)
    return _describe(payload, image)


def _store_raw(
    upright: Image.Image, made_from: tuple[int, int, int] | None = None
) -> EncodedPicture:
    payload = pack_npy(np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB")))
    flags = SampleFlags(payload=Payload.NPY)
    return EncodedPicture(payload, "npy", *upright.size, flags, made_from=made_from)


def _keep(data: bytes, limits: DecodeLimits) -> EncodedPicture:
    image = open_picture(data, limits)
    load_pixels(image)
    if image.format in ("JPEG", "MPO", "PNG"):
        width, height, flags = _describe(data, image)
        extension = "png" if image.format == "PNG" else "jpg"
        return EncodedPicture(data, extension, width, height, flags)
    if image.format == "NPY":
        return _store_raw(image)
    # WebP, BMP, GIF, TIFF ...: of what shards hold, PNG keeps the pixels in the fewest bytes.
    made_from = _describe_source(image)
    upright = to_upright(image)
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    flags = _png_flags(upright, 1)
    payload = buffer.getvalue()
    return EncodedPicture(payload, "png", *upright.size, flags, made_from=made_from)


def _tile(data: bytes, limits: DecodeLimits) -> EncodedPicture:
    """Write a JPEG as tiles; one that cannot be is kept, if it is a picture."""
    image = open_picture(data, limits)
    if image.format not in ("JPEG", "MPO"):
        return _keep(data, limits)
    try:
        payload = tile_jpeg(data)
    except NotTiledError as error:
        # Whether it is a picture all the same is for the reference decoder to say.
        return replace(_keep(data, limits), tiling=error.reason)
    # The transcoder has compared all coefficients, on which the pixels depend and on nothing else:
    # one decode says for source and payload that they can be had.
    width, height, flags = describe_payload(payload)
    return EncodedPicture(payload, "jpg", width, height, flags, tiling="tiled")


def shrunk_size(width: int, height: int, short: int) -> tuple[int, int]:
    """Return the size of an image whose short side is brought down to ``short`` pixels.

    The long side is rounded to the nearest pixel, halves up; a smaller image keeps its size.
    """
    now = min(width, height)
    if now <= short:
        return width, height
    return (width * short + now // 2) // now, (height * short + now // 2) // now


def _shrink(upright: Image.Image, short: int) -> Image.Image:
    size = shrunk_size(*upright.size, short)
    if size == upright.size:
        return upright
    return upright.resize(size, Image.Resampling.BILINEAR)  # a triangle, antialiased


def _make_raw(data: bytes, encoding: Encoding, limits: DecodeLimits) -> EncodedPicture:
    image = open_picture(data, limits)
    load_pixels(image)
    made_from = _describe_source(image)
    return _store_raw(_shrink(to_upright(image), encoding.resize_short), made_from)


def _resize(data: bytes, encoding: Encoding, limits: DecodeLimits) -> EncodedPicture:
    image = open_picture(data, limits)
    load_pixels(image)
    orientation = read_orientation(image)
    if image.format in ("JPEG", "MPO"):
        flags, header = jpeg_flags(data, orientation)
        is_ready = header is not None and header.is_baseline and header.is_common
        if is_ready and orientation == 1 and min(image.size) <= encoding.resize_short:
            # Nothing to gain: another pass through JPEG would only lose quality.
            return EncodedPicture(data, "jpg", *image.size, flags)
    made_from = _describe_source(image)
    upright = _shrink(to_upright(image), encoding.resize_short)
    upright.info = {}  # no comment, profile or EXIF of the source comes along
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=encoding.quality)
    payload = buffer.getvalue()
    flags, _ = jpeg_flags(payload, 1)
    return EncodedPicture(payload, "jpg", *upright.size, flags, made_from=made_from)


def encode_picture(
    data: bytes, encoding: Encoding, limits: DecodeLimits = LIMITS
) -> EncodedPicture:
    """Make the payload of a sample; the reference decoder has to take all of its pixels.

    Args:
        data: the bytes of an image file.
        encoding: how to store it.
        limits: how much work the file may make.

    Returns:
        The payload and what the index says about it.

    Raises:
        PictureError: why the image is left out.
    """
    if encoding.name == "raw":
        picture = _make_raw(data, encoding, limits)
    elif encoding.name == "resized":
        picture = _resize(data, encoding, limits)
    else:
        picture = (_tile if encoding.name == "tiled" else _keep)(data, limits)
    check_size(picture.width, picture.height)  # whatever a source may have: loaders read this one
    return picture
