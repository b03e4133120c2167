"""Going back to before a loss that leapt, and on without the steps around it.

A step that is left out keeps its number and its samples, so every other step uses what it would
have used. Which are left out follows from the losses alone: a run that is killed anywhere on the
way leaps once more, and goes back once more.
"""

from __future__ import annotations

from typing import Any

from ..config import SpikeConfig
from ..counts import spell_number
from ..errors import InputError, RunFailed


class LossLeapt(Exception):
    """A step's loss leapt, or stayed non-finite, in a run that goes back then."""

    def __init__(self, step: int, loss: float | None) -> None:
        """Name it.

        Args:
            step: from 1.
            loss: over all ranks; None if it was not finite.
        """
        super().__init__(f"the loss leapt at step {step}")
        self.step = step
        self.loss = loss


class LeftOut:
    """The stretches of steps that a run leaves out."""

    def __init__(self, config: SpikeConfig) -> None:
        """Begin with none.

        Args:
            config: how many a leap costs.
        """
        self._config = config
        self._first: list[int] = []
        self._last: list[int] = []

    def __len__(self) -> int:
        """Return how many stretches there are."""
        return len(self._first)

    def add(self, step: int) -> tuple[int, int]:
        """Leave the steps around one out, but for those that are left out already.

        Args:
            step: whose loss leapt.

        Returns:
            The first and the last of them.

        Raises:
            RunFailed: if the loss has leapt too often.
        """
        config = self._config
        if len(self) >= config.max_rollbacks:
            raise RunFailed(
                f"the loss leapt at step {step}, after {spell_number(len(self), 'rollback')}, and "
                f"spike.max_rollbacks ({config.max_rollbacks}) allows no more; the last checkpoint "
                "is of before; lower --optim.lr in a new --output-dir, or raise "
                "--spike.max-rollbacks to go on"
            )
        first = step - config.reach
        last = first + config.skip_steps - 1
        # The next one may leap because of what the last one cost.
        first = max(first, 1, *(end + 1 for end in self._last if end < step))
        self._first.append(first)
        self._last.append(last)
        return first, last

    def find_end(self, step: int) -> int | None:
        """Return the last step of the stretch that a step lies in; None if it is taken."""
        pairs = zip(self._first, self._last, strict=True)
        return next((last for first, last in pairs if first <= step <= last), None)

    def find_stop(self, step: int, last_step: int) -> int:
        """Return how far one gets from a step that is taken, before one that is not.

        Args:
            step: taken.
            last_step: where the run ends.
        """
        return min([last_step, *(first - 1 for first in self._first if first > step)])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"first": list(self._first), "last": list(self._last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint kept, and keep what has been found since.

        Raises:
            InputError: if that are no stretches of steps.
        """
        first, last = state["first"], state["last"]
        are_steps = all(type(step) is int and step > 0 for step in [*first, *last])
        if len(first) != len(last) or not are_steps:
            raise InputError("left_out of the checkpoint holds no steps; restore it")
        self._first = [*first, *self._first[len(first) :]]
        self._last = [*last, *self._last[len(last) :]]
