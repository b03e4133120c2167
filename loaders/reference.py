"""Views cut from a decoded picture: the reference that every back end states its distance from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..shards.picture import crop_picture
from ..views import ViewSpec

_FILTERS = {"triangle": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}


def cut_views(
    picture: Image.Image, views: Sequence[ViewSpec], boxes: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Cut the boxes, then resize: antialiased, with the filter's support clamped to the crop.

    Args:
        picture: upright RGB.
        views: V specs of equal size S.
        boxes: int32 (V, 4) left, top, width, height inside the picture.

    Returns:
        uint8 (V, S, S, 3).
    """
    size = views[0].size
    pixels = np.empty((len(views), size, size, 3), np.uint8)
    for out, spec, (left, top, width, height) in zip(pixels, views, boxes.tolist(), strict=True):
        # Cropping first is what clamps the support: Pillow's own box argument would let the
        # filter see pixels outside.
        crop = crop_picture(picture, (left, top, left + width, top + height))
        first = spec.intermediate_size(width, height)
        if first is not None:
            crop = crop.resize(first, _FILTERS[spec.filter])
        out[:] = np.asarray(crop.resize((size, size), _FILTERS[spec.filter]))
    return pixels
