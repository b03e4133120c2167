"""Pictures of puzzles: what was asked beside what the network answered.

Shape legend: P patches, S patch side.
"""

from __future__ import annotations

import numpy as np

from .pictures import PAPER, Picture, frame_picture


def draw_puzzle(tiles: np.ndarray, asked: np.ndarray, answer: np.ndarray, grid: int) -> Picture:
    """Lay out the puzzle and its answered arrangement side by side.

    The tiles of the answer have a green frame where they lie right and a red one elsewhere.

    Args:
        tiles: uint8 (P, S, S, 3), patches in their true order.
        asked: (P,) slot j of the puzzle holds patch asked[j].
        answer: (P,) the permutation that the network believes it was.
        grid: cells a side.

    Returns:
        The picture and how many tiles lie right.
    """
    size = tiles.shape[1]
    puzzle = _lay_out(tiles[asked], grid, None)
    # Undoing the believed permutation: slot j's tile goes to place answer[j].
    placed = np.empty_like(asked)
    placed[answer] = asked
    is_right = placed == np.arange(len(asked))
    solved = _lay_out(tiles[placed], grid, is_right)
    space = np.full((puzzle.shape[0], size // 2, 3), PAPER, np.uint8)
    words = f"Puzzle, and its answer: {is_right.sum()} of {len(tiles)} tiles in their place"
    return Picture(np.concatenate([puzzle, space, solved], axis=1), words)


def _lay_out(tiles: np.ndarray, grid: int, is_right: np.ndarray | None) -> np.ndarray:
    framed = [
        frame_picture(tile, None if is_right is None else bool(is_right[place]))
        for place, tile in enumerate(tiles)
    ]
    rows = [np.concatenate(framed[i : i + grid], axis=1) for i in range(0, len(framed), grid)]
    return np.concatenate(rows)
