"""The run directory: one run at a time, its identity, its logs, and how it ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..config import LoaderName
from ..errors import InputError
from ..system.files import locked, naming_file, publish_bytes

CONFIG_NAME = "config.json"
LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
TRUNK_NAME = "trunk.safetensors"
BAD_SAMPLES_NAME = "bad_samples.jsonl"
EXIT_NAME = "exit.json"
TENSORBOARD_NAME = "tensorboard"
PICTURES_NAME = "pictures.safetensors"
LOCK_PATIENCE_S = 10.0
_CUT_WINDOW = 1 << 16


def ledger_name(rank: int) -> str:
    """Return the name of a rank's ledger."""
    return f"ledger.rank{rank}.jsonl"


@contextlib.contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Make a run directory and keep a second run out of it for as long as the block lasts.

    Args:
        folder: the run directory.

    Raises:
        InputError: if another run holds it for longer than ten seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        what = "is a file" if folder.is_file() else f"cannot be made ({error.strerror})"
        raise InputError(
            f"--output-dir ({folder}) {what}; a run needs a directory; choose another"
        ) from None
    busy = (
        f"--output-dir ({folder}) is in use by another run; wait for it, stop it, or choose "
        "another directory"
    )
    with locked(folder / LOCK_NAME, busy, LOCK_PATIENCE_S):
        yield


def check_identity(folder: Path, identity: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Compare a run with the one that the directory holds.

    Args:
        folder: the run directory.
        identity: from ``fastssl.config.identity``.
        defaults: from ``fastssl.config.list_defaults``.

    Raises:
        InputError: if the directory holds another run; lists field, old and new value.
    """
    path = folder / CONFIG_NAME
    if not path.exists():
        return
    try:
        old = dict(json.loads(path.read_bytes())["identity"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error!r}); restore it, or choose another --output-dir"
        ) from None
    compare_identities(folder, old, identity, defaults)


def compare_identities(
    folder: Path, old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]
) -> None:
    """Compare what makes a run itself, field by field.

    Args:
        folder: the run directory.
        old: the run's identity when it began.
        new: its identity now.
        defaults: what a field that the old one lacks, for it is younger than the run, stood at.

    Raises:
        InputError: if they differ; lists field, old and new value.
    """
    old = {key: value for key, value in defaults.items() if key in new} | old
    absent = object()
    differences = [
        f"{key} (old {old.get(key, 'absent')!r}, new {new.get(key, 'absent')!r})"
        for key in dict.fromkeys((*old, *new))
        if old.get(key, absent) != new.get(key, absent)
    ]
    if differences:
        raise InputError(
            f"--output-dir ({folder}) holds another run; different: {', '.join(differences)}; "
            "give the old values back, or choose another --output-dir"
        )


def write_config(
    folder: Path, identity: dict[str, Any], config: dict[str, Any], loader: tuple[str, str]
) -> None:
    """Write ``config.json``: what makes the run itself, and all settings of this start.

    Args:
        folder: the run directory.
        identity: from ``fastssl.config.identity``.
        config: from ``fastssl.config.flatten``.
        loader: name of the back end in use, and why.
    """
    chosen = {"name": loader[0], "reason": loader[1]}
    write_json(
        folder / CONFIG_NAME, {"identity": identity, "config": config, "chosen_loader": chosen}
    )


def read_chosen_loader(folder: Path) -> LoaderName | None:
    """Return the back end that the run used last, or None if it has not begun."""
    try:
        return json.loads((folder / CONFIG_NAME).read_bytes())["chosen_loader"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # what is wrong with the file is for check_identity to say


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people, whole or not at all."""
    publish_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def cut_logs(folder: Path, step: int) -> None:
    """Cut metrics, ledgers and the list of bad samples to what a checkpoint has seen.

    Args:
        folder: the run directory.
        step: of the checkpoint; later lines, and a torn last one, go.
    """
    names = (METRICS_NAME, BAD_SAMPLES_NAME)
    for path in (*(folder / name for name in names), *folder.glob("ledger.rank*.jsonl")):
        if path.exists():
            os.truncate(path, _find_cut(path, step))


def _find_cut(path: Path, step: int) -> int:
    """Find the end of the last line up to a step; steps rise, so it is sought from the end."""
    size = path.stat().st_size
    window = _CUT_WINDOW
    with path.open("rb") as file:
        while True:
            start = max(0, size - window)
            file.seek(start)
            content = file.read(size - start)
            end = len(content)
            while (newline := content.rfind(b"\n", 0, end)) >= 0:
                begin = content.rfind(b"\n", 0, newline) + 1
                if begin == 0 and start > 0:
                    break  # the line begins before the window
                if _step_of(content[begin:newline]) <= step:
                    return start + newline + 1
                end = newline
            if start == 0:
                return 0
            window *= 4


def _step_of(line: bytes) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf  # no line of ours, so it goes


class JsonLines:
    """Appends lines to a file; each is handed to the system as it is written."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending."""
        self._path = path
        self._file: TextIO = path.open("a", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        with naming_file(self._path):
            self._file.write(json.dumps(line) + "\n")

    def sync(self) -> None:
        """Make the lines durable."""
        with naming_file(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make the lines durable and close the file."""
        self.sync()
        self._file.close()
