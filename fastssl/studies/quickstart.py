"""The first run: what it takes follows from the photographs that there are, and from the device."""

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

CPU_STEPS, GPU_STEPS = 400, 4000
_CPU_BATCH, _GPU_BATCH = 64, 256
_GPU_WIDTH = 4


def quickstart() -> RunConfig[JigsawConfig]:
    """A first run on your photographs, few or many, that ends on a laptop: jigsaw at 96 px.

    Command: ``fastssl train quickstart --data.path photos/ --output-dir runs/first``. Any dataset
    of 16 samples or more will do. 400 steps of 64 images on a CPU, minutes on two cores; on a GPU
    4,000 steps of 256 with a trunk four times as wide. Fewer photographs are seen more often.
    """
    return RunConfig(
        recipe="quickstart",
        task=JigsawConfig(
            num_permutations=100, resize_short=96, crop=96, patch=24, jitter=8, hidden=128
        ),
        trunk="resnet9",
        width=1,
        # What a camera gives is many times larger than what the puzzle shows.
        data=LoaderConfig(global_batch_size=_CPU_BATCH, dct="scaled"),
        optim=OptimConfig(lr=0.05, lr_batch_size=64, nesterov=True, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=10.0, kind="cosine", warmup_epochs=1.0, warmup_start=0.1),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(every_steps=10, pictures_every_steps=100),
    )


def fit_quickstart(
    config: RunConfig[JigsawConfig], num_samples: int, is_gpu: bool
) -> RunConfig[JigsawConfig]:
    """Fit the length of a first run to its photographs and its device.

    Args:
        config: of ``quickstart``, perhaps with a batch of the user's own.
        num_samples: photographs to be used.
        is_gpu: whether it trains on one.

    Returns:
        The same with a number of epochs that makes the steps, and on a GPU a wider trunk.
    """
    batch, steps = config.data.global_batch_size, GPU_STEPS if is_gpu else CPU_STEPS
    if batch == _CPU_BATCH:
        # At least two batches an epoch, and of a size that some ranks can share.
        most = num_samples // 2 // 8 * 8 or num_samples
        batch = min(_GPU_BATCH if is_gpu else _CPU_BATCH, most)
    epochs = steps * batch / num_samples
    return dataclasses.replace(
        config,
        width=_GPU_WIDTH if is_gpu else config.width,
        data=dataclasses.replace(config.data, global_batch_size=batch),
        schedule=dataclasses.replace(config.schedule, epochs=epochs, warmup_epochs=epochs / 10),
    )


def quickstart_smoke() -> RunConfig[JigsawConfig]:
    """The same path in a few steps; for tests."""
    config = quickstart()
    return dataclasses.replace(
        config,
        recipe="quickstart_smoke",
        max_steps=4,
        data=dataclasses.replace(config.data, global_batch_size=16),
        log=LogConfig(every_steps=2, pictures_every_steps=2),
    )
