"""How downstream tasks are trained: the study's views, rounds and rates, or those of photographs.

Everything here is the same for a pretrained trunk and for one from scratch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import LoaderConfig, LogConfig, OptimConfig, RunConfig, ScheduleConfig
from ..errors import InputError
from ..tasks import (
    ClassificationConfig,
    DepthConfig,
    PhotographClassificationConfig,
    PoseConfig,
    SegmentationConfig,
)
from ..tasks.depth import check_depth
from ..tasks.pose import check_poses
from ..tasks.segmentation import check_segmentation
from .downstream_options import DownstreamEvaluation
from .subject import Subject

_SHOWN_STEPS = 1000
"""A shorter run draws no pictures unless it is asked for: they would take longer than it."""
_PEAK_LR, _FINAL_LR, _WEIGHT_DECAY = 1e-3, 1e-6, 1e-4
_WARMUP_SHARE = 5 / 200
"""Of the length: five rounds of 200."""
_OWN_EPOCHS, _OWN_STEPS = 20, 1000
"""Length of ``own``: so many epochs, and more of few images."""


@dataclass(frozen=True)
class Kind:
    """What a task is to an evaluation."""

    config: type
    """Of the task on the trainer, in the study's form."""
    size: int
    """Side of the study's pictures in pixels."""
    check_target: Callable[..., None] | None = None
    """Refuses a target that cannot be learnt, of (dataset, samples, own options); None where the
    label is learnt."""
    own_options: tuple[str, ...] = ()
    """Options that are fields of the task's config."""
    is_dense: bool = False
    """Whether every place of a map is answered."""


KINDS = {
    "finetune": Kind(ClassificationConfig, 64),
    "pose": Kind(PoseConfig, 64, check_poses),
    "segmentation": Kind(
        SegmentationConfig, 128, check_segmentation, ("num_classes",), is_dense=True
    ),
    "depth": Kind(DepthConfig, 128, check_depth, is_dense=True),
}
"""By the names of evaluations."""


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    epochs: float
    """Passes over ``epoch_samples`` samples."""
    epoch_samples: int
    """Samples of a pass; 0 are those that are learnt from."""


def count_round(num_labels: int, is_dense: bool = False) -> int:
    """Return the samples of a round of Newell and Deng 2020, which repeats few labels.

    10,000 or a little more; from 4,000 labels on 20,000 or more; at most 50,000, or 10,000 of dense
    tasks.

    Args:
        num_labels: that are learnt from.
        is_dense: whether it is of segmentation or depth.
    """
    most = 10_000 if is_dense else 50_000
    least = 10_000 if is_dense or num_labels < 4_000 else 20_000
    return min(-(-least // num_labels) * num_labels, max(most, least))


def count_rounds(num_labels: int, trunk: str, is_dense: bool = False) -> int:
    """Return the rounds of a training of Newell and Deng 2020.

    Args:
        num_labels: that are learnt from.
        trunk: the network's name.
        is_dense: whether it is of segmentation or depth.
    """
    if num_labels < 20_000:
        return 200
    return 600 if trunk.startswith("resnet9") and not is_dense else 800


def plan_run(
    task: str, config: DownstreamEvaluation, subject: Subject, num_labels: int
) -> RunConfig[Any]:
    """Return the run but for its data, whose ids are written when it starts.

    Args:
        task: a name in ``KINDS``.
        config: its options.
        subject: the trunk.
        num_labels: images that are learnt from.

    Raises:
        InputError: if the protocol's views are not what the trunk takes.
    """
    kind, name = KINDS[task], subject.trunk.name
    is_own = config.protocol == "own"
    usual_batch = 64 if kind.is_dense or is_own else 512 if name.startswith("resnet9") else 384
    batch = config.global_batch_size or usual_batch
    if config.max_steps:
        length = Length(config.max_steps, batch)
    elif config.epochs:
        length = Length(config.epochs, num_labels)
    elif is_own:
        length = Length(max(_OWN_EPOCHS, _OWN_STEPS * batch / num_labels), num_labels)
    else:
        rounds = count_rounds(num_labels, name, kind.is_dense)
        length = Length(rounds, count_round(num_labels, kind.is_dense))
    return RunConfig(
        recipe=task,
        task=_plan_task(kind, config, subject),
        trunk=name,
        width=subject.trunk.width,
        seed=config.seed,
        frozen_stages=config.frozen_stages,
        accumulation=config.accumulation,
        precision=config.precision,
        device=config.device,
        data=LoaderConfig(global_batch_size=batch),
        optim=_build_optimizer(config.lr or _PEAK_LR),
        schedule=ScheduleConfig(
            epochs=float(length.epochs),
            epoch_samples=length.epoch_samples,
            kind="linear",
            milestones=(),
            warmup_epochs=_WARMUP_SHARE * length.epochs,
            warmup_start=0.0,
            final_share=_FINAL_LR / _PEAK_LR,
        ),
        log=_choose_log(config, length, batch),
    )


def _build_optimizer(lr: float) -> OptimConfig:
    """Return the study's optimiser; the rate is the same whatever the batch."""
    return OptimConfig(
        name="adam",
        lr=lr,
        lr_batch_size=0,
        beta1=0.8,
        beta2=0.999,
        weight_decay=_WEIGHT_DECAY,
        decay_norm=True,
    )


def _choose_log(config: DownstreamEvaluation, length: Length, batch: int) -> LogConfig:
    """Return what is written: of a short run neither pictures nor curves, if nobody asks."""
    num_steps = length.epochs * length.epoch_samples / batch
    is_asked = config.log.pictures_every_steps != LogConfig().pictures_every_steps
    if is_asked or num_steps >= _SHOWN_STEPS:
        return config.log
    return dataclasses.replace(config.log, tensorboard=False, pictures_every_steps=0)


def _plan_task(kind: Kind, config: DownstreamEvaluation, subject: Subject) -> Any:
    spec, trunk = subject.spec, subject.trunk
    own: dict[str, Any] = {"input": spec.to_text(), "head": config.head}
    if config.protocol == "own":
        usual = 227 if trunk.min_side > 224 or trunk.name.startswith("alexnet") else 224
        return PhotographClassificationConfig(size=config.view_size or usual, **own)
    spaces = {"lab": "lab", "scaled": "rgb"}
    if spec.kind not in spaces:
        raise InputError(
            f"protocol newell20 gives Lab or RGB by a mean and a deviation; the trunk takes "
            f"{spec.to_text()}; set --protocol own (finetune), or give another trunk"
        )
    own |= {option: getattr(config, option) for option in kind.own_options}
    return kind.config(size=config.view_size or kind.size, space=spaces[spec.kind], **own)
