"""Views out of the bytes of a JPEG, by the decoder of the native loader.

The operator takes bytes and gives pixels whose number depends on nothing but its arguments, but a
compiled graph has no use for it: it has no fake kernel, and no reference in PyTorch.

Shape legend: V views, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..extension import REBUILD, load_extension
from ..views import ViewSpec

STATUSES = ("ok", "truncated", "corrupt", "unsupported", "too_large", "no_memory")
"""How an operation on the bytes of a JPEG ends, by the number that the extension gives."""

_FILTERS = {"triangle": 0, "area": 1}


class JpegDecodeError(ValueError):
    """Bytes that this decoder does not take; the reference decoder says whether they are good."""

    def __init__(self, status: str):
        """Keep the status, one of ``STATUSES``."""
        super().__init__(
            f"payload ({status}) must be a whole JPEG, grey or of three colours, with boxes inside "
            "it; fastssl.shards.picture.decode_picture says what is wrong, or takes it"
        )
        self.status = status


@dataclass(frozen=True)
class DecodedViews:
    """The views of one sample, and what they cost."""

    images: NDArray[np.uint8]
    """(V, S, S, 3) RGB, 0..255."""
    entropy_decoded_mcus: int
    """Minimum coded units whose bits were read, at most ``total_mcus``."""
    total_mcus: int
    """Those that the file has."""
    bytes_copied: int
    """Compressed bytes that were moved before they were read."""


def has_jpeg() -> bool:
    """Return whether the extension is there and was built with libjpeg-turbo."""
    return load_extension() and hasattr(torch.ops.fastssl, "decode_views")


def require_jpeg() -> None:
    """Raise unless JPEGs can be decoded here.

    Raises:
        ImportError: with how to get there.
    """
    if not has_jpeg():
        raise ImportError(
            "fastssl._C is missing or was built without libjpeg-turbo, which decodes for the "
            f"native loader; install it (Debian: apt-get install libjpeg-dev) and run {REBUILD}"
        )


def pack_views(views: Sequence[ViewSpec], boxes_V4: NDArray[np.int32]) -> NDArray[np.int32]:
    """Write views as the rows that the extension reads.

    Args:
        views: V specs.
        boxes_V4: int32 left, top, width, height in upright pixels.

    Returns:
        int32 (V, 7): the box, the (width, height) of a first resampling or zeros, the filter.
    """
    packed = np.zeros((len(views), 7), np.int32)
    packed[:, :4] = boxes_V4
    for row, spec in zip(packed, views, strict=True):
        row[4:6] = spec.intermediate_size(int(row[2]), int(row[3])) or (0, 0)
        row[6] = _FILTERS[spec.filter]
    return packed


def decode_views(
    payload: bytes, views: Sequence[ViewSpec], boxes_V4: NDArray[np.int32]
) -> DecodedViews:
    """Cut all views of a sample out of its JPEG, decoding only what they need.

    Equal to the bit to libjpeg-turbo's decode (islow DCT, fancy upsampling, grey made RGB), EXIF
    orientation, crop, and Pillow 13's resize. Earlier versions of Pillow resample in another order
    where the height shrinks much more than the width: up to 1/255 away.

    Args:
        payload: the bytes of a JPEG.
        views: V specs of equal size S.
        boxes_V4: int32 left, top, width, height in upright pixels, inside the picture.

    Returns:
        The pixels and the cost.

    Raises:
        ImportError: if the extension was built without libjpeg-turbo.
        JpegDecodeError: for bytes that are damaged or of a kind that only the reference decoder
            takes, and for boxes that pass the picture.
    """
    require_jpeg()
    # torch wants memory that it may write.
    data = torch.frombuffer(bytearray(payload) or bytearray(1), dtype=torch.uint8)[: len(payload)]
    packed = torch.from_numpy(pack_views(views, boxes_V4))
    images, (status, decoded, total, copied) = torch.ops.fastssl.decode_views(
        data, packed, views[0].size
    )
    if status:
        raise JpegDecodeError(STATUSES[status])
    return DecodedViews(images.numpy(), decoded, total, copied)
