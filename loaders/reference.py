"""Views cut from a decoded picture: the reference that every back end states its distance from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..shards.picture import crop_picture
from ..views import ViewSpec, fitted_sizes

_FILTERS = {"triangle": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}


def cut_views(
    picture: Image.Image,
    views: Sequence[ViewSpec],
    boxes: NDArray[np.int32],
    sizes: NDArray[np.int32] | None = None,
) -> NDArray[np.uint8]:
    """Cut the boxes, then resize: antialiased, with the filter's support clamped to the crop.

    Args:
        picture: upright RGB.
        views: V specs of equal size S.
        boxes: int32 (V, 4) left, top, width, height inside the picture.
        sizes: int32 (V, 2) from ``fitted_sizes``; None where none is drawn.

    Returns:
        uint8 (V, S, S, 3), black right of and below what is resized to less than a view.
    """
    side = views[0].size
    pixels = np.zeros((len(views), side, side, 3), np.uint8)
    if sizes is None:
        sizes = fitted_sizes(views, boxes[None])[0]
    for out, spec, box, size in zip(pixels, views, boxes.tolist(), sizes.tolist(), strict=True):
        left, top, width, height = box
        out_width, out_height = size
        # Cropping first is what clamps the support: Pillow's own box argument would let the
        # filter see pixels outside.
        crop = crop_picture(picture, (left, top, left + width, top + height))
        first = spec.intermediate_size(width, height)
        if first is not None:
            crop = crop.resize(first, _FILTERS[spec.filter])
        crop = crop.resize((out_width, out_height), _FILTERS[spec.filter])
        out[:out_height, :out_width] = np.asarray(crop)
    return pixels
