"""Pictures of matches: how well the places of one view agree with a vector of another.

Shape legend: N images, L places of a grid, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .pictures import WRONG, Picture, frame_picture

_SHOWN_SIDE = 128
_STOPS = np.array([(18, 18, 60), (110, 30, 120), (225, 80, 60), (255, 235, 130)], np.float32)


def draw_matches(
    views_NKSS3: NDArray[np.uint8], scores_NL: Sequence[NDArray[np.floating]], number: int
) -> Picture:
    """Lay out one view, its match with its image's other view, and that with another image's.

    The other image is the one whose best place matches best. Both maps have one scale of colours,
    from dark to bright.

    Args:
        views_NKSS3: two views of each image.
        scores_NL: of the whole first view with the places of all second views; and, of another
            grid, those of the place in its middle.
        number: of the image that is shown.
    """
    zoom = max(1, _SHOWN_SIDE // views_NKSS3.shape[2])
    views = views_NKSS3.repeat(zoom, 2).repeat(zoom, 3)
    rows, said = [], []
    for scores, is_place in zip(scores_NL, (False, True), strict=True):
        best = scores.max(1)
        rivals = np.where(np.arange(len(best)) == number, -np.inf, best)
        rival = int(rivals.argmax())
        limits = scores[[number, rival]].min(), scores[[number, rival]].max()
        asked = views[number, 0]
        if is_place:
            asked = _mark_middle(asked, round(scores.shape[1] ** 0.5))
        own, other = (_overlay(views[i, 1], scores[i], limits) for i in (number, rival))
        is_right = bool(best[number] > rivals[rival])
        framed = [frame_picture(asked, None), frame_picture(own, is_right)]
        rows.append(np.concatenate([*framed, frame_picture(other, None)], axis=1))
        said.append(f"{best[number]:.1f} against {rivals[rival]:.1f}")
    words = (
        "A view, where the image's other view matches it, and where the most alike of "
        f"{len(best) - 1} other images does. Best scores: of the whole view {said[0]}, of its "
        f"marked place {said[1]}"
    )
    return Picture(np.concatenate(rows), words)


def _overlay(
    picture: NDArray[np.uint8], scores: NDArray[np.floating], limits: tuple[float, float]
) -> NDArray[np.uint8]:
    """Colour a picture's places by their scores."""
    side, places = len(picture), round(len(scores) ** 0.5)
    colours = _find_colours(scores, limits)
    place = np.arange(side) * places // side
    ground = colours.reshape(places, places, 3)[place][:, place]
    grey = picture.mean(-1, keepdims=True)
    return (0.5 * ground + 0.5 * grey).round().astype(np.uint8)


def colour_heat(values: NDArray[np.floating], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Return values as colours, from dark to bright: uint8 with a last axis of 3.

    Args:
        values: of any shape.
        limits: values of the darkest and of the brightest colour; beyond them it is the same.
    """
    return _find_colours(values, limits).round().astype(np.uint8)


def _find_colours(
    values: NDArray[np.floating], limits: tuple[float, float]
) -> NDArray[np.floating]:
    heat = (values - limits[0]) / max(limits[1] - limits[0], 1e-12)
    stops = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(heat, stops, channel) for channel in _STOPS.T], -1)


def _mark_middle(picture: NDArray[np.uint8], places: int) -> NDArray[np.uint8]:
    """Draw a frame around the place in the middle of a grid."""
    side, middle = len(picture), places // 2
    first, last = side * middle // places, side * (middle + 1) // places
    marked = picture.copy()
    marked[first:last, first:last] = WRONG
    marked[first + 2 : last - 2, first + 2 : last - 2] = picture[
        first + 2 : last - 2, first + 2 : last - 2
    ]
    return marked
