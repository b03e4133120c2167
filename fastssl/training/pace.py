"""How long a run takes on a CPU: said before its first step, and again when that was slow."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from ..config import RunConfig
from ..counts import spell_number
from ..loaders import Loader
from ..sampling import ChunkLayout
from ..tasks import Task
from ..world import World
from .memory import forward_without_memory

_log = logging.getLogger(__name__)

LONG_RUN_S = 3600.0
"""A run on a CPU that takes longer is asked whether it is meant."""
SLOW_STEP_S = 10.0
"""After so long a first step the bar says nothing yet, and somebody wonders."""
_NEWS_FACTOR = 1.5
"""What was announced is not said again, unless the step took so many times as long."""
FEW_IMAGES = 1000
"""So few images take no hour: nothing is counted for them."""
_MEASURED_S = 0.3


def count_operations(task: Task) -> float:
    """Count the arithmetic of a training step for one image of the dataset, in a second.

    A step counts as three forward passes of trunk, head and loss: the backward pass as two. (Torch
    counts a backward pass too, but the weights' gradient of grouped convolutions as if they had no
    groups.) A trunk that computes its activations again (RevNet) has one forward pass more. Torch
    counts convolutions and matrix products; all else together is less than a hundredth.

    Args:
        task: on any device, "meta" too.

    Returns:
        10^9 floating-point operations, every multiplication and addition counted as one.
    """
    # Brings Triton along, at a fifth of a command's start: for the runs that count alone.
    from torch.utils.flop_counter import FlopCounterMode

    size = max(task.batch_multiple, 2)  # batch norm refuses one image
    with forward_without_memory(task, size, "fp32") as (forward, _, _):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward()
    whole = counter.get_total_flops()
    again = 0
    # Also where a layer for the representation's size stands on it.
    if any(getattr(part, "recomputes", False) for part in task.trunk.modules()):
        names = counter.get_flop_counts()
        again = sum(names[f"{type(task).__name__}.trunk"].values())
    return (3 * whole + again) / size / 1e9


def measure_speed(device: torch.device) -> float:
    """Measure roughly what a device computes, in a third of a second.

    Returns:
        10^9 operations a second of a convolution forward and backward in float32. That is what most
        of a run is; matrix products, the best of a CPU, are faster, small layers and waiting for
        data slower.
    """
    batch = 64 if device.type == "cuda" else 4
    # Zeros: nothing is drawn, whatever a run draws next.
    images = torch.zeros(batch, 64, 56, 56, device=device, requires_grad=True)
    weight = torch.zeros(64, 64, 3, 3, device=device, requires_grad=True)

    def run() -> None:
        functional.conv2d(images, weight, padding=1).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < _MEASURED_S:
        run()
        rounds += 1
    operations = rounds * 3 * 2 * batch * 56 * 56 * 64 * 64 * 9
    return operations / (time.perf_counter() - began) / 1e9


def describe_seconds(seconds: float) -> str:
    """Return a length of time as people say it."""
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 2 else f"{seconds:.1f} seconds"


class Pace:
    """Says how long a run will take where it takes long; a GPU's steps are not looked at."""

    def __init__(self, config: RunConfig, world: World, smaller_recipes: Sequence[str]) -> None:
        """Take the run.

        Args:
            config: of the run.
            world: the ranks; rank 0 speaks.
            smaller_recipes: names to offer instead.
        """
        self._config = config
        self._world = world
        self._images = config.data.global_batch_size // world.size
        self._is_shown = world.is_zero and world.device.type == "cpu"
        self._offer = ""
        if smaller_recipes:
            self._offer = f"; smaller: fastssl train {' or '.join(smaller_recipes)}"
        self._announced_s = 0.0
        # What is compiled, or comes first after a stop, is no step like the others.
        self._num_to_pass = int(config.compile)

    def announce(
        self, loader: Loader, chosen: tuple[str, str], task: Task, step: int, last_step: int
    ) -> None:
        """Say before the first step what comes, and how long it will take if that is long.

        Args:
            loader: of the run.
            chosen: name of its back end, and why.
            task: of the run.
            step: steps done.
            last_step: where this life ends.
        """
        if not self._world.is_zero:
            return
        config = self._config
        if config.max_steps is not None and config.max_steps > last_step:
            _log.warning(
                "max_steps (%d) is ignored: the schedule ends at step %d (schedule.epochs %g); to "
                "train on from there: --output-dir ANOTHER --continue-from %s --schedule.epochs E, "
                "those of both runs together",
                *(config.max_steps, last_step, config.schedule.epochs, config.output_dir),
            )
        if step >= last_step:
            _log.info(
                "step %d is done already, and %d were asked for: nothing to train", step, last_step
            )
            return
        data = config.data
        if data.order == "global" and data.layout != ChunkLayout():
            _log.warning(
                "data.chunk_size, num_lanes and window_chunks are ignored: data.order is global"
            )
        _log.info("loader: %s (%s)", *chosen)
        _log.info(
            "%s, batch %d on %s of %s, steps %d to %d",
            spell_number(loader.num_samples, "sample"),
            data.global_batch_size,
            spell_number(self._world.size, "rank"),
            self._world.device.type,
            step + 1,
            last_step,
        )
        self._estimate(task, last_step - step)

    def _estimate(self, task: Task, num_steps: int) -> None:
        if not self._is_shown or num_steps * self._images < FEW_IMAGES:
            return
        step_s = count_operations(task) * self._images / measure_speed(torch.device("cpu"))
        if step_s * num_steps > LONG_RUN_S:
            self._announced_s = step_s
            _log.warning(
                "on this CPU a step of %s takes about %s, %s about %s%s",
                spell_number(self._images, "image"),
                describe_seconds(step_s),
                spell_number(num_steps, "step"),
                describe_seconds(step_s * num_steps),
                self._offer,
            )

    @contextlib.contextmanager
    def timing(self, num_steps: int) -> Iterator[None]:
        """Time a step; say how long the rest will take if the first one was slow.

        Args:
            num_steps: to come after it.
        """
        began = time.perf_counter()
        yield
        self._num_to_pass -= 1
        step_s = time.perf_counter() - began
        is_slow = self._num_to_pass == -1 and step_s > SLOW_STEP_S
        is_news = step_s > _NEWS_FACTOR * self._announced_s
        if self._is_shown and num_steps and is_slow and is_news:
            _log.warning(
                "a step took %s: %s more take about %s%s",
                describe_seconds(step_s),
                f"{num_steps:,}",
                describe_seconds(step_s * num_steps),
                self._offer,
            )
