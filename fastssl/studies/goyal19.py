"""Goyal et al. 2019: scaling jigsaw and colorization along data, capacity and difficulty.

The paper's own pretraining settings were never published. Those of jigsaw are from the same
authors' PyTorch release (VISSL), as far as it has them; of colorization nothing was released but
trunks, the conversion to Lab and bins, and the rest is as for jigsaw. ``goyal19_cells.py`` makes
the study's table of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from ..tasks import ColorizationConfig, JigsawConfig, SupervisedConfig
from .cells import IMAGENET_1K

TEN_EPOCHS = ScheduleConfig(epochs=10.0, milestones=(3.0, 6.0, 9.0), warmup_epochs=0.0)
"""The authors' release has it for YFCC without saying which of the subsets it was for: of 1 million
images it is 39,062 steps, of 100 million 3.9 million."""
EQUAL_SAMPLES = ScheduleConfig(epoch_samples=IMAGENET_1K.num_images)
"""ImageNet-1k's own course by samples seen, 134.5 million, whatever the dataset's size."""

CAFFE_BIASES: dict[str, Any] = {"decay_bias": False, "bias_lr_factor": 2.0}
"""Fields of the optimiser: biases at twice the rate of weights and without decay, as in Caffe's
AlexNets and, by a comment of the authors' code, in the study's jigsaw."""


def jigsaw(
    trunk: str = "resnet50",
    width: int = 4,
    num_permutations: int = 2000,
    schedule: ScheduleConfig | None = None,
    name: str = "goyal19_jigsaw",
) -> RunConfig[JigsawConfig]:
    """Jigsaw as in Goyal et al. 2019, on a set of ImageNet-1k's size (105 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train goyal19_jigsaw --data.path shards/
    --output-dir runs/jigsaw``. Hardware of the original: 8 GPUs. Expected on ImageNet-1k (the same
    authors' zoo): linear top-1 46.7 with 2,000 permutations. Not yet measured by this project.

    Args:
        trunk: trunk.
        width: its width factor.
        num_permutations: difficulty; the study uses 100, 701, 2000, 5000 and 10000.
        schedule: course of the learning rate; None takes the 105 epochs of ImageNet-1k.
        name: of the recipe.
    """
    return RunConfig(
        recipe=name,
        task=JigsawConfig(num_permutations=num_permutations),
        trunk=trunk,
        width=width,
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=schedule or ScheduleConfig(),
    )


def jigsaw_yfcc() -> RunConfig[JigsawConfig]:
    """Jigsaw as in Goyal et al. 2019, with the release's YFCC course (10 epochs, no warm-up).

    Command: as ``goyal19_jigsaw``; ``--data.max-samples 1000000`` and so on take nested subsets.
    Ten epochs of each make length follow size: cells such as
    ``goyal19_jigsaw_resnet50_p2000_yfcc1m`` see as many samples of every subset instead.
    """
    return jigsaw(schedule=TEN_EPOCHS, name="goyal19_jigsaw_yfcc")


def jigsaw_smoke() -> RunConfig[JigsawConfig]:
    """Small form for a CPU in seconds: a narrow trunk, small puzzles, a few steps.

    Command: ``fastssl train goyal19_jigsaw_smoke --data.path shards/ --output-dir
    runs/smoke``. Any dataset of 16 samples or more will do; nothing useful is learnt.
    """
    return RunConfig(
        recipe="goyal19_jigsaw_smoke",
        task=JigsawConfig(
            num_permutations=24, resize_short=96, crop=96, patch=24, jitter=8, hidden=32
        ),
        trunk="resnet50",
        width=1,
        max_steps=8,
        data=LoaderConfig(global_batch_size=16),
        schedule=ScheduleConfig(epochs=100.0),
        checkpoint=CheckpointConfig(every_steps=4),
        log=LogConfig(every_steps=2, pictures_every_steps=4),
    )


def jigsaw_alexnet() -> RunConfig[JigsawConfig]:
    """Jigsaw as in Goyal et al. 2019 with AlexNet: the small end of the study's capacity axis.

    Command: as ``goyal19_jigsaw``. What the study pretrained AlexNet with was never published: the
    puzzle and the schedule are those of its ResNet-50, head and optimiser those of Noroozi and
    Favaro 2016. Expected on ImageNet-1k (the same authors' zoo): linear top-1 34.8. Not yet
    measured by this project.

    The loss first stands at that of an even guess, the longer the more puzzles and the smaller the
    rate, which falls with the batch: ``docs/tasks.md``, "How AlexNet begins to learn", has
    figures. ``--task.permutations-per-image 8`` shortens it, ``--task.head concat`` ends it at
    once; with a batch far below 256, ``--optim.lr-batch-size 0`` keeps the published rate.
    """
    config = jigsaw(trunk="alexnet", name="goyal19_jigsaw_alexnet")
    return dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, head="fully_connected", hidden=1024),
        optim=OptimConfig(lr=0.01, momentum=0.9, weight_decay=5e-4, **CAFFE_BIASES),
    )


def jigsaw_alexnet_smoke() -> RunConfig[JigsawConfig]:
    """Small form for a CPU, long enough to see it learn; AlexNet takes patches of 55 px and more.

    Command: ``fastssl train goyal19_jigsaw_alexnet_smoke --data.path shards/ --output-dir
    runs/smoke``. Half a minute on one core. Seen, of 8 puzzles (chance 0.125), mean accuracy of the
    last 20 of 100 steps: 0.30 on 4,586 photographs of Caltech-101, 0.30 on 300 of ImageNet-1k.
    """
    return learn_in_seconds(jigsaw_alexnet(), "goyal19_jigsaw_alexnet_smoke")


def learn_in_seconds(config: RunConfig[JigsawConfig], name: str) -> RunConfig[JigsawConfig]:
    """Shrink an AlexNet recipe to what learns on a CPU in seconds, its optimiser as it is.

    The learning rate is the recipe's own and not scaled down to the small batch, and there is no
    warm-up; all 8 puzzles are made of every image from one pass of the trunk.

    Args:
        config: the recipe; the form of its puzzle stays.
        name: of the new recipe.
    """
    task = dataclasses.replace(
        config.task,
        num_permutations=8,
        permutations_per_image=8,
        resize_short=192,
        crop=192,
        patch=56,
        jitter=9,
        hidden=256,
        joint_hidden=1024,
    )
    return dataclasses.replace(
        config,
        recipe=name,
        task=task,
        width=1,
        max_steps=100,
        data=LoaderConfig(global_batch_size=16),
        optim=dataclasses.replace(config.optim, lr_batch_size=0),
        schedule=ScheduleConfig(epochs=1000.0, milestones=(), warmup_epochs=0.0),
        checkpoint=CheckpointConfig(every_steps=50),
        log=LogConfig(every_steps=20, pictures_every_steps=50),
    )


def supervised_alexnet() -> RunConfig[SupervisedConfig]:
    """Cross-entropy on labels with CaffeNet, the AlexNet of Goyal et al. 2019 (90 epochs).

    The study downloaded its weights (BVLC). Trunk as in the study's code; views, first weights and
    course are BVLC's: images squashed to 256 px, random crops of 227, means taken off, a rate of
    0.01 that falls each 100,000 of 450,000 steps of 256 images. Published for those weights: linear
    top-1 49.54 on ImageNet-1k. Not yet measured by this project.
    """
    return RunConfig(
        recipe="goyal19_supervised_alexnet",
        task=SupervisedConfig.caffenet(),
        trunk="caffenet",
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.01, momentum=0.9, weight_decay=5e-4, **CAFFE_BIASES),
        schedule=ScheduleConfig(
            epochs=90.0, milestones=(20.0, 40.0, 60.0, 80.0), warmup_epochs=0.0
        ),
    )


def colorization(
    trunk: str = "resnet50_color",
    width: int = 4,
    num_neighbors: int = 10,
    schedule: ScheduleConfig | None = None,
    name: str = "goyal19_colorization",
) -> RunConfig[ColorizationConfig]:
    """Colorization as in Goyal et al. 2019, on a set of ImageNet-1k's size (105 epochs).

    Command: ``torchrun --nproc-per-node 8 -m fastssl train goyal19_colorization --data.path shards/
    --output-dir runs/colorization``. Rare colours count more, as the authors say of the bins and
    priors that their code makes: by numbers that ship with the package, counted in 300 photographs
    of ImageNet-1k; ``--task.prior-file prior.json`` from ``fastssl color-prior`` takes those of
    your own images, ``--task.prior even`` none. Views, trunk, 8-bit Lab, bins and K are the
    study's; batch, rate and schedule those of its jigsaw, for its own were never published, nor the
    head. Hardware of the original: 8 GPUs. Expected on
    ImageNet-1k (the same authors' zoo): linear top-1 40.1. Not yet measured by this project.

    Args:
        trunk: trunk that sees lightness alone.
        width: its width factor.
        num_neighbors: difficulty, 1 to 313; the study takes 10 where it scales data.
        schedule: course of the learning rate; None takes the 105 epochs of ImageNet-1k.
        name: of the recipe.
    """
    return RunConfig(
        recipe=name,
        task=ColorizationConfig(num_neighbors=num_neighbors, eight_bit=True, prior="imagenet"),
        trunk=trunk,
        width=width,
        data=LoaderConfig(global_batch_size=256),
        optim=OptimConfig(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=schedule or ScheduleConfig(),
    )


def colorization_alexnet() -> RunConfig[ColorizationConfig]:
    """Colorization as in Goyal et al. 2019 with AlexNet: the small end of the capacity axis.

    Command: as ``goyal19_colorization``, whose settings it shares; crops are of 224 px, where the
    study's evaluation has 227. Expected on ImageNet-1k (the same authors' zoo): linear top-1 30.4.
    Not yet measured by this project.
    """
    return colorization(trunk="alexnet_color", name="goyal19_colorization_alexnet")


def colorization_smoke() -> RunConfig[ColorizationConfig]:
    """Small form for a CPU, long enough to see it learn: ResNet-50 of width 1, crops of 64 px.

    Command: ``fastssl train goyal19_colorization_smoke --data.path shards/ --output-dir
    runs/smoke``. A minute on one core. Seen, mean error in a and b of steps 501 to 600 (of grey):
    14.5 (14.9) on 4,586 photographs of Caltech-101, 15.6 (16.3) on 300 of ImageNet-1k.
    """
    return _colour_in_seconds(colorization(), resize_short=80, crop=64)


def colorization_alexnet_smoke() -> RunConfig[ColorizationConfig]:
    """Small form for a CPU, long enough to see it learn: AlexNet of width 1, crops of 112 px.

    Command: ``fastssl train goyal19_colorization_alexnet_smoke --data.path shards/
    --output-dir runs/smoke``. Half a minute on one core. Seen, mean error in a and b of steps 501
    to 600 (of grey): 14.4 (14.8) on 4,586 photographs of Caltech-101; of steps 401 to 500 on 300
    of ImageNet-1k 15.8 (16.4).
    """
    return _colour_in_seconds(colorization_alexnet(), resize_short=128, crop=112)


def _colour_in_seconds(
    config: RunConfig[ColorizationConfig], resize_short: int, crop: int
) -> RunConfig[ColorizationConfig]:
    """Shrink a colorization recipe to what learns on one CPU thread in a minute or two.

    All colours count alike: of answers that are rebalanced ``error`` is above that of grey, and in
    so few steps nothing would be seen.

    Args:
        config: the recipe.
        resize_short: short side of the image in pixels.
        crop: side of the crop in pixels.
    """
    task = dataclasses.replace(
        config.task,
        prior="even",
        hidden=32,
        head_stride=8,
        resize_short=resize_short,
        crop=crop,
    )
    return dataclasses.replace(
        config,
        recipe=f"{config.recipe}_smoke",
        task=task,
        width=1,
        max_steps=600,
        data=LoaderConfig(global_batch_size=16),
        optim=dataclasses.replace(config.optim, lr=0.05, lr_batch_size=0),
        schedule=ScheduleConfig(epochs=1000.0, milestones=(), warmup_epochs=0.0),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(every_steps=20, pictures_every_steps=100),
    )
