"""A few worker processes that share out numbered jobs; one that dies is named, not waited for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection as mp_connection
from multiprocessing import get_context
from typing import Any

Report = Callable[[int], None]
"""Says that so many more samples are done."""

_PR_SET_PDEATHSIG = 1
_REPORT_EVERY_S = 0.1


class WorkerError(RuntimeError):
    """A worker process died, or raised what cannot be sent."""


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, even by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _without_blas_threads() -> Iterator[None]:
    """Have processes that start meanwhile do without BLAS's threads, which no job here needs.

    NumPy starts as many in every process as there are cores: 0.1 of the 0.35 s that a worker takes
    to start on two cores, and on a large machine a thousand threads in all.
    """
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Reporter:
    """Adds up progress and sends it a few times a second."""

    def __init__(self, connection: mp_connection.Connection):
        self._connection = connection
        self._count = 0
        self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._last > _REPORT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._count:
            self._connection.send(("progress", self._count))
        self._count, self._last = 0, time.monotonic()


def _serve(
    connection: mp_connection.Connection, function: Callable[[int, Report], Any], parent: int
) -> None:
    # A signal to the whole group is the parent's affair; it ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    if os.getppid() != parent:
        return
    warnings.filterwarnings("ignore", module="PIL")  # odd EXIF, odd palettes: not the user's matter
    reporter = _Reporter(connection)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job is None:
            return
        try:
            result = function(job, reporter)
        except BaseException as error:  # all of it is raised again in the parent
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                error = WorkerError(f"{type(error).__name__}: {error}")
            connection.send(("failed", error))
            return
        reporter.flush()
        connection.send(("done", result))


class _Worker:
    """One process and the job that it is at."""

    def __init__(self, function: Callable[[int, Report], Any]):
        context = get_context("spawn")  # fork and threads of libraries do not go together
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, function, os.getpid()), daemon=True
        )
        with _without_blas_threads():
            self.process.start()
        theirs.close()
        self.job: int | None = None

    def give(self, job: int | None) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it is dead: its sentinel says so next
            self.connection.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_jobs(
    function: Callable[[int, Report], Any],
    jobs: Sequence[int],
    num_workers: int,
    describe: Callable[[int], str],
    on_progress: Report,
) -> Iterator[tuple[int, Any]]:
    """Run a function on numbered jobs in worker processes.

    Args:
        function: called with a job and a function to report progress; both it and its result
            must pickle.
        jobs: the jobs, begun in this order.
        num_workers: processes, at least 1.
        describe: name of a job for the message about a dead worker.
        on_progress: called in this process with what the workers report.

    Yields:
        Each job with its result, as they are done.

    Raises:
        WorkerError: if a worker died.
        BaseException: what the function raised in a worker.
    """
    waiting = list(reversed(jobs))
    workers: list[_Worker] = []
    try:
        for _ in range(min(num_workers, len(waiting))):
            workers.append(_Worker(function))
            workers[-1].give(waiting.pop())
        while any(worker.job is not None for worker in workers):
            busy = [worker for worker in workers if worker.job is not None]
            ready = mp_connection.wait(
                [w.connection for w in busy] + [w.process.sentinel for w in busy]
            )
            for worker in busy:
                if worker.connection in ready:
                    yield from _hear(worker, waiting, describe, on_progress)
                elif worker.process.sentinel in ready and not worker.connection.poll():
                    raise _death(worker, describe)
    finally:
        for worker in workers:
            worker.end()


def _death(worker: _Worker, describe: Callable[[int], str]) -> WorkerError:
    worker.process.join()
    assert worker.job is not None  # only a busy worker is waited for
    return WorkerError(
        f"the worker process at {describe(worker.job)} died (exit code {worker.process.exitcode}; "
        "-9 often means that memory ran out: use fewer workers)"
    )


def _hear(
    worker: _Worker, waiting: list[int], describe: Callable[[int], str], on_progress: Report
) -> Iterator[tuple[int, Any]]:
    """Take one message from a worker; give it the next job when it is done with one."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        raise _death(worker, describe) from None
    if kind == "progress":
        on_progress(content)
    elif kind == "failed":
        raise content
    else:
        job = worker.job
        assert job is not None
        worker.give(waiting.pop() if waiting else None)
        yield job, content
