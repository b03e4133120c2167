"""The trunk that a detector begins with, its batch norms ready to be fixed.

A trunk that never learnt has running statistics of mean 0 and variance 1, by which fixed norms
would be none at all: the numbers grow from unit to unit until the loss is no number. It is given
the statistics of pictures that are learnt from, first. Nothing else of it changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from typing import Any

import torch
from torch import nn

from ..config import RunConfig
from ..loaders import build_loader
from ..models import Trunk, build_trunk, load_trunk, save_trunk
from ..models.input_spec import INPUT_KEY
from ..randomness import step_seed
from ..tasks.detection import DetectionConfig
from ..tasks.detection_views import find_places, make_images
from .subject import Subject

_log = logging.getLogger(__name__)

START_NAME = "start.safetensors"
"""The trunk as a detector's run began with it, in the run directory."""
_PICTURES = 64
_AT_ONCE = 4


def open_start(subject: Subject, run: RunConfig[Any], from_scratch: bool) -> Trunk:
    """Return the trunk that a run begins with; the same one when it goes on.

    Args:
        subject: the trunk; from scratch its outline.
        run: with its data and directory.
        from_scratch: whether it has fresh weights by the run's seed.
    """
    path = run.output_dir / START_NAME
    if path.exists():
        return load_trunk(path)[0]
    trunk = subject.trunk
    if from_scratch:
        torch.manual_seed(step_seed(run.seed, 0, 0))
        trunk = build_trunk(trunk.name, trunk.width)
    if not has_fresh_norms(trunk):
        return trunk
    _log.info(
        "the trunk's batch norms have seen nothing: they take the statistics of %d pictures",
        _PICTURES,
    )
    measure_norms(trunk, run)
    save_trunk(trunk, path, {INPUT_KEY: run.task.input, "recipe": run.recipe})
    return trunk


def has_fresh_norms(trunk: Trunk) -> bool:
    """Tell whether a trunk has batch norms, all with the statistics that they are built with."""
    norms = [part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    return bool(norms) and all(
        bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
        for norm in norms
        if norm.running_mean is not None and norm.running_var is not None
    )


@torch.no_grad()
def measure_norms(trunk: Trunk, run: RunConfig[Any]) -> None:
    """Give batch norms the mean statistics of the first pictures of a run's data, in place.

    The same on every rank, whatever their number.

    Args:
        trunk: on the CPU.
        run: with its data.
    """
    task: DetectionConfig = run.task
    norms = [part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    momentums = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    data = dataclasses.replace(run.data, global_batch_size=_AT_ONCE, allow_repeat_in_batch=True)
    trunk.train()
    with contextlib.closing(build_loader(data, task.test_view)) as loader:
        for batch in itertools.islice(loader.one_pass(), _PICTURES // _AT_ONCE):
            places = find_places(batch, task.test_view)
            trunk.forward(make_images(batch.images[:, 0], places, task.input_spec))
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum
