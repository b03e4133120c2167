"""A run of which a rank hangs at a step; under torchrun or without.

``hung_run.py DATASET FOLDER KIND RANK STEP LIMIT [LOADER]``: KIND says where the rank hangs:
forward, backward, optimiser, checkpoint, in a deadlock; stopped, by SIGSTOP. None hangs nowhere,
endless neither and comes to no end, slow takes longer than the limit in each of three steps.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from fastssl import tasks
from fastssl.commands.frame import run_command
from fastssl.tasks import Jigsaw
from fastssl.training import train
from fastssl.training.checkpoint import CheckpointStore
from tests.small_runs import make_config

KIND, RANK, STEP, LIMIT = "none", 0, 0, 0.0


def deadlock():
    """Wait for a lock that this thread holds."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


class Hanging(Jigsaw):
    """Hangs in one of its parts."""

    steps_done = 0

    def is_there(self, kind):
        """Tell whether it is the place and the time to hang."""
        rank = int(os.environ.get("RANK", "0"))
        return (KIND, RANK, STEP) == (kind, rank, self.steps_done + 1)

    def prepare(self, batch, seed, dtype):
        if self.is_there("forward"):
            deadlock()
        if self.is_there("stopped"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if KIND == "slow":
            time.sleep(1.3 * LIMIT)
        return super().prepare(batch, seed, dtype)

    def forward(self, inputs):
        scalars = super().forward(inputs)
        if self.is_there("backward"):
            scalars["loss"].register_hook(lambda _gradient: deadlock())
        return scalars

    def end_step(self, is_kept):
        if self.is_there("optimiser"):
            deadlock()
        super().end_step(is_kept)
        Hanging.steps_done += bool(is_kept)


def save(self, step, *rest):
    """Save a checkpoint, or hang."""
    if KIND == "checkpoint" and step >= STEP:
        deadlock()
    whole(self, step, *rest)


if __name__ == "__main__":
    dataset, folder = map(Path, sys.argv[1:3])
    KIND, RANK, STEP, LIMIT = sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
    torch.set_num_threads(1)
    tasks._TASKS["jigsaw"] = Hanging
    whole, CheckpointStore.save = CheckpointStore.save, save
    loader = {"loader": sys.argv[7]} if sys.argv[7:] else {}
    nested = {"data": loader, "watchdog": {"timeout_s": LIMIT}}
    config = make_config(dataset, folder, nested=nested, max_steps=3 if KIND == "slow" else 8)
    if KIND == "endless":
        schedule = dataclasses.replace(config.schedule, epochs=100_000.0)
        config = dataclasses.replace(config, schedule=schedule, max_steps=None)
    config = dataclasses.replace(config, device="cpu")
    run_command(lambda: train(config, owns_process=True))
