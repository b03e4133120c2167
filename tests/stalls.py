"""A disk that stalls: a file whose opening waits."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path


class Stall:
    """A file that whoever opens it waits for, until it is released or 45 s have passed.

    It is under a lease, which the kernel asks back when somebody else opens the file.
    """

    def __init__(self, path: Path) -> None:
        """Put a copy in the file's place, which nobody has open yet, and take the lease."""
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        # So it asks: by a signal that ends a process.
        self._handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._descriptor = os.open(path, os.O_RDWR)
        fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def release(self) -> None:
        """Let everybody in."""
        os.close(self._descriptor)
        signal.signal(signal.SIGIO, self._handler)
