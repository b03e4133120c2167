"""Views out of the bytes of a JPEG, by the decoder of the native loader.

The operator takes bytes and gives pixels whose number depends on nothing but its arguments, but a
compiled graph has no use for it: it has no fake kernel, and no reference in PyTorch.

Shape legend: B samples, V views of each, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import Dct
from ..extension import load_extension
from ..jpeg_extension import BUILD_JPEG, STATUSES
from ..views import ViewSpec, fitted_sizes, intermediate_sizes

_FILTERS = {"triangle": 0, "area": 1}


class JpegDecodeError(ValueError):
    """Bytes that this decoder does not take; the reference decoder says whether they are good."""

    def __init__(self, status: str):
        """Keep the status, one of ``fastssl.jpeg_extension.STATUSES``."""
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
    has_refused: bool
    """Whether entry points were given that are damaged, or of another payload."""
    factor: int
    """By which the picture was reduced: 1; with scaled DCT also 2, 4 or 8."""


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
            f"native loader; {BUILD_JPEG}"
        )


def pack_views(
    views: Sequence[ViewSpec],
    boxes_BV4: NDArray[np.int32],
    sizes_BV2: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Write the views of B samples as the rows that the extension reads.

    Args:
        views: V specs.
        boxes_BV4: int32 (B, V, 4) left, top, width, height in upright pixels.
        sizes_BV2: int32 (B, V, 2) from ``fitted_sizes``; None where none is drawn.

    Returns:
        int32 (B, V, 9): the box, the (width, height) of a first resampling or zeros, the filter,
        the (width, height) of what the box is resized to.
    """
    packed = np.empty((*boxes_BV4.shape[:2], 9), np.int32)
    packed[..., :4] = boxes_BV4
    packed[..., 4:6] = intermediate_sizes(views, boxes_BV4)
    packed[..., 6] = [_FILTERS[spec.filter] for spec in views]
    packed[..., 7:] = fitted_sizes(views, boxes_BV4) if sizes_BV2 is None else sizes_BV2
    return packed


def decode_views(
    payload: bytes,
    views: Sequence[ViewSpec],
    boxes_V4: NDArray[np.int32],
    dct: Dct = "exact",
    entry_points: bytes = b"",
) -> DecodedViews:
    """Cut all views of a sample out of its JPEG, decoding only what they need.

    Equal to the bit to libjpeg-turbo's decode (islow DCT, fancy upsampling, grey made RGB), EXIF
    orientation, crop, and Pillow 13's resize. Earlier versions of Pillow resample in another order
    where the height shrinks much more than the width: up to 1/255 away.

    Args:
        payload: the bytes of a JPEG.
        views: V specs of equal size S.
        boxes_V4: int32 left, top, width, height in upright pixels, inside the picture.
        dct: "exact" as above; "scaled" reduces the picture by 2, 4 or 8 while it is decoded where
            every box is at least as many times as wide and high as its view (and as its first
            resampling). Then a view is what Pillow's resize makes of the same box, fractions and
            all, of libjpeg-turbo's picture of that size, cut to the pixels under the box.

        entry_points: the record that ``fastssl.shards.making.entry_points`` finds for these bytes;
            it changes no pixel. One that is damaged or of other bytes is not used; one that was
            forged to fit them gives any pixels, or a JpegDecodeError.

    Returns:
        The pixels and the cost.

    Raises:
        ValueError: for a dct that is not known.
        ImportError: if the extension was built without libjpeg-turbo.
        JpegDecodeError: for bytes that are damaged or of a kind that only the reference decoder
            takes, and for boxes that pass the picture.
    """
    if dct not in get_args(Dct):
        raise ValueError(f"dct ({dct!r}) must be one of {', '.join(get_args(Dct))}")
    require_jpeg()
    # torch wants memory that it may write.
    data, record = (
        torch.frombuffer(bytearray(one) or bytearray(1), dtype=torch.uint8)[: len(one)]
        for one in (payload, entry_points)
    )
    packed = torch.from_numpy(pack_views(views, boxes_V4[None])[0])
    images, (status, decoded, total, copied, factor, refused) = torch.ops.fastssl.decode_views(
        data, packed, views[0].size, dct == "scaled", record
    )
    if status:
        raise JpegDecodeError(STATUSES[status])
    return DecodedViews(images.numpy(), decoded, total, copied, bool(refused), factor)
