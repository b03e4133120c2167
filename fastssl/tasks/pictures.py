"""Pieces of the pictures that tasks show while they learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 4
PAPER = 255
RIGHT = (46, 160, 67)
WRONG = (218, 54, 51)
_INK = (27, 29, 31)
_FONT_SIZE = 12
_LINE_HEIGHT = 15
_MIN_WIDTH = 150


class Picture(NamedTuple):
    """What was asked of one image and what the network answered."""

    pixels: np.ndarray
    """uint8 (H, W, 3)."""
    words: str
    """What is to be seen, and how good the answer is."""

    def captioned(self) -> np.ndarray:
        """Write the words below the picture, in as many lines as they take: uint8 (H', W', 3)."""
        height, width, _ = self.pixels.shape
        font = ImageFont.load_default(_FONT_SIZE)
        full_width = max(width, _MIN_WIDTH)
        lines = [""]
        for word in self.words.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > full_width - 2 * GAP:
                lines.append(word)
            else:
                lines[-1] = longer
        sheet = Image.new(
            "RGB", (full_width, height + len(lines) * _LINE_HEIGHT + GAP), (PAPER,) * 3
        )
        sheet.paste(Image.fromarray(self.pixels), (0, 0))
        draw = ImageDraw.Draw(sheet)
        for number, line in enumerate(lines):
            draw.text((GAP, height + number * _LINE_HEIGHT), line, fill=_INK, font=font)
        return np.asarray(sheet)


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
