"""Processes that must not outlive the one that started them. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def _receive_at_parents_end(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, be it by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends.

    Args:
        parent: process id of the parent; if it is gone already, this process ends at once.
    """
    _receive_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def ending_with_parent() -> None:
    """Have the kernel send SIGTERM to this process, a fresh child, when its parent ends."""
    _receive_at_parents_end(signal.SIGTERM)


def has_launcher() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def die_with_launcher() -> None:
    """Die with torchrun where it started this process; elsewhere do nothing."""
    if not has_launcher():
        return
    parent = os.getppid()
    # An orphan belongs to init; but in a container torchrun itself may be process 1.
    if parent == 1 and b"torch" not in Path("/proc/1/cmdline").read_bytes():
        os._exit(1)
    die_with(parent)
