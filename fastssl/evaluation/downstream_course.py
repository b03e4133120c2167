"""How downstream tasks are trained: the study's views, rounds and rates, or those of photographs.

Everything here is the same for a pretrained trunk and for one from scratch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import CheckpointConfig, LoaderConfig, LogConfig, RunConfig
from ..errors import InputError
from ..tasks import (
    ClassificationConfig,
    DepthConfig,
    MultilabelConfig,
    NormalsConfig,
    PhotographClassificationConfig,
    PoseConfig,
    SegmentationConfig,
    find_task,
)
from ..tasks.depth import check_depth
from ..tasks.normals import check_normals
from ..tasks.pose import check_poses
from ..tasks.segmentation import check_segmentation
from ..training.courses import (
    Course,
    Wishes,
    follow_goyal19,
    follow_newell20,
    follow_own,
    is_alexnet,
)
from .downstream_options import DownstreamEvaluation
from .normals_start import open_clusters
from .subject import Subject

_SHOWN_STEPS = 1000
"""A shorter run draws no pictures unless it is asked for: they would take longer than it."""


@dataclass(frozen=True)
class Kind:
    """What a task is to an evaluation."""

    config: type
    """Of the task on the trainer, in the study's form."""
    size: int
    """Usual side of pictures in pixels."""
    check_target: Callable[..., None] | None = None
    """Refuses a target that cannot be learnt, of (dataset, samples, own options); None where the
    label is learnt."""
    own_options: tuple[str, ...] = ()
    """Options that are fields of the task's config."""
    is_dense: bool = False
    """Whether every place of a map is answered."""
    is_of_photographs: bool = False
    """Whether the config is one of photographs, whatever the protocol."""
    open_start: Callable[..., Any] | None = None
    """Gives the task what it begins with of its data, of (task, dataset, ids, seed, folder)."""


KINDS = {
    "finetune": Kind(ClassificationConfig, 64),
    "pose": Kind(PoseConfig, 64, check_poses),
    "segmentation": Kind(
        SegmentationConfig, 128, check_segmentation, ("num_classes",), is_dense=True
    ),
    "depth": Kind(DepthConfig, 128, check_depth, is_dense=True),
    "normals": Kind(
        NormalsConfig,
        224,
        check_normals,
        ("num_clusters",),
        is_dense=True,
        is_of_photographs=True,
        open_start=open_clusters,
    ),
}
"""By the names of evaluations."""


def name_metric(task: str) -> str:
    """Return the metric of an evaluation's result.

    Args:
        task: a name in ``KINDS``.
    """
    learner: Any = find_task(KINDS[task].config().name)
    return learner.metric


def plan_run(
    task: str,
    config: DownstreamEvaluation,
    subject: Subject,
    num_labels: int,
    has_several: bool = False,
) -> RunConfig[Any]:
    """Return the run but for its data, whose ids are written when it starts.

    Args:
        task: a name in ``KINDS``.
        config: its options.
        subject: the trunk.
        num_labels: images that are learnt from.
        has_several: whether an image has several labels.

    Raises:
        InputError: if the protocol's views are not what the trunk takes, or its labels not what
            the images have.
    """
    kind, name = KINDS[task], subject.trunk.name
    wishes = Wishes(config.global_batch_size, config.lr, config.epochs, config.max_steps)
    if config.protocol == "own":
        course = follow_own(num_labels, wishes)
    elif config.protocol == "goyal19":
        takes_lightness = subject.spec.kind == "lightness"
        course = follow_goyal19(name, num_labels, takes_lightness, config.from_scratch, wishes)
    else:
        course = follow_newell20(name, num_labels, kind.is_dense, wishes)
    return RunConfig(
        recipe=task,
        task=_plan_task(kind, config, subject, has_several),
        trunk=name,
        width=subject.trunk.width,
        seed=config.seed,
        frozen_stages=config.frozen_stages,
        accumulation=config.accumulation,
        precision=config.precision,
        device=config.device,
        data=LoaderConfig(global_batch_size=course.batch),
        optim=dataclasses.replace(course.optim, head_lr_factor=config.head_lr_factor),
        schedule=course.schedule,
        checkpoint=CheckpointConfig(every_steps=config.checkpoint_every_steps),
        log=_choose_log(config, course),
    )


def _choose_log(config: DownstreamEvaluation, course: Course) -> LogConfig:
    """Return what is written: of a short run neither pictures nor curves, if nobody asks."""
    schedule = course.schedule
    num_steps = schedule.epochs * schedule.epoch_samples / course.batch
    is_asked = config.log.pictures_every_steps != LogConfig().pictures_every_steps
    if is_asked or num_steps >= _SHOWN_STEPS:
        return config.log
    return dataclasses.replace(config.log, tensorboard=False, pictures_every_steps=0)


def _plan_task(
    kind: Kind, config: DownstreamEvaluation, subject: Subject, has_several: bool
) -> Any:
    spec, trunk = subject.spec, subject.trunk
    own: dict[str, Any] = {"input": spec.to_text(), "head": config.head}
    own |= {option: getattr(config, option) for option in kind.own_options}
    if kind.is_of_photographs:
        return kind.config(size=config.view_size or kind.size, **own)
    if config.protocol != "newell20":
        usual = 227 if trunk.min_side > 224 or is_alexnet(trunk.name) else 224
        own["size"] = config.view_size or usual
        if config.protocol == "goyal19":
            own |= _follow_goyal19_views(trunk.name, spec.kind == "lightness", own["size"])
        return (MultilabelConfig if has_several else PhotographClassificationConfig)(**own)
    if has_several:
        raise InputError(
            "protocol newell20 takes images of one label each, and these have several (target "
            "'labels'); set --protocol own or goyal19"
        )
    spaces = {"lab": "lab", "scaled": "rgb"}
    if spec.kind not in spaces:
        raise InputError(
            f"protocol newell20 gives Lab or RGB by a mean and a deviation; the trunk takes "
            f"{spec.to_text()}; set --protocol own (finetune), or give another trunk"
        )
    return kind.config(size=config.view_size or kind.size, space=spaces[spec.kind], **own)


def _follow_goyal19_views(trunk: str, takes_lightness: bool, size: int) -> dict[str, Any]:
    """Return how Goyal et al. 2019 cut the images of VOC07, to learn and to test."""
    if not is_alexnet(trunk):
        return {"min_area": 0.08}
    if takes_lightness:
        return {"view": "resize_crop", "resize": max(256, size), "test_crops": 10}
    return {"min_area": 0.1, "max_area": 0.5, "test_crops": 10}
