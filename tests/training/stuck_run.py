"""A run whose every step is stuck where Python cannot hear: in C, as a long backward pass is.

``stuck_run.py DATASET FOLDER``: says "stuck" on stderr when it is.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
from pathlib import Path

from fastssl import tasks
from fastssl.commands.frame import run_command
from fastssl.tasks import Jigsaw
from fastssl.training import train
from tests.small_runs import make_config


class Stuck(Jigsaw):
    """Waits in its forward pass for a lock that it holds."""

    def forward(self, inputs):
        if inputs["patches"].device.type != "meta" and self.is_real(inputs):
            os.write(2, b"stuck\n")
            lock, libc = (ctypes.c_char * 64)(), ctypes.CDLL(None)
            libc.pthread_mutex_lock(lock)
            libc.pthread_mutex_lock(lock)  # no signal ends this
        return super().forward(inputs)

    @staticmethod
    def is_real(inputs):
        """Tell a step from the try without memory before it."""
        from torch._subclasses.fake_tensor import FakeTensor

        return not any(isinstance(value, FakeTensor) for value in inputs.values())


if __name__ == "__main__":
    tasks._TASKS["jigsaw"] = Stuck
    config = make_config(Path(sys.argv[1]), Path(sys.argv[2]))
    config = dataclasses.replace(config, device="cpu")
    run_command(lambda: train(config, owns_process=True))
