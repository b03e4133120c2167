"""What is left behind when a loss stays non-finite: the batch and the weights that it met."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..batch import Batch
from ..errors import RunFailed
from ..runs.directory import NONFINITE_NAME
from ..system.files import published
from ..tasks import Task
from ..world import World


def fail_on_nonfinite(
    folder: Path, step: int, batch: Batch, loss: Tensor, task: Task, world: World
) -> NoReturn:
    """Save the batch that tripped the guard and the weights that it met, then stop; on all ranks.

    Args:
        folder: the run directory.
        step: that tripped the guard.
        batch: of this rank at that step.
        loss: of this rank alone over that batch, a scalar.
        task: with the weights of before.
        world: the ranks.

    Raises:
        RunFailed: says where they stand, and what to change.
    """
    place = folder / NONFINITE_NAME / f"{step:09d}"
    place.mkdir(parents=True, exist_ok=True)
    capsule: dict[str, Any] = {
        "step": step,
        "rank": world.rank,
        "images": batch.images.cpu(),
        "sample_ids": batch.sample_ids,
        "epochs": batch.epochs,
    }
    if world.is_zero:
        capsule["task"] = dict(task.state_dict())
    with published(place / f"rank{world.rank}.pt") as file:
        torch.save(capsule, file)
    # Every rank's part is written before one of them leaves.
    own = [rank for rank, is_bad in enumerate(world.gather(not loss.isfinite())) if is_bad]
    whose = f" (by rank {', '.join(map(str, own))} alone)" if len(own) < world.size and own else ""
    raise RunFailed(
        f"the loss was not finite at step {step}{whose} and the one before; the weights are those "
        f"before them, batch and weights stand in {place}; lower --optim.lr or raise the warm-up "
        "in a new --output-dir, or see --spike.skip-steps"
    )
