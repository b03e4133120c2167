"""The run directory: one run at a time, its identity, its logs, and how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError
from ..publish import publish_bytes

CONFIG_NAME = "config.json"
EXIT_NAME = "exit.json"
LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
BAD_SAMPLES_NAME = "bad_samples.jsonl"
LOCK_PATIENCE_S = 10.0


def ledger_name(rank: int) -> str:
    """Return the name of a rank's ledger."""
    return f"ledger.rank{rank}.jsonl"


class RunLock:
    """Keeps a second run out of the directory for as long as this process lives."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and take its lock.

        Args:
            folder: the run directory.

        Raises:
            InputError: if another run holds it for longer than ten seconds.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(
                f"--output-dir ({folder}) is a file; a run needs a directory; choose another"
            ) from None
        self._file = (folder / LOCK_NAME).open("a")
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.close()
                    raise InputError(
                        f"--output-dir ({folder}) is in use by another run; wait for it, stop it, "
                        "or choose another directory"
                    ) from None
                time.sleep(0.2)

    def release(self) -> None:
        """Let the next run in."""
        self._file.close()


def check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Compare a run with the one that the directory holds.

    Args:
        folder: the run directory.
        identity: from ``fastssl.config.identity``.

    Raises:
        InputError: if the directory holds another run; lists field, old and new value.
    """
    path = folder / CONFIG_NAME
    if not path.exists():
        return
    try:
        old = json.loads(path.read_bytes())["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error!r}); restore it, or choose another --output-dir"
        ) from None
    absent = object()
    differences = [
        f"{key} (old {old.get(key, 'absent')!r}, new {identity.get(key, 'absent')!r})"
        for key in dict.fromkeys((*old, *identity))
        if old.get(key, absent) != identity.get(key, absent)
    ]
    if differences:
        raise InputError(
            f"--output-dir ({folder}) holds another run; different: {', '.join(differences)}; "
            "give the old values back, or choose another --output-dir"
        )


def write_config(folder: Path, identity: dict[str, Any], config: dict[str, Any]) -> None:
    """Write ``config.json``: what makes the run itself, and all settings of this start."""
    _write_json(folder / CONFIG_NAME, {"identity": identity, "config": config})


def write_exit(folder: Path, code: int, reason: str, step: int) -> None:
    """Write ``exit.json``: torchrun turns every exit code but 0 into 1, so it stands here."""
    _write_json(folder / EXIT_NAME, {"code": code, "reason": reason, "step": step})


def _write_json(path: Path, value: Any) -> None:
    publish_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def cut_logs(folder: Path, step: int) -> None:
    """Cut metrics and every rank's ledger to what a checkpoint has seen.

    Args:
        folder: the run directory.
        step: of the checkpoint; later lines, and a torn last one, go.
    """
    for path in (folder / METRICS_NAME, *folder.glob("ledger.rank*.jsonl")):
        if path.exists():
            old = path.read_bytes()
            kept = b"".join(_lines_until(old.splitlines(keepends=True), step))
            if kept != old:
                publish_bytes(path, kept)


def _lines_until(lines: Iterable[bytes], step: int) -> Iterable[bytes]:
    for line in lines:
        try:
            is_kept = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            continue
        if is_kept and line.endswith(b"\n"):
            yield line


class JsonLines:
    """Appends lines to a file; each is handed to the system as it is written."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending."""
        self._file: TextIO = path.open("a", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Make the lines durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
