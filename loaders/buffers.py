"""Memory for the pixels of batches, used again and again.

Shape legend: B samples of a full batch, V views of each, S side of a view.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_HANDED_OVER = 2
"""Buffers that the user may hold: the batch in use and the one before it."""


class BatchBuffers:
    """A fixed number of buffers; one is free again when nobody refers to its pixels any more.

    That is what ``Batch`` promises. Who holds more than ``MAX_HANDED_OVER`` of them gets copies
    instead, and the buffers never run out.

    Fresh memory for every batch costs more than it seems: at 64 x 224 x 224 px from a worker
    process 8 to 14 ms of page faults on two cores, a tenth of what it takes to decode them.
    """

    def __init__(
        self,
        num_in_flight: int,
        shape: tuple[int, ...],
        is_shared: bool = False,
        is_pinned: bool = False,
    ) -> None:
        """Reserve the memory.

        Args:
            num_in_flight: buffers that are being filled or lie ready at any time.
            shape: of a full batch, (B, V, S, S, 3).
            is_shared: whether processes that are forked later shall see it.
            is_pinned: whether a GPU shall copy from it by itself.
        """
        num = self.count(num_in_flight)
        # Whatever mode the user iterates in: other threads may not fill inference tensors.
        with torch.inference_mode(False):
            memory = torch.empty((num, *shape), dtype=torch.uint8, pin_memory=is_pinned)
        self._memory = memory.share_memory_() if is_shared else memory
        self._arrays: NDArray[np.uint8] = self._memory.numpy()
        self._free: deque[int] = deque(range(num))
        self._handed_over: set[int] = set()

    @staticmethod
    def count(num_in_flight: int) -> int:
        """Return how many buffers there are in all: one more is being handed over."""
        return num_in_flight + MAX_HANDED_OVER + 1

    def take(self) -> int:
        """Return the number of a free buffer, to be filled: the last one used, still in caches."""
        return self._free.pop()

    def __getitem__(self, number: int) -> Tensor:
        """Return a buffer, uint8 (B, V, S, S, 3), to be filled."""
        return self._memory[number]

    def hand_over(self, number: int, length: int) -> Tensor:
        """Hand a filled buffer to the user.

        Args:
            number: from ``take``.
            length: samples in it.

        Returns:
            uint8 (length, V, S, S, 3).
        """
        pixels = self._arrays[number][:length]
        if len(self._handed_over) >= MAX_HANDED_OVER:
            self._free.append(number)
            return torch.from_numpy(pixels.copy())
        self._handed_over.add(number)
        # Every tensor made of this one shares its storage, and the storage holds the array.
        weakref.finalize(pixels, self._give_back, number).atexit = False
        return torch.from_numpy(pixels)

    def _give_back(self, number: int) -> None:
        # In whatever thread drops the pixels: both calls are whole.
        self._handed_over.discard(number)
        self._free.append(number)
