"""Commands at a terminal, where Ctrl-C can be pressed."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CTRL_C = b"\x03"
PATIENCE_S = 120
STOPPED = "stopped: Ctrl-C, before it was done"


def take_terminal():
    """Have the terminal that stdin is, and hear Ctrl-C, which a shell's background jobs ignore."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command at a terminal of its own, so that Ctrl-C reaches it and all its children."""

    def __init__(self, *command):
        self.said = ""
        # A read may end in the middle of a bar's block, which is three bytes.
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self._process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(theirs)
        self.pid = self._process.pid

    def press(self):
        os.write(self._ours, CTRL_C)

    def wait_for(self, text):
        """Read until a text is there."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            assert self._read() or text in self.said, self.said

    def wait(self):
        """Return the exit code; all that was said stands in ``said``."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, self.said
        return self._process.wait(PATIENCE_S)

    def _read(self):
        ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
        assert ready, self.said
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
            more = os.read(self._ours, 1 << 16)
            self.said += self._decoder.decode(more)
            return len(more)
        return 0

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def last_line(said):
    """Return the last line, without the terminal's echo of what was pressed."""
    return said.replace("\r", "\n").strip().splitlines()[-1].removeprefix("^C")
