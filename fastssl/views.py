"""What a task wants to see of a picture, and the boxes that this means in pixels.

A view is an integer box of the upright picture, resized to a square, or to what fits into one.
Boxes and sizes are worked out here and nowhere else: no back end computes one. The arithmetic is
integer throughout, so that every machine cuts the same box (golden boxes and sizes stand in
``tests/test_views.py``).

Shape legend: B samples, V views of each, A attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .fields import Checked, Range
from .randomness import Stream, draw_words, to_below

Filter = Literal["triangle", "area"]
Fallback = Literal["center", "whole"]
Kind = Literal[
    "random_resized_crop",
    "tensorflow_crop",
    "resize_crop",
    "center",
    "squash",
    "squash_crop",
    "resize_squash",
    "fit",
]

MAX_SIDE = 65535
"""Longest side of a picture in pixels: what JPEG and the index can hold."""

# Draws of view v are numbers v * 64 ..: four for each attempt (area or side, ratio, left, top).
_DRAWS_PER_VIEW = 64
_DRAWS_PER_ATTEMPT = 4
_MAX_ATTEMPTS = _DRAWS_PER_VIEW // _DRAWS_PER_ATTEMPT

# Shares and ratios are 16.16 fixed point; log-uniform ratios come from a table.
_ONE = 1 << 16
_RATIO_STEPS = 1024


@dataclass(frozen=True)
class ViewSpec(Checked, prefix="view "):
    """One kind of view; built by the class methods, which carry the field's names."""

    kind: Kind
    """Which rule draws the box."""
    size: Annotated[int, Range(1, MAX_SIDE)]
    """Side of the square output in pixels."""
    resize: Annotated[int | tuple[int, ...], Range(0, MAX_SIDE)] = 0
    """Side that the rule resizes to before it crops, in pixels; 0 where there is none; of fit also
    several, of which one is drawn."""
    scale: Annotated[tuple[float, float], Range(0, 1, without=0)] = (0.08, 1.0)
    """Share of the picture's area, lowest and highest."""
    ratio: Annotated[tuple[float, float], Range(0, 1000, without=0)] = (3 / 4, 4 / 3)
    """Width over height, lowest and highest; drawn log-uniformly, by tensorflow_crop uniformly."""
    attempts: Annotated[int, Range(1, _MAX_ATTEMPTS)] = 10
    """Boxes tried before the fallback, 1 to 16."""
    fallback: Fallback = "center"
    """What to take when no attempt fits: the largest allowed box in the centre, or the whole."""
    count: Annotated[int, Range(1, 1024)] = 1
    """How many views of this kind to draw."""
    filter: Filter = "triangle"
    """Antialiased resampling filter."""

    def check(self) -> None:
        """Refuse what cannot be drawn."""
        for name, (lowest, highest) in (("scale", self.scale), ("ratio", self.ratio)):
            if lowest > highest:
                raise InputError(f"view {name} ({lowest}, {highest}) must be (lowest, highest)")
        fits = bool(self.sides) and 1 <= min(self.sides) <= max(self.sides) <= self.size
        if self.kind == "fit" and not fits:
            raise InputError(
                f"view short ({self.resize}) must be one or several sides of 1 .. {self.size} "
                "pixels: no short side is longer than the long one's limit"
            )
        if self.kind != "fit" and isinstance(self.resize, tuple):
            raise InputError(f"view resize {self.resize} must be one side; fit alone takes several")
        if self.kind in ("resize_crop", "center", "squash_crop") and self.sides[0] < self.size:
            raise InputError(
                f"view size ({self.size}) must not exceed the side it is cut from "
                f"({self.resize}); enlarge the resize"
            )
        if self.kind == "resize_squash" and self.sides[0] < 1:
            raise InputError(f"view resize_short ({self.resize}) must be at least 1 pixel")

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides that the rule resizes to, of which one is drawn."""
        return self.resize if isinstance(self.resize, tuple) else (self.resize,)

    @classmethod
    def random_resized_crop(
        cls,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        attempts: int = 10,
        fallback: Fallback = "center",
        count: int = 1,
        filter: Filter = "triangle",
    ) -> ViewSpec:
        """Cut a box of random area and ratio and resize it (Szegedy et al. 2015)."""
        return cls("random_resized_crop", size, 0, scale, ratio, attempts, fallback, count, filter)

    @classmethod
    def tensorflow_crop(
        cls,
        size: int,
        scale: tuple[float, float] = (0.1, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        attempts: int = _MAX_ATTEMPTS,
        fallback: Fallback = "whole",
        count: int = 1,
        filter: Filter = "triangle",
    ) -> ViewSpec:
        """Cut a box as TensorFlow's ``sample_distorted_bounding_box`` does, and resize it.

        The ratio is uniform, then the height: from that of a box of half the lowest area up to the
        largest that fits. A box below the lowest area is drawn again. So slim's Inception views
        have it, with 0.05 for the range and 0.1 to be covered; they try 100 times.
        """
        return cls("tensorflow_crop", size, 0, scale, ratio, attempts, fallback, count, filter)

    @classmethod
    def resize_crop(
        cls, resize_short: int, size: int, count: int = 1, filter: Filter = "triangle"
    ) -> ViewSpec:
        """Resize the short side, then cut a square at a random place."""
        return cls("resize_crop", size, resize_short, count=count, filter=filter)

    @classmethod
    def center(
        cls, resize_short: int, size: int, count: int = 1, filter: Filter = "triangle"
    ) -> ViewSpec:
        """Resize the short side, then cut the square in the centre."""
        return cls("center", size, resize_short, count=count, filter=filter)

    @classmethod
    def squash(cls, size: int, count: int = 1, filter: Filter = "triangle") -> ViewSpec:
        """Resize the whole picture to a square."""
        return cls("squash", size, count=count, filter=filter)

    @classmethod
    def squash_crop(
        cls, resize: int, size: int, count: int = 1, filter: Filter = "triangle"
    ) -> ViewSpec:
        """Resize the whole picture to a square, then cut a smaller one at a random place."""
        return cls("squash_crop", size, resize, count=count, filter=filter)

    @classmethod
    def resize_squash(
        cls, resize_short: int, size: int, count: int = 1, filter: Filter = "triangle"
    ) -> ViewSpec:
        """Resize the short side, then resize that to a square: two resamplings."""
        return cls("resize_squash", size, resize_short, count=count, filter=filter)

    @classmethod
    def fit(
        cls, short: int | Sequence[int], long: int, count: int = 1, filter: Filter = "triangle"
    ) -> ViewSpec:
        """Resize the whole picture into the upper left corner of a black square of side ``long``.

        Its short side becomes ``short``, or less where its long one would pass ``long``; of several
        one is drawn. So detectors see pictures (Girshick 2015, 2.3: 600 and 1,000 pixels).
        ``fitted_sizes`` says how much of the square is picture.
        """
        resize = short if isinstance(short, int) else tuple(short)
        return cls("fit", long, resize, count=count, filter=filter)

    def intermediate_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the (width, height) of the first of two resamplings; None where there is one.

        No side is longer than a picture's may be: a line of pixels would take gigabytes.

        Args:
            width: of the box in pixels.
            height: of the box in pixels.
        """
        if self.kind != "resize_squash":
            return None
        short = min(width, height)
        return (
            min(MAX_SIDE, max(1, int(_divide_round(width * self.sides[0], short)))),
            min(MAX_SIDE, max(1, int(_divide_round(height * self.sides[0], short)))),
        )


Views = ViewSpec | Sequence[ViewSpec]


def list_views(views: Views) -> tuple[ViewSpec, ...]:
    """Return one spec for each of the V views.

    Args:
        views: one spec or several of equal output size.

    Returns:
        V specs, each of count 1.

    Raises:
        InputError: if there is none or the sizes differ.
    """
    specs = (views,) if isinstance(views, ViewSpec) else tuple(views)
    if not specs:
        raise InputError("views (none given) must hold at least one ViewSpec")
    sizes = {spec.size for spec in specs}
    if len(sizes) > 1:
        raise InputError(f"views of sizes {sorted(sizes)} must all have one size")
    return tuple(spec for spec in specs for _ in range(spec.count))


def draw_boxes(
    views: Sequence[ViewSpec],
    widths: ArrayLike,
    heights: ArrayLike,
    seed: int,
    epochs: ArrayLike,
    sample_ids: ArrayLike,
) -> NDArray[np.int32]:
    """Draw the box of every view of every sample.

    Args:
        views: V specs, from ``list_views``.
        widths: (B,) of the upright pictures in pixels.
        heights: (B,) likewise.
        seed: the run's seed.
        epochs: (B,).
        sample_ids: (B,).

    Returns:
        int32 (B, V, 4): left, top, width, height in upright pixels, inside the picture.
    """
    widths = np.asarray(widths, np.int64)
    heights = np.asarray(heights, np.int64)
    boxes = np.empty((len(widths), len(views), 4), np.int32)
    for v, spec in enumerate(views):
        first = v * _DRAWS_PER_VIEW
        num = spec.attempts * _DRAWS_PER_ATTEMPT if spec.kind in _TRYING else 2
        words = draw_words(seed, epochs, sample_ids, Stream.BOX, num, first)
        boxes[:, v] = _RULES[spec.kind](spec, widths, heights, words)
    return boxes


def fitted_sizes(
    views: Sequence[ViewSpec],
    boxes_BV4: ArrayLike,
    seed: int | None = None,
    epochs: ArrayLike = 0,
    sample_ids: ArrayLike = 0,
) -> NDArray[np.int32]:
    """Give the size that every box is resized to: what of its view is picture.

    The rest, right of it and below, is black; square views have none. A side of ``ViewSpec.fit`` is
    the nearest whole number of pixels, halves upwards, and at least 1.

    Args:
        views: V specs, from ``list_views``.
        boxes_BV4: (B, V, 4) left, top, width, height in pixels, as ``Batch.boxes`` has them.
        seed: the run's seed; it, epochs and ids matter where one of several short sides is drawn.
        epochs: (B,).
        sample_ids: (B,) that were planned, as in ``Batch.sample_ids``.

    Returns:
        int32 (B, V, 2): width and height in pixels of the view, at most its size.

    Raises:
        ValueError: if there is something to draw and no seed.
    """
    boxes = np.asarray(boxes_BV4, np.int64)
    sizes = np.empty((*boxes.shape[:2], 2), np.int32)
    for v, spec in enumerate(views):
        if spec.kind != "fit":
            sizes[:, v] = spec.size
            continue
        short = np.asarray(spec.sides, np.int64)
        if len(short) > 1:
            if seed is None:
                raise ValueError(
                    f"seed (None) must be the run's: one of the short sides {spec.sides} is drawn"
                )
            words = draw_words(seed, epochs, sample_ids, Stream.BOX, 1, v * _DRAWS_PER_VIEW)
            short = short[to_below(words[:, 0], len(short))]
        sizes[:, v] = _fit(short, spec.size, boxes[:, v, 2], boxes[:, v, 3])
    return sizes


def _fit(short: NDArray, long: int, widths: NDArray, heights: NDArray) -> NDArray:
    """Return (B, 2) width and height with sides of at most ``short`` and ``long``."""
    least, most = np.minimum(widths, heights), np.maximum(widths, heights)
    fits = most * short <= long * least
    new_least = np.where(fits, short, np.maximum(_divide_round(least * long, most), 1))
    new_most = np.where(fits, _divide_round(most * short, least), long)
    new = np.stack((new_least, new_most), axis=-1)
    return np.where((widths <= heights)[:, None], new, new[:, ::-1])


def scale_boxes(
    boxes_BV4: NDArray[np.int32],
    widths: ArrayLike,
    heights: ArrayLike,
    stored_widths: ArrayLike,
    stored_heights: ArrayLike,
) -> NDArray[np.int32]:
    """Move boxes from pictures to their copies of another size.

    Each edge goes to the nearest pixel border of the copy, halves upwards; a box keeps at least one
    pixel.

    Args:
        boxes_BV4: int32 (B, V, 4) left, top, width, height in pixels of the pictures.
        widths: (B,) of the pictures in pixels.
        heights: (B,) likewise.
        stored_widths: (B,) of the copies in pixels.
        stored_heights: (B,) likewise.

    Returns:
        int32 (B, V, 4) in pixels of the copies, inside them.
    """
    parts = []
    for axis, lengths, stored in ((0, widths, stored_widths), (1, heights, stored_heights)):
        old, new = (np.asarray(sides, np.int64)[:, None] for sides in (lengths, stored))
        start = boxes_BV4[..., axis].astype(np.int64)
        stop = start + boxes_BV4[..., axis + 2]
        first = np.minimum(_divide_round(start * new, old), new - 1)
        parts.append((first, np.maximum(_divide_round(stop * new, old), first + 1) - first))
    (left, width), (top, height) = parts
    return np.stack((left, top, width, height), axis=-1).astype(np.int32)


def _divide_round(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.int64]:
    """Divide non-negative integers, halves rounded up."""
    denominator = np.asarray(denominator, np.int64)
    return (2 * np.asarray(numerator, np.int64) + denominator) // (2 * denominator)


def _sqrt_round(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round the square root of integers below 2**50 to the nearest integer."""
    four_x = 4 * x
    # IEEE square roots are correctly rounded, so this is exact up to one unit, mended below.
    root = np.sqrt(four_x.astype(np.float64)).astype(np.int64)
    root = root - (root * root > four_x)
    root = root + ((root + 1) * (root + 1) <= four_x)
    return (root + 1) // 2


def _fixed(value: float) -> int:
    return round(value * _ONE)


@lru_cache(maxsize=64)
def _ratio_table(lowest: float, highest: float) -> NDArray[np.int64]:
    """Log-uniform ratios in 16.16, by decimal arithmetic: correctly rounded on every machine."""
    with localcontext() as context:
        context.prec = 40
        low, high = Decimal(lowest).ln(), Decimal(highest).ln()
        steps = (low + (high - low) * (2 * i + 1) / (2 * _RATIO_STEPS) for i in range(_RATIO_STEPS))
        return np.array([int((step.exp() * _ONE).to_integral_value()) for step in steps], np.int64)


def _stack(left: ArrayLike, top: ArrayLike, width: ArrayLike, height: ArrayLike) -> NDArray:
    return np.stack(np.broadcast_arrays(left, top, width, height), axis=-1)


def _part_attempts(spec: ViewSpec, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Turn words (B, A * 4) into four arrays (B, A)."""
    return np.moveaxis(words.reshape(len(words), spec.attempts, _DRAWS_PER_ATTEMPT), -1, 0)


def _random_resized_crop(
    spec: ViewSpec, widths: NDArray, heights: NDArray, words: NDArray[np.uint32]
) -> NDArray:
    area_word, ratio_word, left_word, top_word = _part_attempts(spec, words)
    width, height = widths[:, None], heights[:, None]
    low, high = _fixed(spec.scale[0]), _fixed(spec.scale[1])
    share = low + to_below(area_word, high - low + 1)
    area = width * height * share >> 16
    ratio = _ratio_table(*spec.ratio)[to_below(ratio_word, _RATIO_STEPS)]
    w = _sqrt_round(area * ratio >> 16)
    h = _sqrt_round((area << 16) // ratio)
    fits = np.asarray((w >= 1) & (w <= width) & (h >= 1) & (h <= height))
    w, h = np.where(fits, w, 1), np.where(fits, h, 1)
    boxes = _stack(to_below(left_word, width - w + 1), to_below(top_word, height - h + 1), w, h)
    return _choose_first(spec, boxes, fits, widths, heights)


def _tensorflow_crop(
    spec: ViewSpec, widths: NDArray, heights: NDArray, words: NDArray[np.uint32]
) -> NDArray:
    side_word, ratio_word, left_word, top_word = _part_attempts(spec, words)
    width, height = widths[:, None], heights[:, None]
    low, high = _fixed(spec.ratio[0]), _fixed(spec.ratio[1])
    ratio = low + to_below(ratio_word, high - low + 1)
    least, most = _fixed(spec.scale[0]), _fixed(spec.scale[1])
    lowest = _sqrt_round(width * height * (least // 2) // ratio)
    # The greatest height whose width, rounded, fits too.
    widest = (((width + 1) << 16) - (_ONE >> 1) - 1) // ratio
    highest = np.minimum(_sqrt_round(width * height * most // ratio), np.minimum(widest, height))
    h = np.minimum(lowest, highest)
    h = h + to_below(side_word, highest - h + 1)
    w = (h * ratio + (_ONE >> 1)) >> 16
    # Its rounding at the ends of the range, which TensorFlow mends, is drawn again here.
    area = w * h * _ONE
    fits = (area >= width * height * least) & (area <= width * height * most) & (w >= 1) & (h >= 1)
    w, h = np.where(fits, w, 1), np.where(fits, h, 1)
    # TensorFlow never draws the last place.
    left = to_below(left_word, np.maximum(width - w, 1))
    boxes = _stack(left, to_below(top_word, np.maximum(height - h, 1)), w, h)
    return _choose_first(spec, boxes, fits, widths, heights)


def _choose_first(
    spec: ViewSpec, boxes: NDArray, fits: NDArray, widths: NDArray, heights: NDArray
) -> NDArray:
    """Take the first of A boxes that fits, (B, A, 4) -> (B, 4), or the fallback."""
    chosen = np.take_along_axis(boxes, fits.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return np.where(fits.any(axis=1, keepdims=True), chosen, _fallback_boxes(spec, widths, heights))


def _fallback_boxes(spec: ViewSpec, widths: NDArray, heights: NDArray) -> NDArray:
    w, h = widths, heights
    if spec.fallback == "center":
        low, high = _fixed(spec.ratio[0]), _fixed(spec.ratio[1])
        too_tall = widths * _ONE < heights * low
        too_wide = widths * _ONE > heights * high
        h = np.where(too_tall, np.clip(_divide_round(widths * _ONE, low), 1, heights), heights)
        w = np.where(too_wide, np.clip(_divide_round(heights * high, _ONE), 1, widths), widths)
    return _stack((widths - w) // 2, (heights - h) // 2, w, h)


def _cut_side(spec: ViewSpec, lengths: NDArray) -> NDArray[np.int64]:
    """Side in source pixels of a cut of ``size`` out of ``lengths`` resized to ``resize``."""
    return np.clip(_divide_round(lengths * spec.size, spec.sides[0]), 1, lengths)


def _resize_crop(spec: ViewSpec, widths: NDArray, heights: NDArray, words: NDArray) -> NDArray:
    side = _cut_side(spec, np.minimum(widths, heights))
    left = to_below(words[:, 0], widths - side + 1)
    return _stack(left, to_below(words[:, 1], heights - side + 1), side, side)


def _center(spec: ViewSpec, widths: NDArray, heights: NDArray, _: NDArray) -> NDArray:
    side = _cut_side(spec, np.minimum(widths, heights))
    return _stack((widths - side) // 2, (heights - side) // 2, side, side)


def _whole(_: ViewSpec, widths: NDArray, heights: NDArray, __: NDArray) -> NDArray:
    return _stack(0, 0, widths, heights)


def _squash_crop(spec: ViewSpec, widths: NDArray, heights: NDArray, words: NDArray) -> NDArray:
    w, h = _cut_side(spec, widths), _cut_side(spec, heights)
    left = to_below(words[:, 0], widths - w + 1)
    return _stack(left, to_below(words[:, 1], heights - h + 1), w, h)


_RULES = {
    "random_resized_crop": _random_resized_crop,
    "tensorflow_crop": _tensorflow_crop,
    "resize_crop": _resize_crop,
    "center": _center,
    "squash": _whole,
    "squash_crop": _squash_crop,
    "resize_squash": _whole,
    "fit": _whole,
}
_TRYING = ("random_resized_crop", "tensorflow_crop")


def intermediate_sizes(
    views: Sequence[ViewSpec], boxes_BV4: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Give ``ViewSpec.intermediate_size`` of every box.

    Args:
        views: V specs.
        boxes_BV4: int32 (B, V, 4) left, top, width, height in pixels.

    Returns:
        int32 (B, V, 2) width and height of the first of two resamplings; 0 where there is one.
    """
    sizes = np.zeros((*boxes_BV4.shape[:2], 2), np.int32)
    for v, spec in enumerate(views):
        if spec.intermediate_size(1, 1) is not None:
            sizes[:, v] = [
                spec.intermediate_size(width, height) or (0, 0)
                for _, _, width, height in boxes_BV4[:, v].tolist()
            ]
    return sizes
