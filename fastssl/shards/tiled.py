"""Tiled JPEG: the same coefficients in one baseline scan with restart markers.

Any decoder reads it; ours reads only the restart segments that a crop covers. The work is done by
the extension (csrc/jpeg), which needs libjpeg when it is built.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from dataclasses import fields as list_fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# fastssl::jpeg::Status, by its numbers.
_STATUSES = ("ok", "truncated", "corrupt", "unsupported", "too_large", "no_memory")


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
def has_transcoder() -> bool:
    """Return whether the extension is there and was built with libjpeg."""
    import torch  # only here: nothing else of the on-disk format needs it

    from ..extension import load_extension

    return load_extension() and hasattr(torch.ops.fastssl, "transcode_jpeg")


def require_transcoder() -> None:
    """Make sure that JPEGs can be tiled here.

    Raises:
        InputError: says how to get what is missing.
    """
    if not has_transcoder():
        raise InputError(
            "--encode tiled needs the extension fastssl._C built with libjpeg, which it was not; "
            "install libjpeg-turbo's headers (Debian: apt-get install libjpeg62-turbo-dev) and "
            "build it again: pip install --no-build-isolation -e ."
        )


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
    import torch

    require_transcoder()
    status, tiled = torch.ops.fastssl.transcode_jpeg(_view(payload), interval)
    _raise_unless_ok(status)
    return tiled.numpy().tobytes()


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
    import torch

    require_transcoder()
    status, fields, followed, starts = torch.ops.fastssl.parse_jpeg(_view(payload))
    _raise_unless_ok(status)
    values: dict[str, Any] = dict(zip(_NUMBERS, fields, strict=True))
    values["segments"] = tuple(starts.tolist())
    values["segments_status"] = _STATUSES[followed]
    return JpegLayout(**values)


def _view(payload: bytes) -> Tensor:
    """Return a tensor over the bytes; nothing writes to it."""
    import numpy as np
    import torch

    # A copy: a tensor over read-only memory makes torch warn, and this takes microseconds.
    return torch.from_numpy(np.frombuffer(payload, np.uint8).copy())


def _raise_unless_ok(status: int) -> None:
    name = _STATUSES[status]
    if name == "no_memory":
        raise MemoryError("no memory to write a JPEG as tiles")
    if name != "ok":
        raise NotTiledError(name)
