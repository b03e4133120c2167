"""Tiled JPEG: the same coefficients in one baseline scan with restart markers.

Any decoder reads it; ours reads only the restart segments that a crop covers. The work is done by
the extension (csrc/jpeg), which needs libjpeg when it is built.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from dataclasses import fields as list_fields
from typing import Any

from ...errors import InputError
from ...jpeg_extension import BUILD_JPEG, STATUSES


class NotTiledError(ValueError):
    """A JPEG that cannot be tiled without loss, or not at all."""

    def __init__(self, reason: str):
        """Keep the reason: ``truncated``, ``corrupt``, ``unsupported`` or ``too_large``."""
        super().__init__(f"it cannot be written as tiles: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class JpegLayout:
    """What the extension's parser reads out of a JPEG; the fields of csrc/jpeg/parse.h."""

    width: int
    """Stored width in pixels, before orientation."""
    height: int
    """Stored height in pixels, before orientation."""
    num_components: int
    """1 grey, 3 colour, 4 CMYK or YCCK."""
    mcu_width: int
    """Of an MCU in pixels, if all components are interleaved."""
    mcu_height: int
    """Of an MCU in pixels."""
    mcus_per_row: int
    """MCUs that cover the width."""
    mcu_rows: int
    """MCUs that cover the height."""
    blocks_per_mcu: int
    """Blocks in an MCU; above 10 the components cannot be interleaved."""
    precision: int
    """Bits a sample."""
    restart_interval: int
    """MCUs between restart markers at the first scan; 0 none."""
    orientation: int
    """EXIF orientation, 1..8."""
    frame: int
    """The SOFn marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive."""
    num_scans: int
    """Scans in the file."""
    entropy_begin: int
    """Where the first scan's entropy-coded data begins."""
    entropy_end: int
    """Where the marker that ends it begins."""
    segments: tuple[int, ...]
    """Where each restart segment begins, and two bytes behind the marker that ends the last; empty
    unless the JPEG has one sequential scan with all components."""
    segments_status: str
    """``ok``, or why the segments could not be found."""


# What the operator gives as a list, in its order.
_NUMBERS = [field.name for field in list_fields(JpegLayout) if field.type == "int"]


@functools.cache
def _load() -> tuple[Any, str]:
    """Return the extension's module, which knows nothing of torch, or None and why."""
    try:
        return importlib.import_module("fastssl._C_jpeg"), ""
    except ImportError as error:
        return None, str(error)


def has_transcoder() -> bool:
    """Return whether the extension's part for tiles is there: it was built with libjpeg-turbo."""
    return _load()[0] is not None


def require_transcoder() -> Any:
    """Make sure that JPEGs can be tiled here.

    Returns:
        The extension's module.

    Raises:
        InputError: says how to get what is missing.
    """
    module, reason = _load()
    if module is None:
        raise InputError(
            f"--encode tiled needs the extension fastssl._C_jpeg, which is missing ({reason}); "
            f"{BUILD_JPEG}"
        )
    return module


def tile_jpeg(payload: bytes, interval: int = 0) -> bytes:
    """Write a JPEG as tiles: no coefficient changes, and every one is compared afterwards.

    JFIF, Adobe and ICC segments are kept, all other metadata is dropped. EXIF orientation is
    applied where whole MCUs allow it, else an EXIF segment with nothing but it stays.

    Args:
        payload: a JPEG.
        interval: MCUs between restart markers, 1..65535; 0 chooses by the size of the picture.

    Returns:
        A baseline JPEG of one scan with restart markers.

    Raises:
        NotTiledError: if it cannot be; the file itself may be a good picture all the same.
        InputError: if the extension is missing.
    """
    transcoder = require_transcoder()
    if not 0 <= interval <= 65_535:
        raise InputError(f"interval ({interval}) must lie in 0 .. 65535 MCUs")
    status, tiled = transcoder.transcode(payload, interval)
    _raise_unless_ok(status)
    return tiled


def parse_layout(payload: bytes) -> JpegLayout:
    """Read the layout of a JPEG and find its restart segments by the extension's parser.

    Args:
        payload: a JPEG.

    Returns:
        Its layout.

    Raises:
        NotTiledError: if the markers cannot be followed to the end of the picture.
        InputError: if the extension is missing.
    """
    status, fields, followed, starts = require_transcoder().parse(payload)
    _raise_unless_ok(status)
    values: dict[str, Any] = dict(zip(_NUMBERS, fields, strict=True))
    values["segments"] = tuple(starts)
    values["segments_status"] = STATUSES[followed]
    return JpegLayout(**values)


def _raise_unless_ok(status: int) -> None:
    name = STATUSES[status]
    if name == "no_memory":
        raise MemoryError("no memory to write a JPEG as tiles")
    if name != "ok":
        raise NotTiledError(name)
