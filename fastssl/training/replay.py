"""A step's passes taken twice: whether this machine computes the same from the same.

Memory and processors err without a word, and a run of weeks learns from what they say. Now and then
the batch of a step is decoded again, and the passes over it run again on the same weights, before
the update. Whatever differs by a bit ends the run, by its rank and its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import RunFailed
from ..tasks import Task
from ..world import World
from .optim import list_statistics

_SHOWN = 4
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Passes = Callable[[Batch], dict[str, Tensor]]
"""Runs a step's passes over a batch; returns its scalars, and leaves gradients behind."""


@contextlib.contextmanager
def leaving_nothing(task: Task, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Forget all that passes in this block leave behind: gradients, running statistics, notes.

    Args:
        task: that the passes are of.
        optimizer: of its parameters.
    """
    statistics = list_statistics(task).values()
    kept = [buffer.clone() for buffer in statistics]
    yield
    optimizer.zero_grad(set_to_none=True)
    for buffer, value in zip(statistics, kept, strict=True):
        buffer.copy_(value)
    task.end_step(torch.zeros((), dtype=torch.bool, device=next(task.parameters()).device))


@dataclass(frozen=True)
class _Seen:
    """What passes began with and came to."""

    weights: dict[str, Tensor]
    """Sums of bits, before."""
    scalars: dict[str, Tensor]
    own_gradients: dict[str, Tensor]
    """Sums of bits, of this rank's before ranks are joined."""
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]

    def list_differences(self, other: _Seen) -> list[str]:
        """Return what differs by a bit, in the order in which one thing comes of another."""
        kinds = (
            ("weight", self.weights, other.weights),
            ("", self.scalars, other.scalars),
            ("this rank's gradient of", self.own_gradients, other.own_gradients),
            ("the ranks' gradient of", self.gradients, other.gradients),
            ("running statistics", self.statistics, other.statistics),
        )
        return [
            f"{kind} {name}".strip()
            for kind, first, second in kinds
            for name in dict.fromkeys([*first, *second])
            if name not in first or name not in second or not is_same(first[name], second[name])
        ]


class Replay:
    """Takes the passes of every so-manieth step twice."""

    def __init__(self, every_steps: int, task: Task, world: World) -> None:
        """Take note of what is looked at.

        Args:
            every_steps: steps between replays; 0 for none.
            task: whose passes they are, on the training device.
            world: the ranks.
        """
        self._every_steps = every_steps
        self._task = task
        self._world = world

    def is_due(self, step: int) -> bool:
        """Tell whether a step's passes are taken twice."""
        return self._every_steps > 0 and step % self._every_steps == 0

    def take_twice(
        self,
        step: int,
        batches: tuple[Batch, Batch],
        passes: Passes,
        forgetting: contextlib.AbstractContextManager[None],
    ) -> dict[str, Tensor]:
        """Take a step's passes over two decodes of its batch, and compare all that they come to.

        Args:
            step: its number.
            batches: of this rank.
            passes: deterministic.
            forgetting: ``leaving_nothing``, around the first of the two.

        Returns:
            What the passes over the second return; their gradients are there.

        Raises:
            RunFailed: on all ranks, if anything differs by a bit on one.
        """
        with forgetting:
            first = self._watch(passes, batches[0])
        second = self._watch(passes, batches[1])
        found = self._world.gather(
            [*list_differing_fields(*batches), *first.list_differences(second)]
        )
        if any(found):
            raise RunFailed(
                f"step {step} came out differently when it was taken again: {_describe(found)}; "
                "nothing of it is kept. Memory or processor of that machine err: look at it, and "
                "start the same command again, on another one if need be, to go on from the last "
                "checkpoint"
            )
        return second.scalars

    def _watch(self, passes: Passes, batch: Batch) -> _Seen:
        task = self._task
        weights = {name: sum_bits(value) for name, value in task.named_parameters()}
        weights |= {name: sum_bits(value) for name, value in task.named_buffers()}
        with _summing_gradients(task) as own:
            scalars = passes(batch)
        gradients = {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}
        statistics = {name: value.clone() for name, value in list_statistics(task).items()}
        return _Seen(weights, scalars, own, gradients, statistics)


@contextlib.contextmanager
def _summing_gradients(task: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Sum the bits of this rank's gradients as backward passes make them."""
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            bits = sum_bits(gradient)
            sums[name] = sums[name] + bits if name in sums else bits

        return add

    parameters = [(name, p) for name, p in task.named_parameters() if p.requires_grad]
    handles = [parameter.register_hook(watch(name)) for name, parameter in parameters]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def sum_bits(tensor: Tensor) -> Tensor:
    """Sum the words that a tensor's numbers are stored as: any one bit changes it.

    Args:
        tensor: of any type of 1, 2, 4 or 8 bytes.

    Returns:
        int64 scalar, exact, on its device.
    """
    return _as_words(tensor).sum(dtype=torch.int64)


def is_same(first: Tensor, second: Tensor) -> bool:
    """Tell whether tensors have the same bits, whatever numbers these are."""
    return first.shape == second.shape and torch.equal(_as_words(first), _as_words(second))


def _as_words(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_WORDS[tensor.element_size()])


def list_differing_fields(first: Batch, second: Batch) -> list[str]:
    """Return what two decodes of a batch differ in.

    Args:
        first: of this rank.
        second: of the same step.
    """
    found = []
    pixels = (first.images != second.images).flatten(1).any(1).cpu()
    if ids := first.sample_ids[pixels].tolist():
        found.append(f"pixels of sample {', '.join(map(str, ids[:_SHOWN]))}")
    others: dict[str, tuple[Tensor | None, Tensor | None]] = {
        "sample ids": (first.sample_ids, second.sample_ids),
        "epochs": (first.epochs, second.epochs),
        "labels": (first.labels, second.labels),
        "boxes": (first.boxes, second.boxes),
    }
    for name in first.targets:
        others[f"target {name}"] = first.targets[name], second.targets[name]
    for name, (one, other) in others.items():
        if one is not None and other is not None and not is_same(one, other):
            found.append(name)
    return found


def _describe(found: list[list[str]]) -> str:
    """Say which ranks differ in what: those that do by themselves, if any do."""
    own = [[name for name in names if not name.startswith("the ranks'")] for names in found]
    return "; ".join(
        f"rank {rank}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for rank, names in enumerate(own if any(own) else found)
        if names
    )
