"""Noroozi and Favaro 2016: the first jigsaw, on AlexNet."""

from __future__ import annotations

import dataclasses

from ..config import LoaderConfig, OptimConfig, RunConfig, ScheduleConfig
from ..tasks import JigsawConfig
from . import goyal19


def jigsaw() -> RunConfig[JigsawConfig]:
    """Jigsaw as in Noroozi and Favaro 2016, AlexNet without batch norm (70 epochs).

    Command: ``python tools/train.py noroozi16_jigsaw --data.path shards/ --output-dir
    runs/jigsaw``; ``--task.permutations-file permutations_100_max.bin`` takes the authors' own set.
    70 epochs of ImageNet-1k are the original's 350,000 steps of 256 images, the rate falls each
    100,000. Biases learn at the same rate as weights here, at twice that in the original. If the
    loss stays at chance for epochs, ``--trunk alexnet`` (batch norm on the last three convolutions)
    helps. Not yet measured by this project.
    """
    return RunConfig(
        recipe="noroozi16_jigsaw",
        task=JigsawConfig.noroozi(),
        trunk="alexnet_no_bn",
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.01, momentum=0.9, weight_decay=5e-4, decay_bias=False),
        schedule=ScheduleConfig(epochs=70.0, milestones=(20.0, 40.0, 60.0), warmup_epochs=0.0),
    )


def jigsaw_smoke() -> RunConfig[JigsawConfig]:
    """The same path on a CPU in seconds.

    Command: ``python tools/train.py noroozi16_jigsaw_smoke --data.path shards/ --output-dir
    runs/smoke``.
    """
    task = JigsawConfig.noroozi(
        num_permutations=24,
        resize_short=192,
        crop=192,
        patch=56,
        jitter=9,
        hidden=32,
        joint_hidden=64,
    )
    return dataclasses.replace(
        goyal19.jigsaw_smoke(),
        recipe="noroozi16_jigsaw_smoke",
        trunk="alexnet_no_bn",
        task=task,
        optim=jigsaw().optim,
    )
