"""The ranks' networks as one: gradients are averaged as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from ..config import RunConfig
from ..tasks import Task
from ..world import World
from .optim import list_statistics

_COMPRESSION = {"bf16": default_hooks.bf16_compress_hook, "fp16": default_hooks.fp16_compress_hook}


def join_networks(task: Task, config: RunConfig[Any], world: World) -> nn.Module:
    """Return what runs a task's passes on all ranks together; a collective call.

    Args:
        task: on its device.
        config: the run.
        world: the ranks; of one the task itself is returned.
    """
    if world.size == 1:
        return task
    # Every forward pass hands rank 0's buffers on: of all there are, running statistics.
    others = {name for name, _ in task.named_buffers()} - {*list_statistics(task)}
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(task, others)
    network = DistributedDataParallel(
        task,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )
    if config.gradient_compression != "none":
        network.register_comm_hook(None, _COMPRESSION[config.gradient_compression])
    return network


class Buckets:
    """Lets DDP settle its buckets before the first step counts.

    DDP orders its buckets anew after the first backward pass it sees, and the order in which ranks
    are summed depends on the bucket. Without this a resumed run would sum its first step in another
    order than the undisturbed one.
    """

    def __init__(self, network: nn.Module) -> None:
        """Look at a network.

        Args:
            network: from ``join_networks``.
        """
        self._are_settled = not isinstance(network, DistributedDataParallel)

    def settle(
        self,
        take_pass: Callable[[], object],
        forgetting: contextlib.AbstractContextManager[None],
    ) -> None:
        """Take a pass before the first step.

        Args:
            take_pass: forward and backward.
            forgetting: forgets what the pass leaves behind.
        """
        if not self._are_settled:
            self._are_settled = True
            with forgetting:
                take_pass()


def keeping_gradients(
    network: nn.Module, is_partial: bool
) -> contextlib.AbstractContextManager[None]:
    """Keep the gradients of a pass on this rank where others of its step follow."""
    if is_partial and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()
