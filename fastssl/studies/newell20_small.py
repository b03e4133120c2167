"""Newell and Deng 2020 in a form that two CPU cores finish: the same questions, small everywhere.

Two variants, the four methods and scratch, two downstream tasks, four label counts: a narrow
ResNet9 at 32 px. What stands here is the list of runs; ``fastssl study newell20-small`` renders,
runs and reports.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import Checked, Count, Range
from ..runs.sweep import Trial
from ..synthetic import RenderConfig
from .newell20 import METHODS

TRUNK, WIDTH, SIZE_PX = "resnet9", 1, 32
TASKS = ("finetune", "pose")
"""Downstream: the class, and the pose, which needs a hard viewpoint."""
SCRATCH = "scratch"
UNTRAINED = "untrained"
_BATCH = 64
_TRAIN_BUCKETS, _BUCKETS = 10, 12


@dataclass(frozen=True)
class Newell20Small(Checked):
    """Pretrain, fine-tune and compare: the third study in small."""

    variants: tuple[str, ...] = ("0010", "1111")
    """Sets to render, hard factors TCVL; the viewpoint must be hard, for the pose."""
    methods: tuple[str, ...] = ("vae", "rotation", "cmc", "amdim")
    """Pretext tasks of the study."""
    images: Annotated[int, Range(120, 10_000_000)] = 12_000
    """Images of a variant: 10/12 are trained on, 1/12 tested."""
    label_counts: Annotated[tuple[int, ...], Range(1, 10_000_000)] = (100, 400, 1600, 6400)
    """Labels of a downstream training, ascending."""
    seeds: Annotated[int, Range(1, 1000)] = 3
    """Seeds of every downstream training; pretraining has one."""
    pretrain_steps: Count = 1500
    """Steps of pretraining, 64 images each."""
    steps: Count = 200
    """Steps of a downstream training, 64 images each, the same from scratch and pretrained."""

    def check(self) -> None:
        """Refuse what has no pose, methods that are none, and more labels than images."""
        for variant in self.variants:
            RenderConfig(variant=variant)
            if len(variant) != 4 or variant[2] != "1":
                raise InputError(
                    f"variants ('{variant}') must be four digits TCVL with V at 1, as 0010: with a "
                    "fixed viewpoint all poses are one"
                )
        for method in self.methods:
            if method not in METHODS:
                hint = nearest(method, METHODS, lists_all=True)
                raise InputError(f"methods ('{method}') is not of Newell and Deng 2020{hint}")
        counts, most = self.label_counts, self.images * _TRAIN_BUCKETS // _BUCKETS
        if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1:
            raise InputError(f"label_counts ({counts}) must ascend from 1 on, such as 100 400 1600")
        if counts[-1] > most:
            raise InputError(
                f"label_counts ({counts[-1]:,}) must not exceed the {spell_number(most, 'image')} "
                f"that are trained on of {self.images:,}; render more (--images) or take fewer "
                "labels"
            )

    def list_trials(self, data: Mapping[str, tuple[Path, Path]]) -> list[Trial]:
        """Return all runs, pretraining first.

        Args:
            data: folders of the datasets to train and to test on, by variant.
        """
        trials = []
        for variant, method in itertools.product(self.variants, (UNTRAINED, *self.methods)):
            trials += [
                self._pretrain(variant, method, data[variant][0]),
                self._probe(variant, method, data[variant]),
            ]
        # Few labels first: what was stopped has whole curves of the first counts.
        trials += [
            self._learn(task, variant, start, count, seed, data[variant])
            for count in self.label_counts
            for variant in self.variants
            for task in TASKS
            for start in (SCRATCH, *self.methods)
            for seed in range(self.seeds)
        ]
        return trials

    def _pretrain(self, variant: str, method: str, train: Path) -> Trial:
        num_train = self.images * _TRAIN_BUCKETS // _BUCKETS
        recipe = "rotation" if method == UNTRAINED else method
        words = ["train", f"newell20_{recipe}_smoke", "--data.path", str(train)]
        words += ["--data.global-batch-size", str(_BATCH), "--precision", "bf16"]
        words += ["--max-steps", str(0 if method == UNTRAINED else self.pretrain_steps)]
        words += ["--schedule.epochs", f"{self.pretrain_steps * _BATCH / num_train:.6g}"]
        words += ["--checkpoint.every-steps", "500", "--log.pictures-every-steps", "500"]
        return Trial(f"pretrain-{variant}-{method}", tuple(words))

    def _probe(self, variant: str, method: str, data: tuple[Path, Path]) -> Trial:
        """Fit a linear classifier to the frozen trunk, by all labels."""
        words = ["evaluate", "logistic", "--checkpoint", f"{{run:pretrain-{variant}-{method}}}"]
        words += [*_on(data), "--view-size", str(SIZE_PX)]
        return Trial(f"logistic-{variant}-{method}", tuple(words))

    def _learn(
        self, task: str, variant: str, start: str, count: int, seed: int, data: tuple[Path, Path]
    ) -> Trial:
        words = ["evaluate", task, "--protocol", "newell20", *_on(data)]
        words += ["--view-size", str(SIZE_PX), "--precision", "bf16"]
        words += ["--num-labels", str(count), "--seed", str(seed)]
        words += ["--max-steps", str(self.steps), "--global-batch-size", str(_BATCH)]
        if start == SCRATCH:
            words += ["--from-scratch", "true", "--trunk", TRUNK, "--width", str(WIDTH)]
        else:
            words += ["--checkpoint", f"{{run:pretrain-{variant}-{start}}}"]
        return Trial(f"{task}-{variant}-{start}-n{count}-s{seed}", tuple(words))


def _on(data: tuple[Path, Path]) -> list[str]:
    return ["--data.path", str(data[0]), "--data.test-path", str(data[1])]
