"""Moves batches to the training device while the one before is used.

On the CPU a batch is there already. On a GPU the copy runs from pinned memory on a stream of its
own, one batch ahead.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

import torch

from ..batch import Batch


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
    source: tuple[torch.Tensor, torch.cuda.Event] | None = None
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
