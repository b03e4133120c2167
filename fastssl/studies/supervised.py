"""Supervised baselines of the studies, on the same main path as the pretext tasks."""

from __future__ import annotations

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from ..tasks import SupervisedConfig


def supervised(trunk: str = "resnet50", width: int = 4) -> RunConfig[SupervisedConfig]:
    """Cross-entropy on labels, 90 epochs: the baseline, and the one row that others publish.

    Command: ``torchrun --nproc-per-node 8 -m fastssl train supervised --data.path shards/
    --output-dir runs/supervised --precision bf16``. Settings of He et al. 2016 with the linear
    scaling of Goyal et al. 2017. Not yet measured by this project.

    Args:
        trunk: trunk.
        width: its width factor.
    """
    return RunConfig(
        recipe="supervised",
        task=SupervisedConfig(),
        trunk=trunk,
        width=width,
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=ScheduleConfig(epochs=90.0, milestones=(30.0, 60.0, 80.0), warmup_start=0.1),
    )


def supervised_smoke() -> RunConfig[SupervisedConfig]:
    """Small form for a CPU in seconds.

    Command: ``fastssl train supervised_smoke --data.path shards/ --output-dir runs/smoke``;
    the dataset needs 16 samples or more of two classes or more.
    """
    return RunConfig(
        recipe="supervised_smoke",
        task=SupervisedConfig(size=32),
        trunk="resnet9",
        width=1,
        max_steps=8,
        data=LoaderConfig(global_batch_size=16),
        schedule=ScheduleConfig(epochs=100.0),
        checkpoint=CheckpointConfig(every_steps=4),
        log=LogConfig(every_steps=2, pictures_every_steps=4),
    )
