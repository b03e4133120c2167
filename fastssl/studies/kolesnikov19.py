"""Kolesnikov et al. 2019: trunks x widths x pretext tasks.

Schedules are those of the study's public configuration: SGD with momentum 0.9, a rate of 0.1 for
256 source images (whatever crops, turns or puzzles are made of them), five epochs of warm-up from
0, weight decay of 1e-4 on kernels alone (5e-4 on those of the head on patches), 35 epochs with the
rate divided by ten after 15 and 25. The paper's own runs are remembered to
have had larger batches: ``PAPER_BATCH``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from ..errors import InputError, nearest
from ..tasks import (
    ExemplarConfig,
    JigsawConfig,
    RelativeLocationConfig,
    RotationConfig,
    SupervisedConfig,
)
from . import goyal19
from . import supervised as supervised_recipes
from .cells import IMAGENET_1K

TRUNKS = (
    "resnet50_v1",
    "resnet50_v2",
    "resnet50_v2_minus",
    "revnet50",
    "revnet50_minus",
    "vgg19_bn",
)
"""The study's networks, as ``build_trunk`` names them."""
WIDTHS = (4, 8, 12, 16)
"""The study's widths; 4 is the standard ResNet, 8 the standard VGG."""

TASKS: dict[str, tuple[Callable[[], Any], int, str, int]] = {
    "rotation": (RotationConfig.kolesnikov, 64, "revnet50", 16),
    "exemplar": (ExemplarConfig.kolesnikov, 64, "resnet50_v1", 12),
    "jigsaw": (JigsawConfig.kolesnikov, 128, "resnet50_v1", 8),
    "relative_location": (RelativeLocationConfig, 128, "resnet50_v1", 8),
    "supervised": (SupervisedConfig.kolesnikov, 256, "resnet50_v2", 4),
}
"""Task -> (its config, source images a step, the public configuration's trunk and width)."""
_PATCH_TASKS = ("jigsaw", "relative_location")
NUM_HELD_OUT = 50_046
"""Training images of ImageNet-1k that the study validates on and shows to no pretext task and no
probe: the last 40 of its 1,024 shards, which leave 1,231,121. Here they are chosen by seed."""
PAPER_BATCH = {"rotation": 1024, "exemplar": 512, "jigsaw": 1024, "relative_location": 1024}
"""Source images a step of the paper's runs, as remembered from its supplement; not verified."""
PAPER_BATCH_WORD = "paperbatch"
"""Word behind a cell's name for the paper's batch."""


def _count_images(task: str) -> int:
    """Return the images of ImageNet-1k that the study trains a task on."""
    return IMAGENET_1K.num_images - (0 if task == "supervised" else NUM_HELD_OUT)


def kolesnikov19(
    task: str, trunk: str = "", width: int = 0, has_paper_batch: bool = False
) -> RunConfig[Any]:
    """Return one cell of the study: a task on a trunk of a width.

    Args:
        task: ``rotation``, ``exemplar``, ``jigsaw``, ``relative_location`` or ``supervised``.
        trunk: one of ``TRUNKS``; tasks on patches take its form with the strides for patches. Empty
            takes the one of the public configuration.
        width: its width factor; 0 takes the one of the public configuration.
        has_paper_batch: with the paper's larger batches (``PAPER_BATCH``) and the rate that
            follows, and 16 puzzles of an image; remembered, not verified.

    Returns:
        The config; its recipe is named ``kolesnikov19_<task>``, and ``_<trunk>_<width>x`` behind it
        where a trunk is given.

    Raises:
        InputError: for a task or trunk that the study does not have, or a batch that is not known.
    """
    for what, given, known in (("task", task, TASKS), ("trunk", trunk or TRUNKS[0], TRUNKS)):
        if given not in known:
            hint = nearest(given, known, lists_all=True)
            raise InputError(f"{what} ('{given}') is not of Kolesnikov et al. 2019{hint}")
    make_config, batch_size, usual_trunk, usual_width = TASKS[task]
    width = width or usual_width
    name = f"kolesnikov19_{task}" + (f"_{trunk}_{width}x" if trunk else "")
    settings = make_config()
    if has_paper_batch and task in PAPER_BATCH:
        batch_size, name = PAPER_BATCH[task], f"{name}_{PAPER_BATCH_WORD}"
        if task == "jigsaw":
            settings = dataclasses.replace(settings, permutations_per_image=16)
    if task == "supervised":
        schedule = ScheduleConfig(epochs=90.0, milestones=(30.0, 60.0, 80.0), warmup_start=0.0)
    else:
        schedule = ScheduleConfig(epochs=35.0, milestones=(15.0, 25.0), warmup_start=0.0)
    return RunConfig(
        recipe=name,
        task=settings,
        trunk=(trunk or usual_trunk) + ("_patch" if task in _PATCH_TASKS else ""),
        width=width,
        data=LoaderConfig(
            global_batch_size=batch_size,
            # Of the named data set the study keeps a validation set of its own, but for the
            # supervised networks, which are trained on all of it.
            hold_out=NUM_HELD_OUT if trunk and task != "supervised" else 0,
            nominal_samples=_count_images(task) if trunk else 0,
        ),
        optim=OptimConfig(
            lr=0.1,
            momentum=0.9,
            weight_decay=1e-4,
            # Of the patch head's kernels the study has its own.
            head_weight_decay=5e-4 if task in _PATCH_TASKS else None,
            decay_bias=False,
            # The code gives RevNet's root no regulariser, ResNet's has one.
            decay_root=not (trunk or usual_trunk).startswith("revnet"),
        ),
        schedule=schedule,
    )


def rotation() -> RunConfig[RotationConfig]:
    """Rotation as in Kolesnikov et al. 2019, RevNet-50 of width 16 (35 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train kolesnikov19_rotation --data.path
    shards/ --output-dir runs/rotation``; ``kolesnikov19_rotation_revnet50_4x`` and so on are the
    study's other cells. Batch 64 of the public configuration, four turns of each; the paper's runs
    are remembered to have had 1024. Expected on ImageNet-1k: linear accuracy 53.7 (width 4: 47.3).
    Not yet measured by this project.
    """
    return kolesnikov19("rotation")


def exemplar() -> RunConfig[ExemplarConfig]:
    """Exemplar as in Kolesnikov et al. 2019, ResNet-50 v1 of width 12 (35 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train kolesnikov19_exemplar --data.path
    shards/ --output-dir runs/exemplar``. Batch 64 of the public configuration, eight crops of each,
    mined 8 images at a time; the paper's runs are remembered to have had 512. Expected on
    ImageNet-1k: linear accuracy 47.7 (width 4: 42.8). Not yet measured by this project.
    """
    return kolesnikov19("exemplar")


def jigsaw() -> RunConfig[JigsawConfig]:
    """Jigsaw as in Kolesnikov et al. 2019, ResNet-50 v1 with patch strides (35 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train kolesnikov19_jigsaw --data.path shards/
    --output-dir runs/jigsaw``; ``--task.permutations-file permutations_100_max.bin`` takes the
    original's set, Noroozi's, which no rule gives again; without it 100 by the greatest minimum
    distance, not the identity. The settings of the public configuration: batch 128 and 8
    permutations an image; the paper's runs are remembered to have had 1024 and 16
    (``--data.global-batch-size 1024 --task.permutations-per-image 16``). Differences
    from the original: ``docs/tasks.md``. Expected on ImageNet-1k: linear accuracy 45.4 (width 8),
    42.2 (width 4). Not yet measured by this project.
    """
    return kolesnikov19("jigsaw")


def relative_location() -> RunConfig[RelativeLocationConfig]:
    """Relative patch location as in Kolesnikov et al. 2019, ResNet-50 v1 (35 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train kolesnikov19_relative_location
    --data.path shards/ --output-dir runs/location``. Batch 128 of the public configuration, eight
    pairs of each; the paper's runs are remembered to have had 1024. Expected on ImageNet-1k: linear
    accuracy 50.5 (width 8), 46.8 (width 4). Not yet measured by this project.
    """
    return kolesnikov19("relative_location")


def supervised() -> RunConfig[SupervisedConfig]:
    """Cross-entropy on labels as in Kolesnikov et al. 2019, ResNet-50 v2 (90 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train kolesnikov19_supervised --data.path
    shards/ --output-dir runs/supervised``. Expected on ImageNet-1k: accuracy 75.8, RevNet-50 74.4,
    VGG19-BN 75.0. Not yet measured by this project.
    """
    return kolesnikov19("supervised")


def rotation_smoke() -> RunConfig[RotationConfig]:
    """Small form for a CPU, long enough to see it learn: ResNet9 on views of 64 px.

    Command: ``fastssl train kolesnikov19_rotation_smoke --data.path shards/ --output-dir
    runs/smoke``. Seen: accuracy of the last 20 of 200 steps (chance 0.25): 0.32 on 4,586
    photographs of Caltech-101, 0.38 on 300 of ImageNet-1k; a minute and a half on one core.
    """
    return _learn_in_seconds(rotation(), size=64)


def exemplar_smoke() -> RunConfig[ExemplarConfig]:
    """Small form for a CPU, long enough to see it learn: ResNet9 on crops of 48 px.

    Command: ``fastssl train kolesnikov19_exemplar_smoke --data.path shards/ --output-dir
    runs/smoke``. Seen: nearest crop of the same image, last 20 of 200 steps (chance 0.11, a fresh
    network 0.7): 0.93 on 4,586 photographs of Caltech-101, 0.94 on 300 of ImageNet-1k; a minute and
    a half on one core.
    """
    return _learn_in_seconds(exemplar(), size=48, embedding=128)


def relative_location_smoke() -> RunConfig[RelativeLocationConfig]:
    """Small form for a CPU, long enough to see it learn: ResNet9 on patches of 32 px.

    Command: ``fastssl train kolesnikov19_relative_location_smoke --data.path shards/
    --output-dir runs/smoke``. Seen: accuracy of the last 20 of 200 steps (chance 0.125): 0.21 on
    4,586 photographs of Caltech-101, 0.20 on 300 of ImageNet-1k; a minute on one core.
    """
    return _learn_in_seconds(
        relative_location(),
        resize_short=146,
        crop=126,
        patch=32,
        jitter=11,
        hidden=128,
        joint_hidden=256,
    )


def jigsaw_smoke() -> RunConfig[JigsawConfig]:
    """Small form for a CPU in seconds: ResNet-50 v1 of width 1 with patch strides.

    Command: ``fastssl train kolesnikov19_jigsaw_smoke --data.path shards/ --output-dir
    runs/smoke``.
    """
    task = JigsawConfig.kolesnikov(
        num_permutations=24,
        resize_short=110,
        crop=96,
        patch=24,
        jitter=9,
        hidden=32,
        joint_hidden=64,
    )
    return dataclasses.replace(
        goyal19.jigsaw_smoke(),
        recipe="kolesnikov19_jigsaw_smoke",
        trunk="resnet50_v1_patch",
        task=task,
        optim=jigsaw().optim,
    )


def supervised_smoke() -> RunConfig[SupervisedConfig]:
    """Small form for a CPU in seconds: ResNet-50 v2 of width 1 on views of 32 px.

    Command: ``fastssl train kolesnikov19_supervised_smoke --data.path shards/ --output-dir
    runs/smoke``; the dataset needs 16 samples or more of two classes or more.
    """
    config = supervised()
    return dataclasses.replace(
        supervised_recipes.supervised_smoke(),
        recipe="kolesnikov19_supervised_smoke",
        trunk=config.trunk,
        task=dataclasses.replace(config.task, size=32),
        optim=config.optim,
    )


def _learn_in_seconds(config: RunConfig[Any], **changes: Any) -> RunConfig[Any]:
    """Shrink a recipe to what learns on one CPU thread in a minute or two.

    Args:
        config: the recipe; the form of its task stays.
        changes: fields of the task.
    """
    return dataclasses.replace(
        config,
        recipe=f"{config.recipe}_smoke",
        task=dataclasses.replace(config.task, **changes),
        trunk="resnet9",
        width=1,
        max_steps=200,
        data=LoaderConfig(global_batch_size=16),
        optim=dataclasses.replace(config.optim, lr=0.02, lr_batch_size=0, decay_root=True),
        schedule=ScheduleConfig(epochs=1000.0, milestones=(), warmup_epochs=0.0),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(every_steps=20, pictures_every_steps=100),
    )
