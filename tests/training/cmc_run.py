"""A run of CMC; under torchrun each rank holds a part of the memory.

``cmc_run.py DATASET FOLDER STEPS DIE_AT [paced]``: the last rank kills itself before it ends step
DIE_AT; ``paced`` lets rank 0 count before the start what the run will take, however short it is.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch

from fastssl.tasks import CMC, CMCConfig
from fastssl.training import pace, train
from tests.small_runs import make_config

if __name__ == "__main__":
    dataset, folder = map(Path, sys.argv[1:3])
    steps, die_at = map(int, sys.argv[3:5])
    if "paced" in sys.argv:
        pace.FEW_IMAGES = 0
    torch.set_num_threads(1)
    config = make_config(dataset, folder, nested={"checkpoint": {"every_steps": 2}})
    task = CMCConfig(size=16, num_negatives=20)
    config = dataclasses.replace(
        config, task=task, trunk="resnet9_halves", width=1, accumulation=2, max_steps=steps
    )
    end_step, taken = CMC.end_step, []

    def end_or_die(self, is_kept):
        taken.append(bool(is_kept))
        if sum(taken) == die_at and self.bank._world.rank == self.bank._world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        end_step(self, is_kept)

    CMC.end_step = end_or_die
    train(config)
