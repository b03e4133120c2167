"""Worker processes: what they do arrives in order, and what ends the work ends them."""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fastssl.system import workers
from fastssl.system.workers import WorkerDied, run_jobs
from tests.nursery import run_child

pytestmark = pytest.mark.usefixtures("fresh_workers")


def run(function, jobs, num_workers=2):
    return list(run_jobs(function, jobs, num_workers, lambda _: None))


@pytest.fixture(autouse=True)
def _none_left_behind():
    """No worker outlives the work, however it ended."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def wait_long_for_the_first(job, _report):
    if job == 0:
        time.sleep(0.3)
    return job


def test_results_come_in_the_order_of_the_jobs():
    assert run(wait_long_for_the_first, range(30)) == list(range(30))


def report_thrice(job, report):
    for _ in range(3):
        report(job)


def test_progress_adds_up():
    told = []
    list(run_jobs(report_thrice, range(20), 2, told.append))
    assert sum(told) == 3 * sum(range(20))
    assert 0 not in told


def test_without_jobs_there_are_no_workers():
    assert run(report_thrice, []) == []


def be_stuck_but_for_two(job, _report):
    if job == 1:
        return "done"
    if job == 2:
        raise ValueError("no")
    # In C, under Python's lock: nobody in this process can do anything about it.
    re.match("(a+)+$", "a" * 64 + "b")


def test_an_error_is_raised_while_another_job_is_stuck_and_ends_it():
    with pytest.raises(ValueError, match="no"):
        run(be_stuck_but_for_two, [0, 2, 3])


def test_closing_ends_workers_that_are_stuck():
    with contextlib.closing(run_jobs(be_stuck_but_for_two, [1, 0, 3], 2, print)) as results:
        assert next(results) == "done"


def be_deaf_but_for_one(job, _report):
    if job == 1:
        return "done"
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    re.match("(a+)+$", "a" * 64 + "b")


def test_closing_ends_workers_that_are_deaf(monkeypatch):
    monkeypatch.setattr(workers, "_END_PATIENCE_S", 0.1)
    with contextlib.closing(run_jobs(be_deaf_but_for_one, [1, 0, 3], 2, print)) as results:
        assert next(results) == "done"
        time.sleep(0.5)  # both are stuck by then, or not begun


def test_ctrl_c_waits_until_no_worker_is_half_started():
    begun = []

    def begin_jobs():
        for job in range(3):
            yield job
            _thread.interrupt_main()  # as if another thread had heard it, whatever this one's mask
            begun.append(job)

    with pytest.raises(KeyboardInterrupt):
        run(report_thrice, begin_jobs())
    assert begun == [0, 1, 2]


def test_ctrl_c_leaves_no_lock_of_the_pool_held():
    """Else its thread, which needs them all at the end, is never done, nor is the process."""
    num_held = 0

    def press(frame, event, _argument):
        nonlocal num_held
        if event == "return" and frame.f_code is threading.Condition.__enter__.__code__:
            num_held += 1
            if num_held == 7:  # a job's that no worker has been given yet
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    threads = set(threading.enumerate())
    results = run_jobs(wait_long_for_the_first, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2, print)
    assert next(results) == 1
    sys.setprofile(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(results)
    finally:
        sys.setprofile(None)
    assert set(threading.enumerate()) == threads


def test_a_script_that_workers_cannot_import_is_told_why(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from fastssl.system.workers import run_jobs\nlist(run_jobs(abs, [1, 2], 1, print))\n"
    )
    done = run_child(script)
    assert done.returncode == 1
    assert "no worker process could start" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith("below if __name__ == '__main__':")


def return_much(_job, _report):
    return bytes(1 << 24)


def test_closing_while_results_are_on_their_way_does_not_block():
    for _ in range(3):
        with contextlib.closing(run_jobs(return_much, range(100), 2, print)) as results:
            next(results)


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raise_unpicklable(_job, _report):
    raise Unpicklable("one", "two")


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(RuntimeError, match="Unpicklable: one and two"):
        run(raise_unpicklable, [0])


def die_at_seven(job, _report):
    if job == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_worker_that_is_killed_ends_the_work_and_its_job_is_named():
    with pytest.raises(
        WorkerDied, match=r"worker process at (job [0-6] or )?job 7( or job 8)? died"
    ):
        list(run_jobs(die_at_seven, range(9), 2, print, "job {}".format))


def kill_the_idle_one(job, _report):
    """Kill the process that waits for a job with the queue's lock, and come to need that lock."""
    if job == "nothing":
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # as between two jobs
    time.sleep(1.0)  # the other one is done with nothing, and waits
    threads = Path(f"/proc/{os.getppid()}/task").iterdir()
    children = {int(pid) for t in threads for pid in (t / "children").read_text().split()}
    for pid in children - {os.getpid()}:
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_a_worker_that_is_killed_with_the_lock_of_the_jobs_does_not_hold_the_end_up():
    with pytest.raises(WorkerDied, match="worker process at kill died"):
        run(kill_the_idle_one, ["nothing", "kill"])


def count_threads(_job, _report):
    assert np.ones((2, 2)).sum() == 4  # NumPy is there, and with it what it started
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_workers_come_without_threads_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run(count_threads, [0, 1]) == [1, 1]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
