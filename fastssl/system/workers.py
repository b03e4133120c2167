"""Jobs for worker processes: results in order, progress, and an end that comes at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from ..errors import RunFailed
from .lifelines import die_with
from .signals import STOP_SIGNALS, postponing_signals

Job = TypeVar("Job")
Result = TypeVar("Result")

Report = Callable[[int], object]
"""Says that so many more samples are done."""

Progress = Callable[[int, int], object]
"""Told how many more samples are done, and how many there are in all; the first call, what was done
before."""

_REPORT_EVERY_S = 0.1
_END_EVERY_S = 0.01
_END_PATIENCE_S = 5.0
# Jobs of each worker that are under way, or done and not yet taken: a slow one does not stop the
# others, and results do not pile up.
_AHEAD = 4
_END_SIGNAL = signal.SIGUSR2
_NAMED_JOBS = 4

_work: Callable[[Any], Any]
"""What a worker process does with a job."""


class WorkerDied(RunFailed):
    """A worker process was killed from outside."""


def say_nothing(*_counts: int) -> None:
    """Report no progress."""


class _Context(SpawnContext):
    """Starts workers, and knows them; fork and threads of libraries do not go together."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        worker = SpawnProcess(*args, **kwargs)
        self.workers.append(worker)
        return worker

    def has_workers(self) -> bool:
        """Tell whether one of them lives."""
        return any(worker.is_alive() for worker in self.workers)

    def end_workers(self, number: signal.Signals) -> None:
        """Send a signal to all that live: one at a job dies of ``_END_SIGNAL``."""
        for worker in self.workers:
            if worker.is_alive() and worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):  # another thread saw its end first
                    os.kill(worker.pid, number)


@contextlib.contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """Set what processes that start meanwhile take over.

    Signals stay blocked: one to the whole group is the parent's affair, which ends its workers.
    And no threads of BLAS, which no job here needs. NumPy starts as many in every process as there
    are cores: 0.1 of the 0.35 s that a worker takes to start on two cores, and on a large machine a
    thousand threads in all.
    """
    name = "OPENBLAS_NUM_THREADS"
    threads = os.environ.get(name)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, _END_SIGNAL})
    os.environ[name] = "1"
    try:
        yield
    finally:
        if threads is None:
            del os.environ[name]
        else:
            os.environ[name] = threads
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _enter(
    function: Callable[[Any, Report], Any], num_done: Any, num_begun: Any, parent: int
) -> None:
    """Prepare a worker process for its jobs."""
    global _work
    die_with(parent)
    with num_begun:
        num_begun.get_obj().value += 1
    warnings.filterwarnings("ignore", module="PIL")  # odd EXIF, odd palettes: not the user's matter

    def report(count: int) -> None:
        with num_done:
            num_done.get_obj().value += count

    def work(job: Any) -> Any:
        try:
            return function(job, report)
        except BaseException as error:
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:  # it would take the pool down
                raise RuntimeError(f"{type(error).__name__}: {error}") from None
            raise

    _work = work


def _do(job: Any) -> Any:
    """Do a job. Only in here may the process be ended: half a result would block its reader."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [_END_SIGNAL])
    try:
        return _work(job)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [_END_SIGNAL])


def run_jobs(
    function: Callable[[Job, Report], Result],
    jobs: Iterable[Job],
    num_workers: int,
    on_progress: Report,
    describe: Callable[[Job], str] = str,
) -> Generator[Result, None, None]:
    """Run a function on jobs in worker processes.

    When the iteration ends, also by an error or by being closed, the workers end with it, whatever
    they are at.

    Args:
        function: called with a job and a function to report progress; it, the jobs and the results
            must pickle.
        jobs: the jobs, begun in this order.
        num_workers: processes, at least 1.
        on_progress: called in this process with what the workers report.
        describe: name of a job for the message about a dead worker.

    Yields:
        The result of each job, in their order.

    Raises:
        WorkerDied: if a worker was killed.
        BaseException: what the function raised in a worker.
    """
    context = _Context()
    with _inherited_by_workers():  # so does the tracker of shared memory, which this starts
        num_done, num_begun = context.Value("Q"), context.Value("Q")
    num_told = 0
    rest = iter(jobs)
    under_way: deque[tuple[Job, Future[Result]]] = deque()
    # No Event: an exception out of a signal's handler, between its two locks, would leave one held,
    # and the pool's thread would wait for it for ever.
    news: queue.SimpleQueue[None] = queue.SimpleQueue()
    setup = (function, num_done, num_begun, os.getpid())
    pool = ProcessPoolExecutor(num_workers, context, initializer=_enter, initargs=setup)
    try:
        while True:
            # A worker whose parent leaves it half-started ends with a traceback of its own; what
            # this thread's mask keeps away, another thread may hear, such as tqdm's.
            with postponing_signals(), _inherited_by_workers():
                for job in itertools.islice(rest, _AHEAD * num_workers - len(under_way)):
                    under_way.append((job, pool.submit(_do, job)))
                    under_way[-1][1].add_done_callback(lambda _: news.put(None))
            if not under_way:
                break
            with contextlib.suppress(queue.Empty):
                news.get(timeout=_REPORT_EVERY_S)
            # Not under its lock, which a killed worker may hold for ever.
            num_new = num_done.get_obj().value - num_told
            if num_new:
                on_progress(num_new)
                num_told += num_new
            results = []
            with postponing_signals():  # futures have locks
                for _, future in under_way:
                    if future.done():
                        future.result()  # what goes wrong is raised at once
                while under_way and under_way[0][1].done():
                    results.append(under_way.popleft()[1].result())
            yield from results
        pool.shutdown()
    except BrokenProcessPool:
        # The dead one may have held the lock of the queue of jobs: who waits for it admits nothing
        # less. Nobody reads results any more, so that half a one blocks nobody.
        context.end_workers(signal.SIGKILL)
        if not num_begun.get_obj().value:
            raise WorkerDied(
                "no worker process could start, and what it said stands above; workers import the "
                "script that starts them: what yours does belongs below if __name__ == '__main__':"
            ) from None
        raise WorkerDied(_describe_death(under_way, num_workers, describe)) from None
    finally:
        with postponing_signals():
            _end(pool, context)


def _end(pool: ProcessPoolExecutor, context: _Context) -> None:
    """End a pool and its workers, whatever they are at."""
    context.end_workers(_END_SIGNAL)
    # In a thread, as its end comes only with that of the workers, and has to be waited for: Python,
    # at its own end, must not find the pool half taken apart.
    ending = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    ending.start()
    patience_ends = time.monotonic() + _END_PATIENCE_S
    while ending.is_alive() or context.has_workers():
        time.sleep(_END_EVERY_S)
        # One that died at its job breaks the pool, which reads no results any more: another that
        # is about to send one would wait for ever. And one may be deaf.
        if _is_broken(pool) or time.monotonic() > patience_ends:
            context.end_workers(signal.SIGKILL)


def _is_broken(pool: ProcessPoolExecutor) -> bool:
    """Tell whether a pool that is being shut down has lost a worker, and so reads nothing more."""
    try:
        pool.submit(int)  # nothing's job, where it still takes one
    except BrokenProcessPool:
        return True
    except RuntimeError:
        pass
    return False


def _describe_death(
    under_way: Iterable[tuple[Job, Future[Any]]], num_workers: int, describe: Callable[[Job], str]
) -> str:
    """Say what the workers were at: as many of the first jobs without a result as there are."""
    lost = [job for job, future in under_way if not future.done() or future.exception()]
    names = [describe(job) for job in lost[:num_workers]]
    if len(names) > _NAMED_JOBS:
        names = [*names[: _NAMED_JOBS - 1], f"one of {len(names) - _NAMED_JOBS + 1} more"]
    return (
        f"the worker process at {' or '.join(names)} died, often because memory ran out: use fewer "
        "workers, and start again"
    )
