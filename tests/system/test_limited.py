"""Items in a forked child: slow and crashing ones end alone, all others arrive in order."""

from __future__ import annotations

import faulthandler
import os
import signal

import pytest

from fastssl.errors import RunFailed
from fastssl.system.limited import Ended, run_limited
from tests.holdings import list_children, list_open_files


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    before = list_children(), list_open_files()
    yield
    assert (list_children(), list_open_files()) == before


def end(item):
    """Do what the item says."""
    if item == "spin":
        while True:
            pass
    if isinstance(item, signal.Signals):
        faulthandler.disable()  # pytest's would show a traceback that nobody has to look into
        os.kill(os.getpid(), item)
    if item == "raise":
        raise KeyError("of the item")
    if item == "unpicklable":
        raise RuntimeError(lambda: 0)
    return item, os.getpid()


def names(results):
    return [one if isinstance(one, Ended) else one[0] for one in results]


def test_results_come_in_order_from_one_child():
    results = list(run_limited(end, range(50), 60))
    assert names(results) == list(range(50))
    (child,) = {process for _, process in results}
    assert child != os.getpid()


def test_an_item_that_takes_its_time_of_the_cpu_ends_alone():
    results = list(run_limited(end, [1, "spin", 2, "spin"], 0.05))
    assert names(results) == [1, Ended(signal.SIGPROF), 2, Ended(signal.SIGPROF)]
    assert results[1].was_too_slow


def test_an_item_that_crashes_ends_alone():
    crash = signal.SIGSEGV
    assert names(run_limited(end, [crash, 1, crash], 60)) == [Ended(crash), 1, Ended(crash)]
    assert not Ended(crash).was_too_slow


def test_a_child_that_is_killed_from_outside_is_no_fault_of_the_item():
    with pytest.raises(RunFailed, match="was killed, often because memory ran out"):
        list(run_limited(end, [signal.SIGKILL, 1], 60))


@pytest.mark.parametrize(("item", "kind"), [("raise", KeyError), ("unpicklable", RuntimeError)])
def test_what_an_item_raises_is_raised(item, kind):
    with pytest.raises(kind):
        list(run_limited(end, [1, item, 2], 60))


def test_a_child_ends_when_nobody_wants_more():
    results = run_limited(end, range(1000), 60)
    assert next(results)[0] == 0
    results.close()


def test_results_larger_than_a_pipe_arrive():
    (content,) = run_limited(bytes, [1 << 20], 60)
    assert len(content) == 1 << 20
