"""The files of a run that grow by a line at a time: appended to, and cut to a step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..system.files import naming_file, open_own

MAX_LINE_BYTES = 1 << 25
"""A longer line is none of ours: a ledger's has up to a million sample ids."""

_BLOCK_BYTES = 1 << 20
# A line of ours says its step among its first words.
_MARK = b'"step"'


class JsonLines:
    """Appends lines to a file; each is handed to the system as it is written."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending.

        Args:
            path: a regular file of this name alone, or one that is made.

        Raises:
            InputError: if a link or something else stands there.
        """
        self._path = path
        self._file = open_own(path, "ab")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        with naming_file(self._path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """Make the lines durable."""
        with naming_file(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make the lines durable and close the file."""
        self.sync()
        self._file.close()


class _Line(NamedTuple):
    begin: int
    end: int
    """Behind its newline."""
    step: int


def find_cut(file: BinaryIO, step: int) -> int:
    """Find the end of the last line up to a step; memory does not grow with the file.

    Steps rise, so it is sought by halving. A stretch that is longer than a line and in which none
    of ours begins is what a crash leaves behind, zeros or worse: it goes, with what follows it.

    Args:
        file: of lines, opened for reading bytes.
        step: later lines go.
    """
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:
        middle = low if high - low <= _BLOCK_BYTES else (low + high) // 2
        line = _find_line(file, middle, min(high, middle + MAX_LINE_BYTES))
        if line is not None and line.step <= step:
            low = line.end
        elif line is not None:
            high = line.begin
        elif middle > low:
            high = middle
        else:
            break
    return low


def _find_line(file: BinaryIO, start: int, stop: int) -> _Line | None:
    """Return the first whole line of ours that begins at ``start`` .. ``stop - 1``."""
    at = start if start == 0 else _skip_line(file, start - 1, stop)
    while at < stop:
        file.seek(at)
        block = file.read(_BLOCK_BYTES)
        found = block.find(_MARK)
        begin = block.rfind(b"\n", 0, max(found, 0)) + 1
        if found < 0:
            last = block.rfind(b"\n") + 1
            # What stands behind the last newline may be the beginning of a line of ours.
            at = at + last if last else _skip_line(file, at, stop)
            continue
        if at + begin >= stop:
            return None
        file.seek(at + begin)
        text = file.readline(MAX_LINE_BYTES)
        step = _read_step(text)
        if step is not None:
            return _Line(at + begin, at + begin + len(text), step)
        at = at + begin + len(text) if text.endswith(b"\n") else _skip_line(file, at + begin, stop)
    return None


def _skip_line(file: BinaryIO, at: int, stop: int) -> int:
    """Return where the line behind the one at a place begins; ``stop`` or more if it is far."""
    file.seek(at)
    while at < stop and (block := file.read(_BLOCK_BYTES)):
        newline = block.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(block)
    return at


def _read_step(text: bytes) -> int | None:
    """Return the step of a line, or None if it is no whole line of ours."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    step = line.get("step") if isinstance(line, dict) else None
    return step if isinstance(step, int) else None
