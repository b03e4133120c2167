"""Whether a training step fits the device's memory, known before it starts.

Shape legend: B images of a micro-batch on one rank, V views of each, S side of a view.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..batch import Batch
from ..config import OptimConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..models import Trunk, build_trunk
from ..models.memory import MemoryEstimate, count_kept_bytes
from ..system.cgroups import cgroup_memory
from ..system.cpus import local_world_size
from ..tasks import Task, build_task
from ..views import list_views
from ..world import World

_log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Formats of the forward and backward pass."""

_GB = 2**30
# Share of the memory that the sure part of a proposed setting may take: it takes more than that.
_COMFORT = 0.8


class Capacity(NamedTuple):
    """What one rank has."""

    memory: int
    """Bytes."""
    device: str
    """Whose they are."""


def outline_task(config: RunConfig, num_classes: int, trunk: Trunk | None = None) -> Task:
    """Build a run's task without memory for its weights.

    Args:
        config: of the run.
        num_classes: of the dataset's labels; 0 without labels.
        trunk: that is there already, in the place of what the config builds.

    Returns:
        The task, its parameters on the "meta" device, but for a trunk that was given.

    Raises:
        InputError: if the task cannot be built.
    """
    with torch.device("meta"):
        trunk = trunk or build_trunk(config.trunk, config.width)
        task = build_task(config.task, trunk, num_classes)
    trunk.freeze(config.frozen_stages)
    return task


def check_memory(
    outline: Task,
    config: RunConfig,
    size: int,
    world_size: int,
    capacity: Capacity,
    num_samples: int = 0,
) -> None:
    """Log what a training step surely takes, and refuse one that does not fit.

    A step that passes may still run out of memory: what lives for a moment, the loader's batches
    and the libraries' own memory are not counted.

    Args:
        outline: from ``outline_task``.
        config: of the run.
        size: B.
        world_size: number of ranks.
        capacity: from ``read_capacity``.
        num_samples: of the run, which its task may have tables for.

    Raises:
        InputError: if the step surely takes more than the device has.
    """
    if config.max_steps == 0:
        return  # no step is taken: an untrained trunk is exported
    estimate = estimate_step(outline, size, config.precision, count_momentums(config.optim))
    # torch.compile computes again what is cheap: how much less it keeps is not known.
    kept = 0 if config.compile else estimate.activations
    step = estimate.least(config.accumulation > 1 or world_size > 1, kept)
    tables = outline.count_table_bytes(num_samples, world_size)
    least, (has, device) = step + tables, capacity
    parts = (least, has, estimate.weights, estimate.gradients, estimate.optimizer)
    numbers = tuple(value / _GB for value in (*parts, estimate.activations))
    _log.info(
        "memory of a step: at least %.2f GiB of %.2f GiB (weights %.2f, gradients %.2f, optimiser "
        "%.2f, kept for the backward pass %.2f%s%s)",
        *numbers,
        ", less as torch.compile has it and not counted" if config.compile else "",
        f", the task's tables {tables / _GB:.2f}" if tables else "",
    )
    if tables and least > has and step <= _COMFORT * has:
        raise InputError(
            f"task {config.task.name} keeps {tables / _GB:.1f} GiB a rank for "
            f"{spell_number(num_samples, 'sample')}, and a step takes at least "
            f"{step / _GB:.1f} GiB; {device} has {has / _GB:.1f} GiB; lower --data.max-samples to "
            f"{num_samples * max(has - step, 0) // tables:,}, or start more ranks on more machines"
        )
    if least > has:
        raise InputError(
            f"trunk ('{config.trunk}') of width {config.width} takes at least {least / _GB:.1f} "
            f"GiB to train on {spell_number(size, 'image')} at a time, {device} has "
            f"{has / _GB:.1f} GiB; "
            f"{_find_remedy(config, estimate, kept, size // outline.batch_multiple, has - tables)}"
        )


def _find_remedy(
    config: RunConfig, estimate: MemoryEstimate, kept: int, num_parts: int, has: int
) -> str:
    """Say what would fit: more accumulation where that is enough, else a smaller network.

    Args:
        config: of the run.
        estimate: of its step.
        kept: activations that count.
        num_parts: images of a micro-batch that can be parted.
        has: bytes of the device.
    """
    factors = (factor for factor in range(2, num_parts + 1) if num_parts % factor == 0)
    for factor in factors:
        if estimate.least(True, kept // factor) <= _COMFORT * has:
            bf16 = ", or try --precision bf16" if config.precision == "fp32" else ""
            return (
                f"set --accumulation {factor * config.accumulation}, or lower --width or "
                f"--data.global-batch-size{bf16}"
            )
    return "lower --width, or choose another --trunk"


def estimate_step(task: Task, size: int, precision: str, momentums: int) -> MemoryEstimate:
    """Estimate what a training step of a whole task holds, in a second and without taking it.

    Args:
        task: on any device, "meta" too.
        size: B.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        momentums: tensors that the optimiser keeps for each parameter.

    Returns:
        The bytes by what they are for.
    """
    learning = _count_bytes(p for p in task.parameters() if p.requires_grad)
    return MemoryEstimate(
        weights=_count_bytes(task.parameters()) + _count_bytes(task.buffers()),
        gradients=learning,
        optimizer=momentums * learning,
        activations=count_step_bytes(task, size, precision),
    )


def count_step_bytes(task: Task, size: int, precision: str) -> int:
    """Count what a forward pass of a task keeps for the backward pass, on tensors without memory.

    Args:
        task: on any device, "meta" too; it stays as it is.
        size: B.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Returns:
        Bytes, the inputs included, without parameters and buffers.
    """
    with forward_without_memory(task, size, precision) as (forward, inputs, own):
        return count_kept_bytes(forward, inputs, own)


@contextlib.contextmanager
def forward_without_memory(
    task: Task, size: int, precision: str
) -> Iterator[tuple[Callable[[], Any], list[Tensor], list[Tensor]]]:
    """Give a task's forward pass on tensors that have shapes and no memory.

    Trunk, head and loss run with the task's own number and size of inputs and under its autocast,
    by the rules of a CPU; a GPU keeps the same tensors.

    Args:
        task: on any device, "meta" too; it stays as it is.
        size: B.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Yields:
        What runs it, its inputs, and its parameters and buffers.
    """
    dtype = DTYPES[precision]
    prepared = task.prepare(_make_batch(task), 0, dtype)
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: _without_memory(t) for name, t in _name_tensors(task)}
        inputs = {
            name: torch.empty((size, *value.shape[1:]), dtype=value.dtype)
            for name, value in prepared.items()
        }

        def forward() -> Any:
            with torch.autocast("cpu", dtype, enabled=precision != "fp32"):
                return torch.func.functional_call(task, state, (inputs,))

        yield forward, list(inputs.values()), list(state.values())


def _make_batch(task: Task) -> Batch:
    """Make the smallest batch that a task takes, of black images."""
    views, num = list_views(task.views), task.batch_multiple
    side = views[0].size
    images = torch.zeros(num, len(views), side, side, 3, dtype=torch.uint8)
    zeros = torch.zeros(num, dtype=torch.int64)
    labels = zeros if task.needs_labels else None
    return Batch(images, torch.arange(num), zeros, labels, task.make_outline_targets(num))


def _name_tensors(task: nn.Module) -> list[tuple[str, Tensor]]:
    return [*task.named_parameters(), *task.named_buffers()]


def _without_memory(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and kind on a CPU; only FakeTensorMode gives it none."""
    return torch.empty(
        tensor.shape, dtype=tensor.dtype, device="cpu", requires_grad=tensor.requires_grad
    )


def _count_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_momentums(config: OptimConfig) -> int:
    """Return how many tensors an optimiser keeps for each parameter."""
    if config.name in ("sgd", "lars", "apex_fused_sgd"):
        return int(config.momentum > 0)
    return 2


def read_capacity(world: World) -> Capacity:
    """Return the memory of one rank's device.

    On a GPU its whole memory; on a CPU this rank's share of the machine's or the cgroup's, the
    smaller one, without swap.
    """
    if world.device.type == "cuda":
        properties = torch.cuda.get_device_properties(world.device)
        return Capacity(properties.total_memory, properties.name)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_memory()
    what = "the machine" if physical <= limit else "the cgroup"
    num_ranks = local_world_size()
    who = f"each of {num_ranks} ranks of {what}" if num_ranks > 1 else what
    return Capacity(int(min(physical, limit)) // num_ranks, who)
