"""The passes of a step: forward and backward over its micro-batches.

Shape legend: B samples of this rank in a step, A micro-batches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..config import RunConfig
from ..randomness import step_seed
from ..tasks import Task
from ..world import World
from .memory import DTYPES
from .parallel import keeping_gradients
from .watchdog import Watchdog


class Passes:
    """Runs a task's passes; gradients are left behind, averaged over ranks."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        network: nn.Module,
        scaler: torch.amp.GradScaler,
        world: World,
        watchdog: Watchdog,
    ) -> None:
        """Take note of what they run on.

        Args:
            config: of the run.
            task: on the training device.
            network: of ``join_networks``, around the task.
            scaler: of the loss; may be switched off.
            world: the ranks.
            watchdog: is told of each pass.
        """
        self._config = config
        self._task = task
        self._network = network
        self._scaler = scaler
        self._world = world
        self._watchdog = watchdog

    def run(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Run a step's passes, a micro-batch after the other.

        Args:
            batch: of this rank.
            step: from 1.

        Returns:
            Sums of the micro-batches' scalars, of this rank, on the device.
        """
        torch.manual_seed(step_seed(self._config.seed, step, self._world.rank))
        totals: dict[str, Tensor] = {}
        count = self._config.accumulation
        size = len(batch) // count
        for number in range(count):
            part = batch.rows(number * size, (number + 1) * size)
            with keeping_gradients(self._network, number < count - 1):
                for name, value in self._run_one(part, step).items():
                    totals[name] = totals[name] + value if name in totals else value
        return totals

    def run_first(self, batch: Batch, step: int) -> None:
        """Run the passes of a step's first micro-batch alone."""
        self._run_one(batch.rows(0, len(batch) // self._config.accumulation), step)

    def _run_one(self, part: Batch, step: int) -> dict[str, Tensor]:
        config, device = self._config, self._world.device
        dtype = DTYPES[config.precision]
        self._watchdog.enter("forward", step)
        inputs = self._task.prepare(self._task.keep_known(part), config.seed, dtype)
        with torch.autocast(device.type, dtype, enabled=config.precision != "fp32"):
            scalars = self._network(inputs)
        self._watchdog.enter("backward", step)
        self._scaler.scale(scalars["loss"] / config.accumulation).backward()
        return {name: value.detach() for name, value in scalars.items()}
