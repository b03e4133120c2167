"""What downstream tasks and detectors share: the run of a trunk that learns, and its score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import RunConfig
from ..errors import InputError
from ..system.files import check_own_folder, publish_bytes
from .evaluate import find_home
from .setting import Divided
from .subject import Subject, open_fresh, open_subject

_SCORE_NAME = "score.json"


def open_learner(config: Any, folder_name: str, usual_scale: str = "imagenet") -> Subject:
    """Return the trunk that learns; from scratch its outline, with nothing of the checkpoint's.

    Args:
        config: the options; has ``from_scratch`` beside those of trunks.
        folder_name: of the folder beside a trunk that holds such runs.
        usual_scale: what a trunk from scratch takes, if nobody says.

    Raises:
        InputError: if there is no such trunk, or its folder is a link.
    """
    if config.from_scratch:
        return open_fresh(config.checkpoint, config.trunk, config.width, config.scale, usual_scale)
    subject = open_subject(config.checkpoint, config.trunk, config.width, config.scale)
    check_own_folder(find_home(config.checkpoint, subject) / folder_name)
    return subject


def check_batch(run: RunConfig[Any], world_size: int) -> None:
    """Refuse a batch that ranks cannot share; the protocol's is never changed in silence.

    Args:
        run: how it is trained.
        world_size: number of ranks.

    Raises:
        InputError: offers the nearest that they can.
    """
    batch, parts = run.data.global_batch_size, world_size * run.accumulation
    if batch % parts:
        lower = batch // parts * parts
        sizes = " or ".join(str(size) for size in (lower, lower + parts) if size)
        raise InputError(
            f"global_batch_size ({batch}) must be a multiple of ranks x accumulation ({world_size} "
            f"x {run.accumulation}); set --global-batch-size to {sizes}"
        )


def hash_rows(rows: NDArray[np.int64]) -> str:
    """Return what stands for ids of samples."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def find_folder(
    config: Any,
    subject: Subject,
    name: str,
    depends_on: tuple[Sequence[str], Divided, RunConfig[Any], Sequence[Any]],
    free: Sequence[str],
) -> Path:
    """Return the run directory, named by all that the result depends on.

    Args:
        config: the options.
        subject: the trunk.
        name: of the folder that holds such runs, and how the run's own begins.
        depends_on: digests of the datasets, ids of their samples, how it is trained, and more.
        free: fields of the run that the result does not depend on.
    """
    if config.output_dir is not None:
        return config.output_dir
    digests, divided, run, more = depends_on
    fields = {**dataclasses.asdict(run), **dict.fromkeys(free)}
    del fields["checks"]  # they change no result, and folders of before have no word of them
    rows = [hash_rows(side) for side in (divided.train_rows, divided.test_rows)]
    content = [digests, rows, subject.digest, fields, *more]
    digest = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
    home = Path() if config.json is None else config.json.parent
    if config.checkpoint != Path():
        home = find_home(config.checkpoint, subject)
    return home / f"{name}-{digest[:12]}"


def write_score(folder: Path, content: dict[str, Any], tested: str) -> None:
    """Write down what a run reached at its end.

    Args:
        folder: its directory.
        content: the figures.
        tested: name of the images, and of what else the figures depend on.
    """
    text = json.dumps({**content, "tested": tested}, indent=1)
    publish_bytes(folder / _SCORE_NAME, text.encode() + b"\n")


def read_score(folder: Path, tested: str) -> dict[str, Any]:
    """Return what a run that has ended reached.

    Args:
        folder: its directory.
        tested: as it was written.

    Raises:
        InputError: if it was not tested, or on other images.
    """
    path = folder / _SCORE_NAME
    if not path.exists():
        raise InputError(f"{path} does not exist; start the command again, which goes on")
    content: dict[str, Any] = json.loads(path.read_text())
    if content.pop("tested") != tested:
        raise InputError(
            f"output_dir ({folder}) holds a run that was tested on other images; choose another "
            "--output-dir"
        )
    return content


def check_score(folder: Path, tested: str) -> None:
    """Refuse a run that is done and was tested on other images: it would keep their score."""
    if (folder / _SCORE_NAME).exists():
        read_score(folder, tested)
