"""What this process holds on to, for tests that something leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.patience import HANGS_AFTER_S


def list_children(process_id: int | None = None) -> set[int]:
    """Return the process ids of the living children of a process; without one, of this."""
    parent_id, found = process_id or os.getpid(), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == parent_id and state != "Z":
                found.add(int(stat.parent.name))
    return found


def list_open_files() -> set[tuple[str, str]]:
    """Return descriptors and what each is open on.

    Garbage is collected first: what other tests have left may close its files at any moment.
    """
    gc.collect()
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor that lists the folder
            found.add((link.name, os.readlink(link)))
    return found


def list_shared_memory() -> set[str]:
    """Return shared memory that this process or a child maps, or has named after itself.

    Tests of another process kill theirs, and leave some behind.
    """
    ours = {os.getpid(), *list_children()}
    mapped = ""
    for number in ours:
        with contextlib.suppress(OSError):  # it has ended
            mapped += Path(f"/proc/{number}/maps").read_text()
    return {
        name
        for name in os.listdir("/dev/shm")
        if f"/dev/shm/{name}" in mapped or any(f"_{number}_" in name for number in ours)
    }


def list_holdings() -> set[tuple]:
    """Return open files, threads (those of C++ too), living children and shared memory, by kind."""
    return {
        *(("file", *entry) for entry in list_open_files()),
        *(("thread", name) for name in os.listdir("/proc/self/task")),
        *(("child", number) for number in list_children()),
        *(("shared memory", name) for name in list_shared_memory()),
    }


def wait_for_release(before: set, list_held: Callable[[], set] = list_holdings) -> None:
    """Fail unless everything that came after ``before`` goes again."""
    deadline = time.monotonic() + HANGS_AFTER_S
    while (left := list_held() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == set(), f"still held: {left}"
