"""What it takes to run a bad step again: a folder that is a run stopped before it.

``capsule.json`` says which step and what came of it, ``config.json`` is the run's, and
``checkpoints/`` holds the newest checkpoint before the step, as hard links where that can be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from ..batch import Batch
from ..errors import InputError
from ..loaders import Loader
from ..runs.directory import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    MAX_JSON_BYTES,
    NONFINITE_NAME,
    SPIKES_NAME,
    write_json,
)
from ..system.files import read_own
from ..world import World
from .checkpoint import CheckpointStore

CAPSULE_NAME = "capsule.json"
_FOLDERS = {"spike": SPIKES_NAME, "nonfinite": NONFINITE_NAME}
VERSION = 1


@dataclass(frozen=True)
class Capsule:
    """A bad step."""

    kind: str
    """spike or nonfinite."""
    step: int
    loss: float | None
    """Over all ranks; None if it was not finite."""
    checkpoint: int
    """Step of the checkpoint that stands in it; 0 for none, the run's beginning."""
    dataset_digest: str
    num_ranks: int
    sample_ids: list[list[int]]
    """Of each rank."""
    batch_sha256: list[str]
    """Of each rank; see ``hash_batch``."""
    version: int = VERSION
    """Of the format."""


def hash_batch(batch: Batch) -> str:
    """Return the SHA-256 of what a batch holds: pixels, ids, epochs and boxes.

    Args:
        batch: of this rank.
    """
    digest = hashlib.sha256()
    for part in (batch.images, batch.sample_ids, batch.epochs, batch.boxes):
        if part is not None:
            digest.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def keep_capsule(
    run: Path,
    loader: Loader,
    store: CheckpointStore,
    world: World,
    kind: str,
    step: int,
    loss: float | None,
) -> Batch:
    """Keep what it takes to run a step again; a collective call.

    Args:
        run: the run directory; capsules of a kind stand in a folder of their own.
        loader: of the run.
        store: of the run.
        world: the ranks.
        kind: spike or nonfinite.
        step: from 1.
        loss: of the step, over all ranks; None if it was not finite.

    Returns:
        The batch of this rank at the step, read again.
    """
    place = run / _FOLDERS[kind] / f"{step:09d}"
    position = (step - 1) * loader.config.global_batch_size
    batch = world.together(lambda: loader.read_step(position))
    ids = world.gather(batch.sample_ids.tolist())
    hashes = world.gather(hash_batch(batch))

    def write() -> None:
        store.wait(is_final=False)
        before = store.newest_before(step)
        # What a life that was lost left there may be of another checkpoint.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copyfile(run / CONFIG_NAME, place / CONFIG_NAME)
        if before:
            _link(store.path_of(before).parent, place / CHECKPOINTS_NAME / f"{before:09d}")
        digest = loader.dataset.digest
        capsule = Capsule(kind, step, loss, before, digest, world.size, ids, hashes)
        write_json(place / CAPSULE_NAME, dataclasses.asdict(capsule))

    world.on_zero(write)
    return batch


def copy_run(place: Path, target: Path, capsule: Capsule) -> None:
    """Make a run directory of a capsule, for its steps to be taken again.

    Args:
        place: the capsule's folder.
        target: an empty folder.
        capsule: what stands there.
    """
    shutil.copyfile(place / CONFIG_NAME, target / CONFIG_NAME)
    if capsule.checkpoint:
        name = f"{capsule.checkpoint:09d}"
        source = place / CHECKPOINTS_NAME / name
        if not source.is_dir():
            raise InputError(f"{place} lacks its checkpoint {name}; restore it")
        _link(source, target / CHECKPOINTS_NAME / name)
        (target / CHECKPOINTS_NAME / "latest").write_text(name)


def _link(source: Path, target: Path) -> None:
    """Give a folder's files a second place."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target / path.name)


def read_capsule(place: Path) -> Capsule:
    """Read what a capsule says.

    Args:
        place: its folder.

    Raises:
        InputError: if it is none, is damaged, or is of another version.
    """
    path = place / CAPSULE_NAME
    remedy = "name a folder in spikes/ or nonfinite/ of a run"
    if not path.is_file():
        raise InputError(f"CAPSULE ({place}) has no {CAPSULE_NAME}; {remedy}")
    try:
        content = json.loads(read_own(path, MAX_JSON_BYTES))
        version = content["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}); restore it, or {remedy}") from None
    if version != VERSION:
        raise InputError(
            f"{path} is of version {str(version)[:20]}, this program reads {VERSION}; take the "
            "program that wrote it"
        )
    kinds = {"kind": str, "step": int, "checkpoint": int, "dataset_digest": str, "num_ranks": int}
    kinds |= {"sample_ids": list, "batch_sha256": list}
    names = {field.name for field in dataclasses.fields(Capsule)}
    wrong = sorted(names ^ content.keys())
    wrong += [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if not isinstance(content.get("loss"), float | None):
        wrong.append("loss")
    if wrong or not 0 <= content["checkpoint"] < content["step"] < 1 << 40:
        what = ", ".join(map(str, dict.fromkeys(wrong))) or "step"
        raise InputError(f"{path} is damaged ({what[:80]}); restore it, or {remedy}")
    return Capsule(**content)
