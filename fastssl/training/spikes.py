"""Loss spikes: steps whose loss leaps far above that of the steps before."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import SpikeConfig
from ..errors import InputError

MAX_CAPSULES = 4
"""Of one run: each keeps a checkpoint on the disk."""
_LEAST_DEVIATION = 0.02
"""Of log loss: where a loss hardly moves, its noise is no measure of a leap."""


@dataclass(frozen=True)
class Spike:
    """A step whose loss leapt."""

    step: int
    loss: float
    deviations: float
    """Standard deviations of log loss above the mean of the steps before."""


class SpikeDetector:
    """Looks at every step's loss, when the host looks at the device anyway.

    What it finds is a function of the losses alone, whenever it looks.
    """

    def __init__(self, config: SpikeConfig) -> None:
        """Begin with no losses.

        Args:
            config: what a spike is.
        """
        self._config = config
        self._window: deque[float] = deque(maxlen=config.window)
        self._pending: list[tuple[int, Tensor]] = []
        self.count = 0
        """Spikes so far."""

    def observe(self, step: int, loss: Tensor) -> None:
        """Take note of a loss without waiting for it.

        Args:
            step: from 1.
            loss: over all ranks, a scalar on the device.
        """
        if self._config.threshold:
            self._pending.append((step, loss))

    def look(self) -> list[Spike]:
        """Wait for the losses noted since the last look; return the spikes among them."""
        if not self._pending:
            return []
        steps, losses = zip(*self._pending, strict=True)
        self._pending = []
        pairs = zip(steps, torch.stack(losses).tolist(), strict=True)
        found = [spike for step, loss in pairs if (spike := self._judge(step, loss))]
        self.count += len(found)
        return found

    def _judge(self, step: int, loss: float) -> Spike | None:
        if not 0 < loss < math.inf:  # what is not finite has a guard of its own
            return None
        value, window = math.log(loss), self._window
        deviations = 0.0
        if len(window) >= self._config.window / 2:
            spread = max(statistics.pstdev(window), _LEAST_DEVIATION)
            deviations = (value - statistics.fmean(window)) / spread
        window.append(value)  # a spike too: what stays high is one
        return Spike(step, loss, deviations) if deviations > self._config.threshold else None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, behind a look."""
        return {"window": list(self._window), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what a checkpoint kept.

        Raises:
            InputError: if that are no losses.
        """
        if not all(isinstance(value, float) for value in state["window"]):
            raise InputError("spikes.window of the checkpoint holds no losses; restore it")
        self._window = deque(state["window"], maxlen=self._config.window)
        self._pending = []
        self.count = state["count"]
