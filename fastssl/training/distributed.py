"""The ranks of a run: how they meet, agree, and die together.

Reads torchrun's environment, here alone. One process without torchrun is a world of one, and no
process group is made for it.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..errors import InputError, leave_to_another_rank

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_TIMEOUT = datetime.timedelta(minutes=10)


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

    def average(self, tensor: torch.Tensor) -> torch.Tensor:
        """Average a tensor on the training device over all ranks, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
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


def _attempt(function: Callable[[], T]) -> tuple[str, Any, int]:
    rank = int(os.environ.get("RANK", "0"))
    try:
        return "value", function(), rank
    except Exception as error:
        return "error", error, rank


def join_world(device: str = "auto") -> World:
    """Meet the other ranks that torchrun started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The world as this rank sees it.

    Raises:
        InputError: if cuda is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device ('cuda') needs a GPU that torch can use; set --device cpu")
    is_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local_rank) if is_cuda else torch.device("cpu")
    if is_cuda:
        torch.cuda.set_device(where)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _die_with_launcher()
    control = None
    if size > 1:
        dist.init_process_group("nccl" if is_cuda else "gloo", timeout=_TIMEOUT)
        # Apart from the gradients' group, so that neither waits for the other's turn.
        control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return World(rank, size, where, control)


def _die_with_launcher() -> None:
    """Have the kernel end this rank when torchrun is gone, be it by kill -9."""
    launcher = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)
