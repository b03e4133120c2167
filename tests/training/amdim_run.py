"""A run of AMDIM, which tells an image from those of all ranks.

``amdim_run.py DATASET FOLDER STEPS DIE_AT``: the last rank kills itself before it ends step DIE_AT.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch

from fastssl.tasks import Amdim, AmdimConfig
from fastssl.training import train
from tests.small_runs import make_config

if __name__ == "__main__":
    dataset, folder = map(Path, sys.argv[1:3])
    steps, die_at = map(int, sys.argv[3:])
    torch.set_num_threads(1)
    config = make_config(dataset, folder, nested={"checkpoint": {"every_steps": 2}})
    config = dataclasses.replace(config, task=AmdimConfig(size=16), width=1, max_steps=steps)
    num_kept, rank = 0, int(os.environ.get("RANK", "0"))

    def end_or_die(self, is_kept):  # noqa: ARG001
        global num_kept
        num_kept += int(is_kept)
        if num_kept == die_at and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    Amdim.end_step = end_or_die
    train(config)
