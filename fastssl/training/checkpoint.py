"""Checkpoints that survive a kill at any byte.

``checkpoints/<step, 9 digits>/`` holds ``state.pt``, the ranks' parts of a task's tables if it has
any, and ``manifest.json`` with the SHA-256 of each file and its own, written last. A checkpoint is
written beside, made durable, then renamed into place; ``latest`` names it afterwards; only then an
older one is removed. A folder whose content does not match its manifest is passed over and named.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..system.files import open_own, publish_bytes, published, read_own, sync_folder
from .stored_state import find_foreign, open_state, snapshot

_log = logging.getLogger(__name__)

STATE_NAME = "state.pt"
MANIFEST_NAME = "manifest.json"
POINTER_NAME = "latest"
MAX_FAILED_SAVES = 3
"""Saves that may fail in a row before the run stops."""

_STEP_NAME = re.compile("[0-9]{9}")
_MAX_POINTER_BYTES = 100
# A file a rank and table, of some hundred bytes each.
_MAX_MANIFEST_BYTES = 1 << 26


class CheckpointStore:
    """The checkpoints of one run; one thread writes while training goes on."""

    def __init__(self, folder: Path, keep: int, reach: int = 0) -> None:
        """Look after a folder.

        Args:
            folder: where the checkpoints stand; made when the first is saved.
            keep: newest checkpoints to keep, at least 2.
            reach: those of so many last steps, and the one before them, are kept too.
        """
        self._folder = folder
        self._keep = keep
        self._reach = reach
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._num_failed = 0
        self.last_step: int | None = None
        """Step of the newest checkpoint that was saved or loaded."""

    def find_newest(self, before: int | None = None) -> int | None:
        """Find the newest valid checkpoint; damaged ones are named, passed over and set aside.

        Args:
            before: of a step before this one; of any if None.

        Returns:
            Its step, or None if there is no checkpoint.

        Raises:
            InputError: if there are checkpoints and all are damaged.
        """
        self._remove_leftovers()
        damaged = self._check_pointer()
        for step in reversed(self._steps()):
            if before is not None and step >= before:
                continue
            folder = self._folder_of(step)
            reason = find_damage(folder, step)
            if reason is not None:
                damaged[folder.name] = reason
                continue
            for name, why in damaged.items():
                _log.warning("checkpoint %s is damaged: %s; passed over", self._folder / name, why)
                if name != POINTER_NAME:
                    _set_aside(self._folder / name)
            return step
        if damaged:
            named = ", ".join(f"{name} ({reason})" for name, reason in damaged.items())
            raise InputError(
                f"{self._folder}: no checkpoint is whole: {named}; restore one, or start anew in "
                "another --output-dir"
            )
        return None

    def go_back(self, before: int) -> int:
        """Remove the checkpoints from a step on; rank 0 calls it.

        Args:
            before: the step.

        Returns:
            Step of the newest valid one that stands before it.

        Raises:
            InputError: if there is none; then none is removed.
        """
        self.wait(is_final=False)
        found = self.find_newest(before)
        if found is None:
            raise InputError(
                f"{self._folder} has no checkpoint of before step {before} to go back to; restore "
                "one, or start anew in another --output-dir"
            )
        publish_bytes(self._folder / POINTER_NAME, self._folder_of(found).name.encode())
        for step in self._steps():
            if step >= before:
                shutil.rmtree(self._folder_of(step).rename(self._draft_of(step)))
        return found

    def newest_before(self, step: int) -> int:
        """Return the step of the newest checkpoint before a step, 0 if there is none."""
        return max((one for one in self._steps() if one < step), default=0)

    def load(self, step: int) -> dict[str, Any]:
        """Open the state of a step that ``find_newest`` has found; see ``open_state``."""
        self.last_step = step
        return open_state(self.path_of(step))

    def read_files(self, step: int) -> tuple[Path, dict[str, Any]]:
        """Return the folder of a step that ``find_newest`` has found, and what it says of files."""
        folder = self._folder_of(step)
        return folder, _read_files(folder)

    def path_of(self, step: int) -> Path:
        """Return where the state of a step stands."""
        return self._folder_of(step) / STATE_NAME

    def open_draft(self, step: int) -> Path | None:
        """Make the folder that all ranks write parts to before ``save``; rank 0 calls it.

        Waits for the write before it, as ``save`` does.

        Args:
            step: steps done.

        Returns:
            The folder; None if the step is saved already, or the folder cannot be made.
        """
        if step == self.last_step:
            return None
        self.wait(is_final=False)
        draft = self._draft_of(step)
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
        except OSError as error:
            self.give_up(step, error)
            return None
        return draft

    def give_up(self, step: int, error: OSError) -> None:
        """Count a save whose parts could not be written as one that failed."""
        shutil.rmtree(self._draft_of(step), ignore_errors=True)
        self._error = error

    def save(
        self, step: int, state: dict[str, Any], parts: Mapping[str, Any] | None = None
    ) -> None:
        """Take a snapshot now and write it in the background.

        Waits for the write before it. A save that fails is reported and the next one tried.

        Args:
            step: steps done; a step that is saved already is not saved again.
            state: tensors and plain values, nested in dicts and lists.
            parts: what the manifest is to say of files that stand in the draft already, by name.

        Raises:
            OSError: if ``MAX_FAILED_SAVES`` saves in a row failed.
        """
        if step == self.last_step:
            return
        self.wait(is_final=False)
        taken = snapshot(state)
        self.last_step = step
        self._thread = threading.Thread(
            target=self._write_and_note, args=(step, taken, parts or {}), name="checkpoint"
        )
        self._thread.start()

    def wait(self, *, is_final: bool = True) -> None:
        """Wait until the write under way is durable.

        Args:
            is_final: nothing will be saved after this, so a failure is an error at once.

        Raises:
            OSError: if the save failed and there is no other to come.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is None:
            return
        error, self._error = self._error, None
        self.last_step = None
        self._num_failed += 1
        if is_final or self._num_failed >= MAX_FAILED_SAVES or not isinstance(error, OSError):
            raise error
        _log.error(
            "checkpoint could not be saved (%s); earlier ones are whole; trying again at the next",
            error,
        )

    def close(self) -> None:
        """Let a write under way end, whatever becomes of it."""
        if self._thread is not None:
            self._thread.join()

    def _write_and_note(self, step: int, state: dict[str, Any], parts: Mapping[str, Any]) -> None:
        try:
            self._write(step, state, parts)
            self._num_failed = 0
        except BaseException as error:
            self._error = error

    def _write(self, step: int, state: dict[str, Any], parts: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder_of(step)
        temporary = self._draft_of(step)
        if not parts:
            shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(exist_ok=bool(parts))
            # Through memory: torch's writer hides the system's error when a disk is full.
            buffer = io.BytesIO()
            torch.save(state, buffer)
            content = buffer.getbuffer()
            with published(temporary / STATE_NAME) as file:
                file.write(content)
            entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            files = {STATE_NAME: entry, **parts}
            manifest = {"step": step, "files": files, "sha256": _digest(files)}
            publish_bytes(temporary / MANIFEST_NAME, json.dumps(manifest, indent=1).encode())
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self._folder)
        publish_bytes(self._folder / POINTER_NAME, target.name.encode())
        steps = self._steps()
        within_reach = max((old for old in steps if old <= step - self._reach), default=steps[0])
        for old in steps[: -self._keep]:
            if old < within_reach:
                shutil.rmtree(self._folder_of(old))

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left half-written; of a link, the link."""
        for draft in self._folder.glob(".tmp-*"):
            shutil.rmtree(draft, ignore_errors=True)
        for torn in self._folder.glob(".*.tmp"):
            with contextlib.suppress(IsADirectoryError):
                torn.unlink()

    def _check_pointer(self) -> dict[str, str]:
        """Return by its name what ``latest`` names and is not there: nine digits, nothing else."""
        try:
            content = read_own(self._folder / POINTER_NAME, _MAX_POINTER_BYTES).decode()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            return {POINTER_NAME: f"it cannot be read: {error}"}
        name = content.strip()
        if not _STEP_NAME.fullmatch(name):
            return {POINTER_NAME: f"it holds {name[:40]!r}, wanted nine digits"}
        if not (self._folder / name).is_dir():
            return {name: f"{POINTER_NAME} names it, but it is gone"}
        return {}

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        names = (entry.name for entry in self._folder.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if _STEP_NAME.fullmatch(name))

    def _draft_of(self, step: int) -> Path:
        return self._folder / f".tmp-{step:09d}"

    def _folder_of(self, step: int) -> Path:
        return self._folder / f"{step:09d}"


def find_damage(folder: Path, step: int) -> str | None:
    """Return why a checkpoint cannot be used, or None if it is whole.

    Args:
        folder: ``checkpoints/<step>``.
        step: that it is to be of.
    """
    if folder.is_symlink():
        return "it is a symbolic link"
    try:
        files = _read_files(folder)
        if STATE_NAME not in files:
            return f"{MANIFEST_NAME} does not list {STATE_NAME}"
        for name, entry in files.items():
            if Path(name).name != name:
                return f"{MANIFEST_NAME} lists {name[:80]!r}, which is no file of it"
            with open_own(folder / name) as file:
                size = os.fstat(file.fileno()).st_size
                if size != entry["bytes"]:
                    return f"{name} has {size} bytes, {entry['bytes']} were written"
                found = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type] # has readinto
                if found.hexdigest() != entry["sha256"]:
                    return f"{name} does not match its SHA-256"
        return find_foreign(folder / STATE_NAME, step)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error}"
    except InputError as error:
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST_NAME} cannot be read: {error!r}"


def _read_files(folder: Path) -> dict[str, Any]:
    manifest = json.loads(read_own(folder / MANIFEST_NAME, _MAX_MANIFEST_BYTES))
    # Those of earlier versions have none.
    if manifest.get("sha256", digest := _digest(manifest["files"])) != digest:
        raise InputError(f"{MANIFEST_NAME} does not match its own SHA-256")
    return manifest["files"]


def _digest(files: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says of its files: a flipped bit may say other rows."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _set_aside(folder: Path) -> None:
    """Free the name for the step's new checkpoint; keep the damaged one for whoever asks why."""
    aside = folder.with_name(f"{folder.name}.damaged")
    with contextlib.suppress(OSError):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
