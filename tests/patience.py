"""How long tests wait: until what never comes must have come, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

HANGS_AFTER_S = 300
"""What takes a second on a quiet machine may take a minute on a busy one; this is for neither."""


class Process(Protocol):
    """What can be asked whether it has ended."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""


def wait_until(is_so: Callable[[], object], what: str, process: Process | None = None) -> None:
    """Ask every 5 ms; fail with ``what`` when it hangs, or ``process`` ends before it is so."""
    deadline = time.monotonic() + HANGS_AFTER_S
    while True:
        has_ended = process is not None and process.poll() is not None
        if is_so():
            return
        assert not has_ended, f"{what}: it has ended"
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_alive(process_id: int) -> bool:
    """Return whether a process runs; one that only waits to be asked for its end does not."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
