"""The trunk that a run leaves behind, and what its file says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import RunConfig
from ..models import save_trunk
from ..models.export import TRUNK_NAME
from ..models.input_spec import INPUT_KEY
from ..tasks import Task


def export_trunk(config: RunConfig, identity: Mapping[str, Any], task: Task, step: int) -> Path:
    """Write a run's trunk into its directory.

    Args:
        config: of the run.
        identity: what it was trained on and began with, from ``fastssl.config.identity``.
        task: whose trunk it is.
        step: steps done.

    Returns:
        The file.
    """
    metadata = {
        "recipe": config.recipe,
        "task": config.task.name,
        "step": str(step),
        "samples": str(step * config.data.global_batch_size),
        "dataset_digest": identity["dataset_digest"],
        "fastssl": __version__,
        INPUT_KEY: task.input_spec.to_text(),
    }
    if config.data.max_samples:
        metadata["max_samples"] = str(config.data.max_samples)
    for beginning in ("trunk_from", "continue_from"):
        if identity[beginning] is not None:
            metadata[beginning] = identity[beginning]
    path = config.output_dir / TRUNK_NAME
    save_trunk(task.trunk, path, metadata)
    return path
