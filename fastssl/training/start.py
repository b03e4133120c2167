"""The trunk that a run starts with, where it is not a fresh one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..config import RunConfig
from ..errors import InputError
from ..models import Trunk, digest_trunk, is_one_network, load_trunk
from ..models.export import find_trunk_file
from ..models.input_spec import InputSpec
from ..tasks import Task

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """An exported trunk that fits a run."""

    trunk: Trunk
    """On the CPU."""
    digest: str
    """From ``digest_trunk``."""


def read_start(config: RunConfig, outline: Task, given: Trunk | None = None) -> Start | None:
    """Read the trunk that ``trunk_from`` names.

    Args:
        config: of the run.
        outline: the run's task, its weights without memory.
        given: a trunk that somebody has opened already, in its place.

    Returns:
        The trunk, or None where the run starts with fresh weights.

    Raises:
        InputError: if there is none, or not of the run's name, width and input.
    """
    if given is not None:
        return Start(given, digest_trunk(given))
    if config.trunk_from is None:
        return None
    path = find_trunk_file(config.trunk_from, "trunk_from")
    trunk, metadata = load_trunk(path)
    if (trunk.width, True) != (config.width, is_one_network(trunk.name, config.trunk)):
        raise InputError(
            f"trunk_from ({path}) holds trunk '{trunk.name}' of width {trunk.width}, this run has "
            f"'{config.trunk}' of width {config.width}; set --trunk {trunk.name} --width "
            f"{trunk.width}, or give another file"
        )
    takes, gives = InputSpec.from_metadata(metadata), outline.input_spec
    if takes != gives:
        raise InputError(
            f"trunk_from ({path}) holds a trunk whose input is {takes.to_text()}, task "
            f"'{config.task.name}' gives {gives.to_text()}; choose settings of the task that give "
            "the same (--task.normalize where it has it), or give another file"
        )
    step, recipe = (metadata.get(key, "?") for key in ("step", "recipe"))
    _log.info("first weights of the trunk: %s (recipe %s, step %s)", path, recipe, step)
    return Start(trunk, digest_trunk(trunk))
