"""Which samples a run's pictures show, and when: the same ones each time, so that they compare."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..batch import Batch
from ..system.files import publish_bytes
from ..tasks import Task

_log = logging.getLogger(__name__)

NUM_PICTURES = 4


def is_due(step: int, every: int) -> bool:
    """Return whether pictures are due: every so many steps, and at 1, 10, 100 ... before that.

    Args:
        step: steps done, from 1.
        every: steps between pictures.
    """
    is_power_of_ten = f"{step}".rstrip("0") == "1"
    return step % every == 0 or (step < every and is_power_of_ten)


def keep_shown(path: Path, batch: Batch, task: Task) -> Batch:
    """Return the samples to show: those of the file, else the batch's first, which go there.

    A run that goes on shows what it showed before, whatever its batches hold now.

    Args:
        path: of the file.
        batch: images on any device; it is not kept.
        task: says how many belong together, and whether it may see labels.

    Returns:
        A few samples in memory of their own, on the CPU.
    """
    if path.exists():
        try:
            return _read(path.read_bytes())
        except (OSError, SafetensorError, TypeError) as error:
            _log.warning("%s cannot be read (%s): the pictures show other samples now", path, error)
    few = batch.rows(0, min(max(NUM_PICTURES, task.batch_multiple), len(batch)))
    if not task.needs_labels:
        few = dataclasses.replace(few, labels=None)
    values = {f.name: getattr(few, f.name) for f in dataclasses.fields(few)}
    content = save({n: v.cpu().contiguous() for n, v in values.items() if torch.is_tensor(v)})
    publish_bytes(path, content)
    return _read(content)


def _read(content: bytes) -> Batch:
    fields: dict[str, Any] = {"labels": None, **load(content)}
    return Batch(**fields)
