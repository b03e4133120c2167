"""Pieces of the pictures that tasks show in TensorBoard."""

from __future__ import annotations

import numpy as np

GAP = 4
PAPER = 255
RIGHT = (46, 160, 67)
WRONG = (218, 54, 51)


def frame_picture(picture: np.ndarray, is_right: bool | None) -> np.ndarray:
    """Put a picture on paper, with a green frame where an answer is right and a red one elsewhere.

    Args:
        picture: uint8 (H, W, 3).
        is_right: None for no frame.

    Returns:
        uint8 (H + 8, W + 8, 3).
    """
    height, width, _ = picture.shape
    sheet = np.full((height + 2 * GAP, width + 2 * GAP, 3), PAPER, np.uint8)
    if is_right is not None:
        sheet[1:-1, 1:-1] = RIGHT if is_right else WRONG
    sheet[GAP:-GAP, GAP:-GAP] = picture
    return sheet
