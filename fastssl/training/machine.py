"""What bit-equal resume rests on beside the run itself."""

from __future__ import annotations

import logging
import platform
from typing import Any

import torch

from ..world import World

_log = logging.getLogger(__name__)


def describe_rank(world: World) -> dict[str, Any]:
    """Return world size, device, torch build, thread count and processor of this rank."""
    is_cuda = world.device.type == "cuda"
    return {
        "world_size": world.size,
        "device": torch.cuda.get_device_name(world.device) if is_cuda else world.device.type,
        "torch": str(torch.__version__),
        "num_threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }


def warn_of_other_machine(saved: dict[str, Any], world: World) -> None:
    """Say what differs from the machine that saved a checkpoint, on rank 0.

    Args:
        saved: from ``describe_rank``.
        world: the ranks now.
    """
    for name, now in describe_rank(world).items():
        if saved.get(name) != now and world.is_zero:
            _log.warning(
                "%s was %s when the checkpoint was saved and is %s now: the same samples and "
                "settings, but sums may differ in their last bits",
                name,
                saved.get(name),
                now,
            )


def set_determinism(is_deterministic: bool) -> None:
    """Choose kernels that give the same sums at every run, where there is a choice."""
    torch.backends.cudnn.benchmark = not is_deterministic
    torch.use_deterministic_algorithms(is_deterministic, warn_only=True)
    # It would overwrite every fresh tensor with NaN: a safety net that costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
