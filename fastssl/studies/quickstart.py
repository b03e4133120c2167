"""The first run: what it takes follows from the photographs that there are, and from the device."""

from __future__ import annotations

import dataclasses

from ..config import RunConfig
from ..tasks import JigsawConfig
from .demo import demo, demo_smoke

CPU_STEPS, GPU_STEPS = 400, 4000
_GPU_BATCH = 256
_GPU_WIDTH = 4


def quickstart() -> RunConfig[JigsawConfig]:
    """A first run on your photographs, few or many, that ends on a laptop: jigsaw at 96 px.

    Command: ``fastssl train quickstart --data.path photos/ --output-dir runs/first``. Any dataset
    of 16 samples or more will do. 400 steps of 64 images on a CPU, minutes on two cores; on a GPU
    4,000 steps of 256 with a trunk four times as wide. Fewer photographs are seen more often.
    """
    config = demo()
    # What a camera gives is many times larger than what the puzzle shows.
    data = dataclasses.replace(config.data, dct="scaled")
    return dataclasses.replace(config, recipe="quickstart", data=data)


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
    if batch == quickstart().data.global_batch_size:
        # At least two batches an epoch, and of a size that some ranks can share.
        most = num_samples // 2 // 8 * 8 or num_samples
        batch = min(_GPU_BATCH if is_gpu else batch, most)
    epochs = steps * batch / num_samples
    return dataclasses.replace(
        config,
        width=_GPU_WIDTH if is_gpu else config.width,
        data=dataclasses.replace(config.data, global_batch_size=batch),
        schedule=dataclasses.replace(config.schedule, epochs=epochs, warmup_epochs=epochs / 10),
    )


def quickstart_smoke() -> RunConfig[JigsawConfig]:
    """The same path in a few steps; for tests."""
    config = demo_smoke()
    data = dataclasses.replace(config.data, dct="scaled")
    return dataclasses.replace(config, recipe="quickstart_smoke", data=data)
