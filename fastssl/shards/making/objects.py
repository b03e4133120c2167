"""Target ``objects``: the boxes of PASCAL VOC and COCO, in pixels of each picture as it is stored.

A source lists them as they were annotated; once the picture is there they are turned and scaled
with it, and cut at its borders.

Shape legend: M rows of a picture, as many as the one with the most objects has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..targets import NO_OBJECT, OBJECTS, TargetSpec
from .encode import EncodedPicture

MAX_OBJECTS = 10_000
"""Objects of one picture."""

KEPT, CLIPPED, EMPTY, OTHER_SIZE = "kept", "clipped", "empty", "other_size"
"""What ``place_objects`` counts: objects, those of them that were cut at a border, those without a
pixel inside, and pictures whose annotation tells of another size."""

_MAX_NUMBERS = 1 << 31
_FAR = 1e9  # float32 holds it; far outside of any picture


def describe_objects(path: Path, counts: Sequence[int]) -> TargetSpec:
    """Say what the target of pictures with so many objects is.

    Args:
        path: what lists them, for errors.
        counts: objects of each picture.

    Raises:
        InputError: if there are too many.
    """
    most = max(1, *counts)
    if most > MAX_OBJECTS:
        raise InputError(
            f"{path}: {most:,} boxes on one picture, up to {MAX_OBJECTS:,} are read; take it out"
        )
    spec = TargetSpec(OBJECTS, "float32", (most, len(NO_OBJECT)))
    if len(counts) * most * len(NO_OBJECT) > _MAX_NUMBERS:
        raise InputError(
            f"{path}: {len(counts):,} pictures, up to {most:,} boxes each, and every picture takes "
            f"the room of the one with the most: more than {_MAX_NUMBERS:,} numbers; take out what "
            "has so many"
        )
    return spec


def find_objects(specs: Iterable[TargetSpec]) -> TargetSpec | None:
    """Return the target of objects among others; None if there is none."""
    return next((spec for spec in specs if spec.name == OBJECTS), None)


def pack_objects(
    boxes: Sequence[Mapping[str, object]], columns: Mapping[str, int], spec: TargetSpec
) -> NDArray[np.float32]:
    """Write boxes as a row of the target, as they were annotated.

    Args:
        boxes: as a sample's JSON has them: pixels from 1, the last ones belong to the box.
        columns: number of each class.
        spec: from ``describe_objects``.

    Returns:
        float32 (M, 6): ``x1 y1 x2 y2 class difficult``.
    """
    rows = np.array([NO_OBJECT] * spec.row_shape[0], np.float64)
    for row, box in zip(rows[: len(boxes)], boxes, strict=True):
        sides = [float(str(box[side])) for side in ("xmin", "ymin", "xmax", "ymax")]
        row[:4] = np.clip(np.array(sides) - (1, 1, 0, 0), -_FAR, _FAR)
        row[4:] = columns[str(box["class"])], bool(box["difficult"])
    return rows.astype(np.float32)


def place_objects(
    annotated_M6: NDArray[np.float32], said: tuple[int, int] | None, picture: EncodedPicture
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Move objects to a picture as it is stored.

    Boxes are those of the upright picture. Where the annotation tells of its width and height the
    other way round, they were drawn on the picture lying, and are turned with it.

    Args:
        annotated_M6: from ``pack_objects``, or of a dataset that is converted again.
        said: width and height of the picture as the annotation has them; None if it does not say.
        picture: what is stored.

    Returns:
        float32 (M, 6): the objects with a pixel inside the picture, in their order, then unused
        rows; and how many of what were counted.
    """
    width, height, orientation = picture.source
    listed = annotated_M6[annotated_M6[:, 4] >= 0].astype(np.float64)
    is_lying = orientation >= 5 and said == (height, width) and width != height
    if is_lying:
        listed[:, :4] = _turn(listed[:, :4], orientation, width, height)
    ends = np.array([width, height, width, height], np.float64)
    inside = np.clip(listed[:, :4], 0, ends)
    has_pixels = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    is_cut = (inside != listed[:, :4]).any(axis=1) & has_pixels
    stored = np.array([picture.width, picture.height] * 2)
    rows = np.array([NO_OBJECT] * len(annotated_M6), np.float32)
    num = int(has_pixels.sum())
    rows[:num, :4] = inside[has_pixels] * stored / ends
    rows[:num, 4:] = listed[has_pixels, 4:]
    has_other_size = said is not None and said != (width, height) and not is_lying
    counts = {
        KEPT: num,
        CLIPPED: int(is_cut.sum()),
        EMPTY: len(listed) - num,
        OTHER_SIZE: int(has_other_size),
    }
    return rows, {name: count for name, count in counts.items() if count}


def _turn(
    boxes_M4: NDArray[np.float64], orientation: int, width: int, height: int
) -> NDArray[np.float64]:
    """Turn boxes of a lying picture (EXIF orientation 5 .. 8) upright, where it is width x height.

    A picture stands up by swapping its axes; then 6 and 7 mirror columns, 7 and 8 rows.
    """
    x1, y1, x2, y2 = boxes_M4[:, [1, 0, 3, 2]].T
    if orientation in (6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (7, 8):
        y1, y2 = height - y2, height - y1
    return np.stack((x1, y1, x2, y2), axis=1)
