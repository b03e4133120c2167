"""Where the trials of a sweep run: on Ray, on one machine or a cluster that shares the folder."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ..errors import EXIT_STOPPED, InputError, RunFailed
from ..fields import Checked, Count, CountOrZero, Range
from ..system.files import locked, open_own
from ..system.ray_jobs import join_ray, uncovered
from .executors import Ended
from .launch import start_child

_ASK_EVERY_S = 0.2


class TrialLost(RunFailed):
    """A trial was ended from outside: by a signal, or with its machine."""


@dataclass(frozen=True)
class RayConfig(Checked, prefix="ray."):
    """Ray: what a trial takes, and how often it is tried."""

    address: str = ""
    """Of the cluster, auto for the one that this machine belongs to; nothing starts Ray here."""
    cores: Count = 1
    """Cores that a trial takes."""
    gpus: Annotated[float, Range(0, 1024)] = 0.0
    """GPUs that a trial takes; 0.5 lets two share one."""
    retries: CountOrZero = 3
    """How often a trial starts again whose process or machine was lost; it goes on where it was."""


class RayExecutor:
    """Runs commands as tasks of Ray, which decides where and when."""

    has_room = True
    """Ray queues what does not fit, so that a cluster may grow by it."""

    def __init__(self, config: RayConfig) -> None:
        """Join the cluster, or start Ray on this machine.

        Args:
            config: what a command takes.

        Raises:
            ImportError: with the line that installs Ray.
            InputError: if the cluster cannot be reached, or no machine of it is large enough.
        """
        self.cores = config.cores
        self._ray = start_ray(config)
        self._task = self._ray.remote(_run)
        self._options = {
            "num_cpus": config.cores,
            "num_gpus": config.gpus,
            "max_retries": config.retries,
            "retry_exceptions": [TrialLost],
        }
        self._running: dict[Any, tuple[str, float]] = {}

    def start(self, name: str, command: Sequence[str], log: Path) -> None:
        """Hand a command to Ray; see ``Executor``."""
        task = self._task.options(name=name, **self._options)
        told = (list(command), str(log.resolve()), str(Path.cwd()), self.cores)
        with uncovered():
            self._running[task.remote(*told)] = (name, time.monotonic())

    def wait(self) -> list[Ended]:
        """Wait until a command ends, or several do."""
        while True:
            with uncovered():
                ended, _ = self._ray.wait(list(self._running), timeout=_ASK_EVERY_S)
            if ended:
                return [self._take(task) for task in ended]

    def stop(self) -> list[Ended]:
        """Ask every command to save and end, wait for them, and leave Ray."""
        for task in self._running:
            self._ray.cancel(task)
        ended = [self._take(task) for task in list(self._running)]
        self._ray.shutdown()
        return ended

    def _take(self, task: Any) -> Ended:
        name, began = self._running.pop(task)
        try:
            code, seconds = self._ray.get(task)
        except (self._ray.exceptions.TaskCancelledError, self._ray.exceptions.RayError, TrialLost):
            # Lost more often than it is tried again, or cancelled; its log tells the one.
            code, seconds = EXIT_STOPPED, time.monotonic() - began
        return Ended(name, code, seconds)


def start_ray(config: RayConfig) -> Any:
    """Join a cluster, or start Ray on this machine; return its module.

    Args:
        config: what a trial takes.

    Raises:
        ImportError: with the line that installs Ray.
        InputError: if the cluster cannot be reached, or no machine of it is large enough.
    """
    ray = join_ray(config.address, "a sweep on Ray", "ray.address")
    wanted = {"CPU": float(config.cores), "GPU": config.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(n, 0) >= w for n, w in wanted.items()) for node in nodes):
        ray.shutdown()
        most = {n: max((node.get(n, 0) for node in nodes), default=0) for n in wanted}
        raise InputError(
            f"ray.cores ({config.cores}) and ray.gpus ({config.gpus:g}) are more than any machine "
            f"has ({most['CPU']:g} cores, {most['GPU']:g} GPUs); take fewer"
        )
    return ray


def _run(command: list[str], log: str, folder: str, cores: int) -> tuple[int, float]:
    """Run a command in one of Ray's workers; return exit code and seconds."""
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    # What an earlier try left may still save: its child holds the lock until it has ended.
    lock = Path(log).with_suffix(".lock")
    with locked(lock, "busy", math.inf) as held, open_own(Path(log), "ab") as file:
        child = start_child(command, file, subprocess.STDOUT, environment, [held], Path(folder))
        try:
            while child.poll() is None:
                # Ray cancels by an exception, which the interpreter raises between instructions.
                time.sleep(_ASK_EVERY_S)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    code = child.returncode
    if code < 0 or code == EXIT_STOPPED:
        raise TrialLost(f"exit code {code}")
    return code, time.monotonic() - began
