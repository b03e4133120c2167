"""Pictures of what a detector finds: objects, answers, what was missed.

Shape legend: M objects, K answers, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..counts import spell_number
from ..models.detection import Found, import_torchvision
from .pictures import RIGHT, WRONG, Picture

SHOWN_SCORE = 0.5
"""Answers of a lower score are not drawn."""
_OVERLAP = 0.5
_LEAST_SIDE = 320
_ANSWER = (47, 129, 247)
_FALSE = (240, 136, 62)
_DIFFICULT = (139, 148, 158)
_MOST_NAMES = 6


def draw_found(
    pixels: np.ndarray, objects_M6: Tensor, found: Found, class_names: Sequence[str]
) -> Picture:
    """Draw objects green where they were found, red where not, and answers blue or orange.

    Args:
        pixels: uint8 (H, W, 3).
        objects_M6: x1, y1, x2, y2 in these pixels, class (-1 for none), difficult: drawn grey.
        found: answers in these pixels.
        class_names: of the classes.
    """
    # Small pictures are enlarged, so that frames leave something of them to be seen.
    times = max(1, _LEAST_SIDE // max(pixels.shape))
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    objects = objects_M6[objects_M6[:, 4] >= 0] * objects_M6.new_tensor([times] * 4 + [1, 1])
    sure = found.scores >= SHOWN_SCORE
    boxes, scores, classes = found.boxes[sure] * times, found.scores[sure], found.classes[sure]
    is_match = (import_torchvision().box_iou(objects[:, :4], boxes).nan_to_num(0.0) >= _OVERLAP) & (
        objects[:, 4, None].long() == classes
    )
    is_found, is_right = is_match.any(1).tolist(), is_match.any(0).tolist()
    sheet = Image.fromarray(pixels)
    draw = ImageDraw.Draw(sheet)
    for (*corners, _, difficult), was_found in zip(objects.tolist(), is_found, strict=True):
        colour = _DIFFICULT if difficult else RIGHT if was_found else WRONG
        draw.rectangle(corners, outline=colour, width=3)
    for corners, is_true in zip(boxes.tolist(), is_right, strict=True):
        draw.rectangle(corners, outline=_ANSWER if is_true else _FALSE, width=1)
    counted = [was for was, row in zip(is_found, objects.tolist(), strict=True) if not row[5]]
    said = ", ".join(
        f"{class_names[c] if c < len(class_names) else f'class {c}'} {score:.2f}"
        for c, score in zip(classes.tolist()[:_MOST_NAMES], scores.tolist(), strict=False)
    )
    num_false = len(is_right) - sum(is_right)
    there = spell_number(len(counted), "object")
    words = f"{sum(counted)} of {there} found (green, missed red), {num_false} false"
    return Picture(np.asarray(sheet), f"{words} (orange). Answers: {said or 'none'}")
