"""Which samples a run's pictures show, and when: the same ones each time, so that they compare."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..system.files import publish_bytes, read_own
from ..tasks import Task

_log = logging.getLogger(__name__)

NUM_PICTURES = 4
MAX_SHOWN_BYTES = 1 << 28
"""A larger file of samples is none of ours."""
_TARGET = "targets."


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
    most = max(NUM_PICTURES, task.batch_multiple)
    few = task.keep_known(batch.rows(0, min(most, len(batch))))
    own = {f.name: getattr(few, f.name) for f in dataclasses.fields(few)}
    own = {name: value for name, value in own.items() if torch.is_tensor(value)}
    own |= {f"{_TARGET}{name}": value for name, value in few.targets.items()}
    if path.exists():
        try:
            found = load(read_own(path, MAX_SHOWN_BYTES))
            if not _is_like(found, own, most):
                raise TypeError("they are of another task or view")
            return _make(found)
        except (OSError, InputError, SafetensorError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read (%s): the pictures show other samples now", path, error)
    content = save({name: value.cpu().contiguous() for name, value in own.items()})
    publish_bytes(path, content)
    return _make(load(content))


def _is_like(found: Mapping[str, Tensor], own: Mapping[str, Tensor], most: int) -> bool:
    """Tell whether samples of a file are such as the run's own, be they more or fewer."""
    needed = {"images", "sample_ids", "epochs", *(name for name in own if name.startswith(_TARGET))}
    is_whole = needed <= found.keys() <= own.keys()
    if not is_whole or any(value.dim() < 1 for value in found.values()):
        return False
    nums = {len(value) for value in found.values()}
    return (
        len(nums) == 1
        and 1 <= nums.pop() <= most
        and all(
            (value.dtype, value.shape[1:]) == (own[name].dtype, own[name].shape[1:])
            for name, value in found.items()
        )
    )


def _make(values: Mapping[str, Tensor]) -> Batch:
    targets = {k.removeprefix(_TARGET): v for k, v in values.items() if k.startswith(_TARGET)}
    fields: dict[str, Any] = {k: v for k, v in values.items() if not k.startswith(_TARGET)}
    return Batch(**{"labels": None, **fields}, targets=targets)
