"""Newell and Deng 2020, downstream: class, pose, segmentation and depth as recipes of the trainer.

The same training as by ``fastssl evaluate``, on all labels of the study's set: from scratch, or
with ``--trunk-from RUN`` and ``--frozen-stages K``; CMC's trunks are ``--trunk resnet9_halves``
and the like. ``--validation.path TEST`` tests it now and then and at the end. Whoever wants a
result of few labels takes ``fastssl evaluate``, which knows the study's course of each count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..config import LoaderConfig, RunConfig, ValidationConfig
from ..errors import InputError, nearest
from ..tasks import ClassificationConfig, DepthConfig, PoseConfig, SegmentationConfig
from ..training.courses import follow_newell20
from .cells import SYNTHETIC, Cell
from .newell20 import FORMS, shrink_course
from .operations import GIGAFLOPS

_TEST_STEPS = 5000
"""Steps between two tests, where there is something to test on."""


@dataclass(frozen=True)
class Downstream:
    """A task of the study and the trunks that learn it."""

    config: Callable[..., Any]
    """Makes the task's config."""
    forms: tuple[str, ...]
    """By the names of ``FORMS``."""
    is_dense: bool = False
    """Whether every place of a map is answered."""


DOWNSTREAM = {
    "classification": Downstream(ClassificationConfig, ("resnet9", "resnet50")),
    "pose": Downstream(PoseConfig, ("resnet9", "resnet50")),
    "segmentation": Downstream(SegmentationConfig, ("resnet50_dense",), is_dense=True),
    "depth": Downstream(DepthConfig, ("resnet50_dense",), is_dense=True),
}
"""By the names of the trainer's tasks."""


def downstream(task: str, form: str) -> RunConfig[Any]:
    """Return a downstream training of the study on all of its labels.

    Args:
        task: one of ``DOWNSTREAM``.
        form: one of its ``forms``.

    Returns:
        The config; its recipe is named ``newell20_<task>_<form>``.

    Raises:
        InputError: for what the study does not have.
    """
    if task not in DOWNSTREAM or form not in DOWNSTREAM[task].forms:
        known = [f"{name} {own}" for name, row in DOWNSTREAM.items() for own in row.forms]
        hint = nearest(f"{task} {form}", known, lists_all=True)
        raise InputError(f"downstream task ('{task} {form}') is not of Newell and Deng 2020{hint}")
    row, images = DOWNSTREAM[task], FORMS[form]
    course = follow_newell20(images.trunk, SYNTHETIC.num_images, row.is_dense)
    return RunConfig(
        recipe=f"newell20_{task}_{form}",
        task=row.config(size=images.size),
        trunk=images.trunk,
        # Few labels fill a batch several times, each copy with an augmentation of its own.
        data=LoaderConfig(global_batch_size=course.batch, allow_repeat_in_batch=True),
        optim=course.optim,
        schedule=course.schedule,
        validation=ValidationConfig(every_steps=_TEST_STEPS),
    )


def list_cells() -> dict[str, Cell]:
    """Return every one by the name of its recipe."""
    return {
        f"newell20_{task}_{form}": Cell(partial(downstream, task, form), SYNTHETIC, gigaflops)
        for task, row in DOWNSTREAM.items()
        for form, gigaflops in zip(row.forms, GIGAFLOPS[f"newell20_{task}"], strict=True)
    }


def classification_smoke() -> RunConfig[ClassificationConfig]:
    """A trial of 200 steps, on labels: tell the class of a picture, 32 px.

    Command: ``fastssl train newell20_classification_smoke --data.path shards/ --output-dir
    runs/smoke``; with ``--trunk-from runs/rotation`` of newell20_rotation_smoke.
    """
    return _shrink("classification", size=32)


def pose_smoke() -> RunConfig[PoseConfig]:
    """A trial of 200 steps, on labels: tell how a rendered object is turned, 32 px.

    Command: ``fastssl train newell20_pose_smoke --data.path shards/ --output-dir runs/smoke``; the
    dataset is of a rendered set with a hard viewpoint.
    """
    return _shrink("pose", size=32)


def segmentation_smoke() -> RunConfig[SegmentationConfig]:
    """A trial of 200 steps, on labels: tell what is at each place of a picture, 64 px.

    Command: ``fastssl train newell20_segmentation_smoke --data.path shards/ --output-dir
    runs/smoke``; the dataset is of a rendered set.
    """
    return _shrink("segmentation", size=64)


def depth_smoke() -> RunConfig[DepthConfig]:
    """A trial of 200 steps, on labels: tell how far each place of a picture is, 64 px.

    Command: ``fastssl train newell20_depth_smoke --data.path shards/ --output-dir runs/smoke``; the
    dataset is of a rendered set.
    """
    return _shrink("depth", size=64)


def _shrink(task: str, size: int) -> RunConfig[Any]:
    config = downstream(task, DOWNSTREAM[task].forms[0])
    small = dataclasses.replace(
        config,
        recipe=f"newell20_{task}_smoke",
        task=dataclasses.replace(config.task, size=size),
        trunk="resnet9",
    )
    return shrink_course(small)
