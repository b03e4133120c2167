"""Run a bad step again from its capsule: a loss that leapt, or was not finite."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..address import parse_place
from ..config import RunConfig
from ..errors import InputError
from ..fields import Checked, fill
from ..runs.directory import CONFIG_NAME, MAX_JSON_BYTES
from ..studies import build_recipe
from ..system.files import read_own
from .frame import parse_arguments, show_log


@dataclass(frozen=True)
class ReplayStep(Checked):
    """Run a bad step again, and say whether it came out the same, to the last bit."""

    capsule: tyro.conf.Positional[Path]
    """Folder in spikes/ or nonfinite/ of a run."""
    data_path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = Path()
    """The dataset, where it has moved; without it where the run had it."""


def main(arguments: Sequence[str]) -> None:
    """Run it again, on all ranks."""
    is_zero = os.environ.get("RANK", "0") == "0"
    show_log(logging.WARNING if is_zero else logging.ERROR)
    command = parse_arguments(ReplayStep, arguments)
    from ..shards import open_dataset
    from ..training.capsule import read_capsule
    from ..training.rerun import run_again

    capsule = read_capsule(command.capsule)
    config = read_config(command.capsule / CONFIG_NAME)
    if command.data_path != Path():
        path = parse_place(command.data_path)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))
    with contextlib.closing(open_dataset(config.data.path)) as dataset:
        if dataset.digest != capsule.dataset_digest:
            raise InputError(
                f"{command.capsule} is of the dataset {capsule.dataset_digest[:16]}, "
                f"{dataset.path} is {dataset.digest[:16]}; name the run's own by --data-path"
            )
    said = run_again(command.capsule, capsule, config)
    if is_zero:
        print(said)


def read_config(path: Path) -> RunConfig[Any]:
    """Return the run that a ``config.json`` is of.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        settings = json.loads(read_own(path, MAX_JSON_BYTES))["config"]
        config = build_recipe(settings["recipe"])
        filled = fill(config, settings)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error!r}); restore it") from None
    assert isinstance(filled, RunConfig)
    return filled
