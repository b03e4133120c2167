"""A run whose steps are taken twice, and whose machine errs once; under torchrun on one rank.

``replay_run.py DATASET FOLDER KIND RANK``: what is flipped of the second pass at step 4, and where.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

from fastssl.training import train
from fastssl.training.optim import list_statistics
from fastssl.training.replay import Replay
from tests.small_runs import make_config

KINDS = ("pixel", "weight", "loss", "gradient", "statistic")
STEP = 4


def flip_bit(tensor):
    """Flip the lowest bit of a tensor's first number, in place."""
    words = tensor.detach().view({1: torch.uint8, 4: torch.int32}[tensor.element_size()])
    words[(0,) * words.dim()] ^= 1


@contextlib.contextmanager
def erring(kind, rank):
    """Let a bit flip between the two passes of a step."""
    whole = Replay.take_twice

    def take_twice(self, step, batches, passes, forgetting):
        task, calls = self._task, []
        if step != STEP or self._world.rank != rank:
            return whole(self, step, batches, passes, forgetting)
        parameter = next(task.parameters())

        def spoil(gradient):
            if len(calls) == 2:
                gradient = gradient.clone()
                flip_bit(gradient)
            return gradient

        def take(batch):
            calls.append(batch)
            if len(calls) == 2 and kind == "pixel":
                flip_bit(batch.images)
            scalars = passes(batch)
            if len(calls) == 1 and kind == "weight":
                flip_bit(parameter)
            if len(calls) == 2 and kind == "loss":
                flip_bit(scalars["loss"])
            if len(calls) == 2 and kind == "statistic":
                flip_bit(next(iter(list_statistics(task).values())))
            return scalars

        hook = parameter.register_hook(spoil) if kind == "gradient" else None
        try:
            return whole(self, step, batches, take, forgetting)
        finally:
            if hook is not None:
                hook.remove()

    Replay.take_twice = take_twice
    try:
        yield
    finally:
        Replay.take_twice = whole


if __name__ == "__main__":
    torch.set_num_threads(1)
    changes = {"nested": {"checks": {"replay_every": 2}}, "accumulation": 2, "max_steps": 6}
    config = make_config(Path(sys.argv[1]), Path(sys.argv[2]), **changes)
    with erring(sys.argv[3], int(sys.argv[4])):
        train(config)
