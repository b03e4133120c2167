"""The run directory: one run at a time, its identity, its logs, and how it ended."""

from __future__ import annotations

import contextlib
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..address import parse_place
from ..config import LoaderName
from ..counts import spell_number
from ..errors import InputError
from ..shards.manifest import read_manifest
from ..system.files import (
    check_own_folder,
    locked,
    make_folder,
    naming_file,
    open_own,
    publish_bytes,
    read_own,
)
from .identity import list_differences, may_change_when_continued
from .lines import find_cut

CONFIG_NAME = "config.json"
LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
BAD_SAMPLES_NAME = "bad_samples.jsonl"
EXIT_NAME = "exit.json"
REFUSED_NAME = "refused.json"
TENSORBOARD_NAME = "tensorboard"
PICTURES_NAME = "pictures.safetensors"
CHECKPOINTS_NAME = "checkpoints"
NONFINITE_NAME = "nonfinite"
SPIKES_NAME = "spikes"
HANG_NAME = "hang"
MAX_JSON_BYTES = 1 << 24
"""A larger config or ending is none of ours."""
LOCK_PATIENCE_S = 10.0
_DIGEST = "dataset_digest"
_LINES = re.compile(
    rf"{re.escape(METRICS_NAME)}|{re.escape(BAD_SAMPLES_NAME)}|ledger\.rank\d+\.jsonl"
)


def ledger_name(rank: int) -> str:
    """Return the name of a rank's ledger."""
    return f"ledger.rank{rank}.jsonl"


@contextlib.contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Make a run directory and keep a second run out of it for as long as the block lasts.

    Args:
        folder: the run directory.

    Raises:
        InputError: if another run holds it for longer than ten seconds, or it is a dataset's.
    """
    if (folder / "manifest.json").exists():  # a run's own stand in its checkpoints' folders
        raise InputError(
            f"--output-dir ({folder}) is the folder of a dataset or a checkpoint; a run needs a "
            "directory of its own; choose another"
        )
    make_folder(folder, "--output-dir")
    busy = (
        f"--output-dir ({folder}) is in use by another run; wait for it, stop it, or choose "
        "another directory"
    )
    with locked(folder / LOCK_NAME, busy, LOCK_PATIENCE_S):
        yield


def check_entries(folder: Path) -> None:
    """See that what a run changes in its directory lies there: no links, no files for folders.

    Args:
        folder: the run directory.

    Raises:
        InputError: names what is something else.
    """
    for name in (CHECKPOINTS_NAME, TENSORBOARD_NAME, NONFINITE_NAME, SPIKES_NAME, HANG_NAME):
        check_own_folder(folder / name)
    for path in folder.iterdir():
        if _LINES.fullmatch(path.name):
            open_own(path, "r+b").close()
        elif path.name in (CONFIG_NAME, PICTURES_NAME):
            open_own(path).close()


def check_identity(folder: Path, identity: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Compare a run with the one that the directory holds.

    Args:
        folder: the run directory.
        identity: from ``fastssl.config.identity``.
        defaults: from ``fastssl.config.list_defaults``.

    Raises:
        InputError: if the directory holds another run; lists field, old and new value.
    """
    old = read_identity(folder)
    if old is not None:
        compare_identities(folder, old, identity, defaults)


def read_identity(folder: Path) -> dict[str, Any] | None:
    """Return what makes a run itself, or None where none has begun.

    Args:
        folder: the run directory.

    Raises:
        InputError: if it cannot be read.
    """
    path = folder / CONFIG_NAME
    if not path.exists():
        return None
    try:
        return dict(json.loads(read_own(path, MAX_JSON_BYTES))["identity"])
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({error!r}); restore it, or choose another --output-dir"
        ) from None


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
    different = list_differences(old, new, defaults)
    if _DIGEST in different:
        others = {name: text for name, text in different.items() if not _follows_data(name)}
        different = {_DIGEST: _describe_dataset(folder, old.get(_DIGEST)), **others}
    if different:
        remedy = "give the old values back, or choose another --output-dir"
        if all(map(may_change_when_continued, different)):
            remedy += (
                "; to train on with the new ones from where this run stands: --output-dir "
                f"ANOTHER --continue-from {folder}"
            )
        raise InputError(
            f"--output-dir ({folder}) holds another run; different: "
            f"{', '.join(different.values())}; {remedy}"
        )


def _follows_data(name: str) -> bool:
    """Return whether a recipe may have chosen a field's value by the dataset."""
    return name in (_DIGEST, "data.global_batch_size") or name.startswith("schedule.")


def _describe_dataset(folder: Path, digest: str | None) -> str:
    """Say with which dataset a run began, as far as it is known."""
    try:
        given = json.loads(read_own(folder / CONFIG_NAME, MAX_JSON_BYTES))["config"]["data.path"]
        place = parse_place(given)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another dataset"
    known = f"was {given}"
    if isinstance(place, Path):
        with contextlib.suppress(InputError, OSError):
            found = read_manifest(place)
            is_same = found.digest == digest
            known += (
                f", {spell_number(found.num_samples, 'sample')}"
                if is_same
                else ", which has changed since"
            )
    return f"another dataset ({known})"


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
        content = read_own(folder / CONFIG_NAME, MAX_JSON_BYTES)
        name = json.loads(content)["chosen_loader"]["name"]
        return name if name in typing.get_args(LoaderName) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # what is wrong with the file is for check_identity to say


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people, whole or not at all."""
    publish_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def cut_logs(folder: Path, step: int) -> None:
    """Cut metrics, ledgers and the list of bad samples to what a checkpoint has seen.

    Args:
        folder: the run directory.
        step: of the checkpoint; later lines, and a torn last one, go.

    Raises:
        InputError: if one of them is a link or no regular file; then none is cut.
    """
    with contextlib.ExitStack() as opened:
        files = {
            path: opened.enter_context(open_own(path, "r+b"))
            for path in sorted(folder.iterdir())
            if _LINES.fullmatch(path.name)
        }
        for path, file in files.items():
            with naming_file(path):
                file.truncate(find_cut(file, step))
