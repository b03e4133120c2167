"""Tables that the ranks hold between them: state of a task that is no buffer.

Shape legend: N rows of the whole table.
"""

from __future__ import annotations

import math

import torch

from ..world import World


class DividedTable:
    """N rows divided over the ranks: rank r of W holds rows r N // W .. (r + 1) N // W - 1.

    No step clones, concatenates or broadcasts it. Each rank writes its rows into the checkpoint as
    a file of its own, and reads at any world size those that are its own then. So that a run does
    not depend on the ranks, what a row begins with is a function of its number alone.
    """

    def __init__(
        self, num_rows: int, row_shape: tuple[int, ...], dtype: torch.dtype, world: World
    ) -> None:
        """Make this rank's rows, of zeros.

        Args:
            num_rows: N, of the whole table.
            row_shape: of one row.
            dtype: of the rows.
            world: the ranks; the rows lie on its device.
        """
        self.num_rows = num_rows
        self.first = world.rank * num_rows // world.size
        """Number of this rank's first row."""
        self.stop = (world.rank + 1) * num_rows // world.size
        """Number behind that of its last row."""
        self.rows = torch.zeros(
            (self.stop - self.first, *row_shape), dtype=dtype, device=world.device
        )
        """``(stop - first, *row_shape)``: row ``first + i`` at i."""

    @staticmethod
    def count_bytes(
        num_rows: int, row_shape: tuple[int, ...], dtype: torch.dtype, world_size: int
    ) -> int:
        """Return the bytes of the rows of the rank that has the most, without making them.

        Args:
            num_rows: N, of the whole table.
            row_shape: of one row.
            dtype: of the rows.
            world_size: number of ranks.
        """
        return -(-num_rows // world_size) * math.prod(row_shape) * dtype.itemsize

    def describe(self) -> dict[str, object]:
        """Return what is the same on all ranks: rows, their shape and type."""
        shape = list(self.rows.shape[1:])
        return {"num_rows": self.num_rows, "row_shape": shape, "dtype": str(self.rows.dtype)}
