"""Tiled JPEG: the same coefficients in one baseline scan with restart markers.

Any decoder reads it; ours reads only the restart segments that a crop covers. The work is done by
the extension (csrc/jpeg), which needs libjpeg when it is built.
"""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import InputError
from ...jpeg_extension import BUILD_JPEG, STATUSES


class NotTiledError(ValueError):
    """A JPEG that cannot be tiled without loss, or not at all."""

    def __init__(self, reason: str):
        """Keep the reason: ``truncated``, ``corrupt``, ``unsupported`` or ``too_large``."""
        super().__init__(f"it cannot be written as tiles: {reason}")
        self.reason = reason


def require_transcoder(what: str = "--encode tiled") -> Any:
    """Make sure that JPEGs can be tiled here.

    Args:
        what: needs it.

    Returns:
        The extension's module, which knows nothing of torch.

    Raises:
        InputError: says how to get what is missing.
    """
    try:
        module = importlib.import_module("fastssl._C_jpeg")
        if not hasattr(module, "find_entry_points"):
            raise ImportError("it was built from older sources")
        return module
    except ImportError as error:
        raise InputError(
            f"{what} needs the extension fastssl._C_jpeg, which is missing ({error}); {BUILD_JPEG}"
        ) from None


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
    reason = STATUSES[status]
    if reason == "no_memory":
        raise MemoryError("no memory to write a JPEG as tiles")
    if reason != "ok":
        raise NotTiledError(reason)
    return tiled
