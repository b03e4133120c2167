"""Where the trials of a sweep run: as children of this process, several at once."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from ..counts import spell_number
from ..errors import InputError
from ..system.cpus import available_cpus
from ..system.files import open_own
from .launch import start_child


class Ended(NamedTuple):
    """A command that has ended."""

    name: str
    """As it was started."""
    code: int
    """Exit code; the signal's number below zero if it was one."""
    seconds: float
    """From its start to its end."""


class Executor(Protocol):
    """Runs commands, as many at once as there is room for."""

    cores: int
    """Cores that each command may use."""

    @property
    def has_room(self) -> bool:
        """Whether another command may start."""

    def start(self, name: str, command: Sequence[str], log: Path) -> None:
        """Start a command.

        Args:
            name: to know it by.
            command: the command line.
            log: the file that all it says is added to.
        """

    def wait(self) -> list[Ended]:
        """Wait until a command ends, or several do."""

    def stop(self) -> list[Ended]:
        """Ask every command to save and end, and wait for them."""


@dataclass
class _Running:
    name: str
    process: subprocess.Popen[str]
    place: int
    began: float = field(default_factory=time.monotonic)


class LocalExecutor:
    """Runs commands as children of this process, which end with it.

    The usable cores are divided evenly. Each takes a GPU of those that there are, in turn.
    """

    def __init__(self, at_once: int, kept_open: Collection[int] = ()) -> None:
        """Divide the machine.

        Args:
            at_once: commands that run at the same time; 0 takes one a GPU, without one 1.
            kept_open: descriptors that every child holds too.

        Raises:
            InputError: if there are more of them than usable cores.
        """
        self._gpus = list_gpus()
        at_once = at_once or max(1, len(self._gpus))
        if at_once > available_cpus():
            raise InputError(
                f"at_once ({at_once}) must not exceed the {spell_number(available_cpus(), 'core')} "
                "that may be used; take fewer, or 0"
            )
        self.cores = available_cpus() // at_once
        self._kept_open = tuple(kept_open)
        self._free = list(range(at_once))
        self._running: list[_Running] = []

    @property
    def has_room(self) -> bool:
        """Whether another command may start."""
        return bool(self._free)

    def start(self, name: str, command: Sequence[str], log: Path) -> None:
        """Start a command; see ``Executor``."""
        place = self._free[0]
        environment = {"OMP_NUM_THREADS": str(self.cores), **os.environ}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        with open_own(log, "ab") as file:
            process = start_child(command, file, subprocess.STDOUT, environment, self._kept_open)
        self._running.append(_Running(name, process, self._free.pop(0)))

    def wait(self) -> list[Ended]:
        """Wait until a command ends, or several do."""
        with ExitStack() as opened:
            ends = select.poll()
            for one in self._running:
                end = os.pidfd_open(one.process.pid)
                opened.callback(os.close, end)
                ends.register(end, select.POLLIN)
            ends.poll()
        return self._take_ended()

    def stop(self) -> list[Ended]:
        """Ask every command to save and end, and wait for them."""
        for one in self._running:
            one.process.terminate()
        for one in self._running:
            one.process.wait()
        return self._take_ended()

    def _take_ended(self) -> list[Ended]:
        ended = [one for one in self._running if one.process.poll() is not None]
        self._running = [one for one in self._running if one not in ended]
        self._free = sorted([*self._free, *(one.place for one in ended)])
        now = time.monotonic()
        return [Ended(one.name, one.process.returncode, now - one.began) for one in ended]


def list_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
