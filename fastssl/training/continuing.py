"""Training on: a run that begins with the whole state of another, under a schedule of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..errors import InputError, nearest_beside
from ..runs.directory import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    PICTURES_NAME,
    read_identity,
)
from ..runs.identity import list_differences, may_change_when_continued
from ..system.files import publish_bytes, read_own
from .checkpoint import STATE_NAME, CheckpointStore, find_damage
from .shown import MAX_SHOWN_BYTES


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run begins with."""

    folder: Path
    """The other run's directory."""
    step: int
    """Steps that it had done."""
    name: str
    """What of it is part of the new run's identity: which run, at which step, in which state."""

    @property
    def store(self) -> CheckpointStore:
        """The other run's checkpoints; nothing is saved there."""
        return CheckpointStore(self.folder / CHECKPOINTS_NAME, keep=2)

    def copy_pictures(self, folder: Path) -> None:
        """Have a run show the images that the other showed.

        Args:
            folder: its directory.
        """
        if (self.folder / PICTURES_NAME).exists():
            content = read_own(self.folder / PICTURES_NAME, MAX_SHOWN_BYTES)
            publish_bytes(folder / PICTURES_NAME, content)


def find_origin(config: RunConfig) -> Origin | None:
    """Find the state that ``continue_from`` names; nothing of that run is changed.

    A run that has begun keeps to the state that it began with, whatever became of the other.

    Args:
        config: of the run.

    Returns:
        The newest whole checkpoint; None where the run begins by itself.

    Raises:
        InputError: if there is none.
    """
    source = config.continue_from
    if source is None:
        return None
    began = _read_beginning(config.output_dir)
    if began is not None and not (source / CONFIG_NAME).is_file():
        return Origin(source, 0, began)
    run = _digest_run(source)
    if began is not None and began.startswith(run):
        return Origin(source, 0, began)
    checkpoints = sorted((source / CHECKPOINTS_NAME).glob("[0-9]" * 9), reverse=True)
    whole = next((int(p.name) for p in checkpoints if find_damage(p, int(p.name)) is None), None)
    if whole is None:
        raise InputError(
            f"continue_from ({source}) has no whole checkpoint to begin with; give a run that has "
            "saved one"
        )
    found = Origin(source, whole, run)
    state = found.store.read_files(whole)[1][STATE_NAME]["sha256"]
    return replace(found, name=f"{run} at step {whole}, state {state[:16]}")


def check_origin(
    origin: Origin, old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]
) -> None:
    """Refuse what cannot change in the middle of training.

    Args:
        origin: what the run begins with.
        old: identity of the other run.
        new: identity of this one.
        defaults: from ``fastssl.config.list_defaults``.

    Raises:
        InputError: names field, old and new value.
    """
    different = list_differences(old, new, defaults)
    wrong = [text for name, text in different.items() if not may_change_when_continued(name)]
    if wrong:
        raise InputError(
            f"continue_from ({origin.folder}) is a run that only its schedule and learning rate "
            f"may be changed of; different: {', '.join(wrong)}; give the old values"
        )


def check_length(origin: Origin, epochs: float, total_steps: int) -> None:
    """Refuse a schedule that is at its end where the run would begin.

    Raises:
        InputError: says what the schedule counts from.
    """
    if total_steps <= origin.step:
        raise InputError(
            f"schedule.epochs ({epochs:g}) ends at step {total_steps}, continue_from "
            f"({origin.folder}) has done {origin.step}; set --schedule.epochs to what both runs "
            "are to have together"
        )


def _read_beginning(folder: Path) -> str | None:
    """Return what a run that has checkpoints of its own began with, if it was another's state."""
    has_own = any((folder / CHECKPOINTS_NAME).glob("[0-9]" * 9))
    identity = read_identity(folder) if has_own else None
    return None if identity is None else identity.get("continue_from")


def _digest_run(folder: Path) -> str:
    """Return a name of a run that follows from what makes it itself."""
    identity = read_identity(folder)
    if identity is None:
        what = f"holds no {CONFIG_NAME}" if folder.is_dir() else "is not there"
        hint = "" if folder.is_dir() else nearest_beside(folder, only_folders=True)
        raise InputError(f"continue_from ({folder}) {what}, wanted a run directory{hint}")
    text = json.dumps(identity, sort_keys=True)
    return f"run {hashlib.sha256(text.encode()).hexdigest()[:16]}"
