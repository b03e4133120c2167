"""Jobs for the machines of a Ray cluster, or for Ray on this one: what ``run_jobs`` does, there.

Ray chooses where a job runs and tries it again where its process or machine is lost. Ray's own
processes have threads, and fork nothing; so a job runs in a worker process of ``run_jobs`` below
the one that Ray gives it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

from ..errors import InputError, RunFailed
from .cpus import available_cpus
from .signals import STOP_SIGNALS
from .workers import Job, Report, Result, WorkerDied, run_jobs

INSTALL_LINE = 'pip install "fastssl[scale]"'
LOCAL = "local"
"""In the place of an address: Ray starts on this machine, and ends with the command."""
RETRIES = 3
"""How often a job is tried again that is lost with its process or machine."""

_ASK_EVERY_S = 0.2
_KNOCK_S = 10.0
_STORE_BYTES = 80 << 20  # the least that Ray takes: jobs and results are small
_STOP_S = 60.0
# What another machine may have room for, or can write, where this one has or can not.
_ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


def join_ray(address: str, purpose: str, option: str, **own: Any) -> Any:
    """Join a cluster, or start Ray on this machine; return its module.

    Args:
        address: of the cluster, ``auto`` for the one that this machine belongs to; empty starts
            Ray here.
        purpose: what needs it, at the head of the message that it is not installed.
        option: name of the address on the command line.
        own: what Ray is started with here, beside what follows from the machine.

    Raises:
        ImportError: with the line that installs Ray.
        InputError: if the cluster cannot be reached.
    """
    # It would report usage to its makers, and says much of itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"{purpose} needs it: {INSTALL_LINE}") from error
    local = {"num_cpus": available_cpus(), "include_dashboard": False, **own}
    place: dict[str, Any] = {"address": address} if address else local
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        _knock(address)
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **place)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{option} ({address}) cannot be reached ({' '.join(str(error).split())}); "
            "give that of a cluster whose Ray runs, or leave it out"
        ) from None
    finally:
        # Ray answers signals itself, by ending the process: whoever answered them before does.
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ray


def _knock(address: str) -> None:
    """See that somebody listens at an address: Ray itself waits for minutes, in silence."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"nobody answers: {error}") from None


@contextlib.contextmanager
def uncovered() -> Iterator[None]:
    """Let what a signal's handler raises through, which Ray's own code covers with SystemError."""
    try:
        yield
    except SystemError as error:
        raise error.__cause__ or error from None


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    """Ray's name of it."""
    name: str
    """Host name and address, for a person."""


@dataclass
class _Unit(Generic[Job]):
    """A job under way."""

    job: Job
    place: int
    """Among the jobs."""
    died: int = 0
    """How often its worker process was killed."""
    avoided: set[str] = field(default_factory=set)
    """Machines that could not write what it makes."""


@dataclass(frozen=True)
class _Told(Generic[Result]):
    """What a machine says of a job."""

    node: Node
    count: int = 0
    """Samples that it reported."""
    result: Result | None = None
    error: BaseException | None = None


class RayJobs:
    """The machines of a cluster, or this one, for jobs; leave it by ``close``."""

    def __init__(self, address: str, num_workers: int | None, purpose: str) -> None:
        """Join the cluster, or start Ray here.

        Args:
            address: of the cluster, ``auto``, or ``local``.
            num_workers: jobs that run at once; None takes the CPUs of all machines together.
            purpose: what needs it, for the message that it is not installed.

        Raises:
            ImportError: with the line that installs Ray.
            InputError: if the cluster cannot be reached.
        """
        self._num_workers = num_workers
        own = {"num_cpus": num_workers or available_cpus(), "object_store_memory": _STORE_BYTES}
        given = "" if address == LOCAL else address
        self._ray = join_ray(given, purpose, "--ray", **own)
        self._running: dict[Any, _Unit[Any]] = {}

    def close(self) -> None:
        """End what runs, wait for it, and leave Ray; what was started here ends."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait([*self._running], num_returns=len(self._running), timeout=_STOP_S)
        self._running = {}
        self._ray.shutdown()

    def nodes(self) -> list[Node]:
        """Return the machines that live and have CPUs."""
        return [
            Node(one["NodeID"], f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})")
            for one in self._ray.nodes()
            if one["Alive"] and one["Resources"].get("CPU", 0) >= 1
        ]

    def ask_each(self, function: Callable[..., Result], *arguments: Any) -> dict[Node, Result]:
        """Call a function once on every machine.

        Raises:
            InputError: names a machine that cannot even find the function.
        """
        asked = {
            node: self._ray.remote(function)
            .options(num_cpus=1, scheduling_strategy=self._only(node.id))
            .remote(*arguments)
            for node in self.nodes()
        }
        answers = {}
        for node, task in asked.items():
            try:
                with uncovered():
                    answers[node] = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                lines = str(cause).strip().splitlines() or [type(cause).__name__]
                raise InputError(
                    f"{node.name} cannot take part ({type(cause).__name__}: {lines[-1]}); install "
                    "there the same fastssl as here, where the cluster's Python finds it"
                ) from None
        return answers

    def run(
        self,
        function: Callable[[Job, Report], Result],
        jobs: Iterable[Job],
        on_progress: Report,
        describe: Callable[[Job], str] = str,
    ) -> Generator[Result, None, None]:
        """Run a function on jobs; as ``run_jobs``, but that progress is told job by job.

        Args:
            function: called with a job and a function to report progress. A job may run twice, on
                two machines at once where the first was thought dead: it must bear that.
            jobs: the jobs, begun in this order.
            on_progress: called in this process with what finished jobs reported.
            describe: name of a job for messages.

        Yields:
            The result of each job, in their order.

        Raises:
            RunFailed: if a job was lost more than ``RETRIES`` times.
            OSError: if no machine can write what a job makes.
            BaseException: what the function raised.
        """
        shared = self._ray.put(function)
        rest = enumerate(jobs)
        done: dict[int, Result] = {}
        next_place, has_more = 0, True
        while True:
            while has_more and len(self._running) < self._room():
                place, job = next(rest, (-1, None))
                has_more = place >= 0
                if has_more:
                    self._start(shared, _Unit(job, place), describe)
            if not self._running:
                break
            with uncovered():
                ended, _ = self._ray.wait([*self._running], timeout=_ASK_EVERY_S)
            for task in ended:
                unit = self._running.pop(task)
                told = self._take(task, unit, describe)
                if told.error is not None:
                    self._note_failure(unit, told, describe)
                    self._start(shared, unit, describe)
                    continue
                on_progress(told.count)
                done[unit.place] = told.result  # type: ignore[assignment]
            while next_place in done:
                yield done.pop(next_place)
                next_place += 1

    def _room(self) -> int:
        """Return how many jobs may be under way; a cluster may grow and shrink."""
        if self._num_workers is not None:
            return self._num_workers
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _only(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id, soft=False)

    def _start(self, shared: Any, unit: _Unit[Any], describe: Callable[[Any], str]) -> None:
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": RETRIES}
        if unit.avoided:
            left = [node.id for node in self.nodes() if node.id not in unit.avoided]
            options["scheduling_strategy"] = self._only(left[unit.place % len(left)])
        task = self._ray.remote(_work).options(name=describe(unit.job), **options)
        with uncovered():
            self._running[task.remote(shared, unit.job)] = unit

    def _take(self, task: Any, unit: _Unit[Any], describe: Callable[[Any], str]) -> _Told[Any]:
        try:
            with uncovered():
                return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        except self._ray.exceptions.RayError as error:
            raise RunFailed(
                f"{describe(unit.job)}: its process or machine was lost {RETRIES + 1} times "
                f"({type(error).__name__}), often because memory ran out: give the machines fewer "
                "CPUs, and start again"
            ) from None

    def _note_failure(
        self, unit: _Unit[Any], told: _Told[Any], describe: Callable[[Any], str]
    ) -> None:
        """Say that a job failed on a machine; raise what no other try will mend."""
        error = told.error
        assert error is not None
        if isinstance(error, WorkerDied) and unit.died < RETRIES:
            unit.died += 1
            return
        if isinstance(error, OSError) and error.errno in _ELSEWHERE:
            unit.avoided.add(told.node.id)
            if any(node.id not in unit.avoided for node in self.nodes()):
                return
            error.strerror = f"{error.strerror} (on {told.node.name}, at {describe(unit.job)})"
        raise error


def _work(function: Callable[[Job, Report], Result], job: Job) -> _Told[Result]:
    """Do a job on some machine, in a process without threads."""
    import ray

    context = ray.get_runtime_context()
    node = Node(context.get_node_id(), f"{socket.gethostname()} ({ray.util.get_node_ip_address()})")
    count = 0

    def add(number: int) -> None:
        nonlocal count
        count += number

    try:
        (result,) = run_jobs(function, [job], 1, add)
    except Exception as error:
        return _Told(node, error=error)
    return _Told(node, count, result)
