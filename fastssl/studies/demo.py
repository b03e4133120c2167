"""What ``make demo`` trains: small enough for two CPU cores."""

from __future__ import annotations

import dataclasses

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from ..tasks import JigsawConfig


def demo() -> RunConfig[JigsawConfig]:
    """Jigsaw at 96 px with ResNet9, for the synthetic set or any photographs on a CPU.

    Command: ``make demo``, or ``fastssl train demo --data.path shards/ --output-dir
    runs/demo``. Minutes on two CPU cores.
    """
    return RunConfig(
        recipe="demo",
        task=JigsawConfig(
            num_permutations=100,
            resize_short=96,
            crop=96,
            patch=24,
            jitter=8,
            hidden=128,
        ),
        trunk="resnet9",
        width=1,
        data=LoaderConfig(global_batch_size=64),
        optim=OptimConfig(lr=0.05, lr_batch_size=64, nesterov=True, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=10.0, kind="cosine", warmup_epochs=1.0, warmup_start=0.1),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(every_steps=10, pictures_every_steps=100),
    )


def demo_smoke() -> RunConfig[JigsawConfig]:
    """The demo's path in a few steps; for tests."""
    config = demo()
    return dataclasses.replace(
        config,
        recipe="demo_smoke",
        max_steps=4,
        data=dataclasses.replace(config.data, global_batch_size=16),
        log=LogConfig(every_steps=2, pictures_every_steps=2),
    )
