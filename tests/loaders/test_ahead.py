"""Work ahead of its consumer: in order, at most so far, and ended whatever it waits for."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import pytest

from fastssl.loaders.ahead import Ahead, StoppedError, overlap


def count_to(limit, log):
    try:
        for number in range(limit):
            log.append(number)
            yield number
    finally:
        log.append("closed")


def nothing():
    pass


def test_items_come_in_order_and_no_more_lie_ready_than_asked_for():
    log = []
    ahead = Ahead(count_to(50, log), 2, nothing)
    while len(log) < 3:  # two lie ready, one waits to be laid down
        time.sleep(0.005)
    time.sleep(0.05)
    assert (log, ahead.num_ready()) == ([0, 1, 2], 2)
    assert list(ahead) == list(range(50))
    assert log[-1] == "closed"


def test_a_closed_generator_is_closed_in_its_thread():
    log = []
    ahead = Ahead(count_to(10**9, log), 2, nothing)
    assert next(ahead) == 0
    ahead.close()
    ahead.close()
    assert log[-1] == "closed"
    assert len(log) <= 6  # one taken, two ready, one in hand


def test_an_error_comes_in_its_place():
    def fail():
        yield 1
        raise KeyError("gone")

    ahead = Ahead(fail(), 3, nothing)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="gone"):
        next(ahead)
    ahead.close()


def test_close_ends_what_the_work_waits_for():
    interrupted, ended = threading.Event(), threading.Event()

    def hang():
        try:
            yield 1
            interrupted.wait()
            raise StoppedError
        finally:
            ended.set()

    ahead = Ahead(hang(), 3, interrupted.set)
    assert next(ahead) == 1
    ahead.close()
    ahead.close()
    assert ended.is_set()
    assert list(ahead) == []


@pytest.mark.parametrize(
    "drop", ["", "del ahead", "holder.clear()"], ids=["in use", "forgotten", "by its own thread"]
)
def test_no_thread_outlives_the_program(drop):
    """It would be ended in the middle of what it does, by what C++ takes for a reason to abort."""
    script = textwrap.dedent(
        f"""
        import threading
        from fastssl.loaders.ahead import Ahead

        interrupted, begun, ended = (threading.Event() for _ in range(3))
        holder = []

        def work():
            yield 1
            begun.wait()
            if {drop!r} == "holder.clear()":
                {drop or "pass"}
                ended.set()
            interrupted.wait()
            threading.Event().wait(0.3)
            print("whole")

        ahead = Ahead(work(), 1, interrupted.set)
        assert next(ahead) == 1
        if {drop!r} == "holder.clear()":
            holder.append(ahead)
            del ahead
            begun.set()
            ended.wait()
        else:
            begun.set()
            {drop or "pass"}
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


def test_the_next_piece_is_begun_before_the_first_is_waited_for():
    seen = []

    def begin(number):
        seen.append(f"begin {number}")

        def finish():
            seen.append(f"finish {number}")
            return number

        return finish

    results = []
    for result in overlap(map(begin, range(3)), 2):
        seen.append(f"use {result}")
        results.append(result)
    assert results == [0, 1, 2]
    assert seen == [
        "begin 0",
        "begin 1",
        "finish 0",
        "use 0",
        "begin 2",
        "finish 1",
        "use 1",
        "finish 2",
        "use 2",
    ]
