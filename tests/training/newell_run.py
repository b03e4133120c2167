"""A run of a task of Newell and Deng 2020 without state of its own; maybe under torchrun.

``newell_run.py DATASET FOLDER TASK STEPS DIE_AT``: the last rank kills itself before it ends step
DIE_AT.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch

from fastssl.tasks import NewellRotationConfig, Task, VaeConfig
from fastssl.training import train
from tests.small_runs import make_config

TASKS = {
    "rotation": NewellRotationConfig(size=16),
    "vae": VaeConfig(size=16, output=16, kl_weight=1e-3, kl_batch_size=8),
}

if __name__ == "__main__":
    dataset, folder = map(Path, sys.argv[1:3])
    steps, die_at = map(int, sys.argv[4:])
    torch.set_num_threads(1)
    config = make_config(dataset, folder, nested={"checkpoint": {"every_steps": 2}})
    config = dataclasses.replace(
        config,
        task=TASKS[sys.argv[3]],
        optim=dataclasses.replace(config.optim, name="adam", beta1=0.8, lr=1e-3),
        trunk="resnet9",
        width=1,
        accumulation=2,
        max_steps=steps,
    )
    taken: list[bool] = []

    def end_or_die(self, is_kept):  # noqa: ARG001
        taken.append(bool(is_kept))
        last = int(os.environ.get("WORLD_SIZE", "1")) - 1
        if sum(taken) == die_at and int(os.environ.get("RANK", "0")) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    Task.end_step = end_or_die  # type: ignore[method-assign]
    train(config)
