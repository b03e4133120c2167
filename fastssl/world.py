"""The ranks of a run: how they meet, agree, and die together.

Reads torchrun's environment, here alone. One process without torchrun is a world of one, and no
process group is made for it.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .counts import spell_number
from .errors import InputError, leave_to_another_rank
from .system.cpus import local_world_size
from .system.lifelines import die_with_launcher

T = TypeVar("T")

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class World:
    """This process among its ranks."""

    rank: int
    """0 .. size-1."""
    size: int
    """Number of ranks."""
    device: torch.device
    """Training device of this rank."""
    control: Any
    """A gloo group for what is agreed on the CPU; None in a world of one."""

    @property
    def is_zero(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def on_zero(self, function: Callable[[], T]) -> T:
        """Run a function on rank 0 and give every rank its result, or its error."""
        outcome: list[Any] = [None]
        if self.is_zero:
            outcome = [_attempt(function)]
        if self.size > 1:
            dist.broadcast_object_list(outcome, src=0, group=self.control)
        return self._unwrap([outcome[0]])

    def together(self, function: Callable[[], T]) -> T:
        """Run a function on every rank; if it fails on one, it fails on all with that error."""
        mine = _attempt(function)
        if self.size == 1:
            return self._unwrap([mine])
        if local_world_size() < self.size and type(mine[1]) is InputError:
            # What is wrong on one of several machines may be right on the others.
            where = f"rank {self.rank} on {platform.node()}"
            mine = (mine[0], InputError(f"{where}: {mine[1]}"), mine[2])
        errors: list[Any] = [None] * self.size
        dist.all_gather_object(errors, mine if mine[0] == "error" else None, group=self.control)
        return self._unwrap([*(error for error in errors if error is not None), mine])

    def sum(self, *numbers: int) -> Any:
        """Begin to sum integers over all ranks; the returned function waits for the sums."""
        values = torch.tensor(numbers, dtype=torch.int64)
        if self.size == 1:
            return values.tolist
        work = dist.all_reduce(values, group=self.control, async_op=True)

        def wait() -> list[int]:
            work.wait()
            return values.tolist()

        return wait

    def max(self, *numbers: float) -> list[float]:
        """Return the greatest of each number over all ranks."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.control)
        return values.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks, on every rank."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value, group=self.control)
        return values

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Put every rank's rows behind one another, in the order of ranks, with gradient.

        The gradient of a rank's rows is the sum of what all ranks' losses say of them.

        Args:
            rows: (B, ...) on the training device, of one shape and type on all ranks.

        Returns:
            (size x B, ...).
        """
        return rows if self.size == 1 else _GatherRows.apply(rows, self)

    def average(self, tensor: torch.Tensor) -> torch.Tensor:
        """Average a tensor on the training device over all ranks, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def stack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return every rank's tensor, equal in shape, on the training device: (W, ...)."""
        if self.size == 1:
            return tensor[None]
        stacked = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(stacked, tensor.contiguous())
        return stacked.unflatten(0, (self.size, -1))

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor on the training device over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def greatest(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take the greatest of each number over all ranks, in place, on the training device."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def leave(self) -> None:
        """Take the process group down."""
        if self.size > 1:
            dist.destroy_process_group()

    def _unwrap(self, outcomes: list[tuple[str, Any, int]]) -> Any:
        for kind, value, rank in outcomes:
            if kind == "error":
                # One rank says it; the others end with the same code in silence.
                if rank != self.rank:
                    leave_to_another_rank(value)
                raise value
        return outcomes[-1][1]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, world: World) -> torch.Tensor:
        ctx.world = world
        return world.stack(rows).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        world = ctx.world
        total = world.total(gradients[0].clone(memory_format=torch.contiguous_format))
        return total.chunk(world.size)[world.rank], None


def _attempt(function: Callable[[], T]) -> tuple[str, Any, int]:
    rank = int(os.environ.get("RANK", "0"))
    try:
        return "value", function(), rank
    except Exception as error:
        return "error", error, rank


def join_world(device: str = "auto", timeout_s: float = _TIMEOUT_S) -> World:
    """Meet the other ranks that torchrun started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; whether it can be had is for ``check_device``.
        timeout_s: seconds after which a collective that not all ranks have come to is an error.

    Returns:
        The world as this rank sees it.
    """
    die_with_launcher()
    # Read when CUDA starts: without it cuBLAS may sum in another order from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    is_cuda = device != "cpu" and torch.cuda.device_count() >= local_world_size()
    where = torch.device("cpu")
    if is_cuda:
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    control = None
    if size > 1:
        timeout = datetime.timedelta(seconds=max(timeout_s, _TIMEOUT_S))
        dist.init_process_group("nccl" if is_cuda else "gloo", timeout=timeout)
        # Apart from the gradients' group, so that neither waits for the other's turn.
        control = dist.new_group(backend="gloo", timeout=timeout)
    return World(rank, size, where, control)


def check_device(device: str, world: World) -> None:
    """Refuse a device that this machine cannot give.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        world: from ``join_world``.

    Raises:
        InputError: if cuda is asked for and absent, or has fewer GPUs than ranks.
    """
    num_gpus, num_ranks = torch.cuda.device_count(), local_world_size()
    if world.device.type == "cuda" or device == "cpu":
        return
    if num_gpus:
        raise InputError(
            f"{num_ranks} ranks on this machine have "
            f"{spell_number(num_gpus, 'GPU')}; start torchrun with --nproc-per-node {num_gpus} or "
            "fewer, or set --device cpu"
        )
    if device == "cuda":
        raise InputError("device ('cuda') needs a GPU that torch can use; set --device cpu")
