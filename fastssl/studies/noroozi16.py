"""Noroozi and Favaro 2016: the first jigsaw, on AlexNet."""

from __future__ import annotations

from ..config import LoaderConfig, OptimConfig, RunConfig, ScheduleConfig
from ..tasks import JigsawConfig
from . import goyal19


def jigsaw() -> RunConfig[JigsawConfig]:
    """Jigsaw as in Noroozi and Favaro 2016, AlexNet without batch norm (70 epochs).

    Command: ``fastssl train noroozi16_jigsaw --data.path shards/ --output-dir
    runs/jigsaw``; ``--task.permutations-file permutations_100_max.bin`` takes the authors' own set,
    which no rule gives again; without it 100 by the greatest minimum distance, not the identity. 70
    epochs of ImageNet-1k are the original's 350,000 steps of 256 images, the rate falls each
    100,000. Biases learn at twice the rate of weights and do not decay. Not yet measured by this
    project.

    The loss first stands at that of an even guess, the longer the more puzzles and the smaller the
    rate, which falls with the batch: ``docs/tasks.md``, "How AlexNet begins to learn", has
    figures. ``--task.permutations-per-image 8`` shortens it, ``--task.head concat`` ends it at
    once; with a batch far below 256, ``--optim.lr-batch-size 0`` keeps the published rate.
    """
    return RunConfig(
        recipe="noroozi16_jigsaw",
        task=JigsawConfig.noroozi(),
        trunk="alexnet_no_bn",
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.01, momentum=0.9, weight_decay=5e-4, **goyal19.CAFFE_BIASES),
        schedule=ScheduleConfig(epochs=70.0, milestones=(20.0, 40.0, 60.0), warmup_epochs=0.0),
    )


def jigsaw_smoke() -> RunConfig[JigsawConfig]:
    """Small form for a CPU, long enough to see it learn.

    Command: ``fastssl train noroozi16_jigsaw_smoke --data.path shards/ --output-dir
    runs/smoke``. Half a minute on one core. Seen, of 8 puzzles (chance 0.125), mean accuracy of the
    last 20 of 100 steps: 0.31 on 4,586 photographs of Caltech-101, 0.35 on 300 of ImageNet-1k.
    """
    return goyal19.learn_in_seconds(jigsaw(), "noroozi16_jigsaw_smoke")
