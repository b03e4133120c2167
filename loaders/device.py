"""Moves batches to the training device while the one before is used.

On the CPU a batch is there already, and so it is where a back end decodes on the GPU, into
``DeviceBuffers``. Else the copy runs from pinned memory on a stream of its own, one batch ahead.

Shape legend: B samples of a full batch, V views of each, S side of a view.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from ..batch import Batch
from .buffers import BatchBuffers


class DeviceBuffers:
    """Memory for pixels that are made on a GPU; otherwise as ``BatchBuffers``."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        """Make the stream that fills them.

        Args:
            shape: of a full batch, (B, V, S, S, 3).
            device: the GPU.
        """
        self.stream = torch.cuda.Stream(device)
        """Pixels are made on it, so that what is given back is not filled too early."""
        self._shape = shape
        self._device = device
        self._taken: dict[int, Tensor] = {}
        self._numbers = itertools.count()

    def take(self) -> int:
        """Return the number of a free buffer, to be filled."""
        number = next(self._numbers)
        with torch.cuda.stream(self.stream):
            self._taken[number] = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
        return number

    def __getitem__(self, number: int) -> Tensor:
        """Return a buffer, uint8 (B, V, S, S, 3), to be filled."""
        return self._taken[number]

    def hand_over(self, number: int, length: int) -> Tensor:
        """Hand a filled buffer to the user; for the thread that uses it.

        Args:
            number: from ``take``.
            length: samples in it.

        Returns:
            uint8 (length, V, S, S, 3).
        """
        pixels = self._taken.pop(number)
        # The allocator must not give the memory away before this stream is done.
        pixels.record_stream(torch.cuda.current_stream(self._device))
        return pixels[:length]


Buffers: TypeAlias = BatchBuffers | DeviceBuffers
"""Memory for the pixels of batches, wherever they are made."""


def move_batches(
    batches: Generator[Batch, None, None], device: str | torch.device
) -> Generator[Batch, None, None]:
    """Yield the same batches with their images on the device.

    Args:
        batches: on the CPU; closed when this generator is.
        device: ``cpu``, ``cuda`` or ``cuda:<n>``.

    Returns:
        Batches whose labels and ids stay on the CPU.
    """
    device = torch.device(device)
    return batches if device.type == "cpu" else _copy_ahead(batches, device)


def _copy_ahead(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    stream = torch.cuda.Stream(device)
    pending: tuple[Batch, torch.cuda.Event] | None = None
    # A loader may fill pinned memory of its own anew once nobody holds it: not before it is copied.
    source: tuple[Tensor, torch.cuda.Event] | None = None
    try:
        for batch in batches:
            began = time.perf_counter()
            with torch.cuda.stream(stream):
                images = batch.images.pin_memory().to(device, non_blocking=True)
                copied = torch.cuda.Event()
                copied.record(stream)
            if source is not None:
                source[1].synchronize()  # its copy began a batch ago
            source = batch.images, copied
            if pending is not None:
                yield _hand_over(*pending, device)
            # The host's part: pinning and starting the copy; the rest runs beside the training.
            stage_s = {**batch.stage_s, "copy": time.perf_counter() - began}
            pending = replace(batch, images=images, stage_s=stage_s), copied
        if pending is not None:
            yield _hand_over(*pending, device)
    finally:
        if source is not None:
            source[1].synchronize()
        batches.close()


def _hand_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    # The allocator must not give the memory to the copy stream again before this one is done.
    batch.images.record_stream(current)
    return batch
