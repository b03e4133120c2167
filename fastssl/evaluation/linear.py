"""Classifiers by SGD on all end points of a frozen trunk, linear or MLP, as the studies train them.

Shape legend: E end points, Q classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import (
    LoaderConfig,
    LogConfig,
    OptimConfig,
    Precision,
    RunConfig,
    ScheduleConfig,
)
from ..errors import InputError
from ..fields import Documented
from ..models import Trunk
from ..models.input_spec import InputSpec
from ..system.files import publish_bytes
from ..tasks import Task
from ..tasks.linear import LinearConfig, LinearHeads
from ..training import train
from ..training.measures import NEVER, never
from ..training.validation import DataMeasure, match_classes
from ..world import World
from .accuracy import Accuracy, summarize_ranks
from .protocols import ProtocolName, choose_pooling

HEADS_NAME = "heads.json"
"""What the heads reached on the test data, in their run's directory."""


@dataclass(frozen=True)
class Course(Documented):
    """How heads are trained, where a protocol says it."""

    task: LinearConfig
    """Views and heads."""
    optim: OptimConfig
    """The optimiser."""
    schedule: ScheduleConfig
    """The learning rate."""


def choose_course(
    task: Literal["linear", "mlp"],
    protocol: ProtocolName,
    trunk: Trunk,
    spec: InputSpec,
    grid: int = 1,
    epochs: float = 0.0,
    size: int = 0,
    end_points: Sequence[str] = (),
) -> Course:
    """Return how a study trains classifiers on a trunk.

    ``goyal19``: the sheet of its authors' code (28 epochs of ImageNet, drops at 8, 16 and 24; for
    another length in proportion: 14 of Places205 drop at 4, 8 and 12) without its colour jitter and
    lighting, as VISSL has it; a trunk is taken for AlexNet, CaffeNet or a ResNet by its name, for
    their colour forms by its input. ``kolesnikov19``: drops 40 and 20 epochs before the end (70,
    160, 520 epochs); the MLP's are at a third and two. ``own``: the course of ``goyal19`` at
    ten times its rate, of the other for the MLP, on maps that are averaged as a whole.

    Args:
        task: ``linear``, or ``mlp`` of 1000 hidden units, which Kolesnikov et al. 2019 have.
        protocol: whose.
        trunk: that is classified by.
        spec: what it takes.
        grid: patches a side that an image is cut into, for trunks of single patches.
        epochs: length; 0 is the study's: 28, 520, and 180 of the MLP.
        size: side of the view in pixels; 0 is the study's.
        end_points: of the trunk; () are all.

    Raises:
        InputError: for an MLP by the rules of Goyal et al. 2019, who have none.
    """
    if task == "mlp" and protocol == "goyal19":
        raise InputError("protocol (goyal19) has no task mlp; set --protocol kolesnikov19")
    if task == "mlp":
        course = _follow_kolesnikov19_mlp(epochs or 180.0)
    elif protocol == "kolesnikov19":
        course = _follow_kolesnikov19(epochs or 520.0)
    else:
        course = _follow_goyal19(trunk, spec, epochs or 28.0)
        if protocol == "own":
            # A tenth or less of the study's features: on 64 of them 400 steps at its rate came to
            # 8.9 % of Caltech's classes, at this one to 15.9 %.
            course = dataclasses.replace(course, optim=dataclasses.replace(course.optim, lr=0.1))
    own: dict[str, Any] = {
        "input": spec.to_text(),
        "end_points": tuple(end_points),
        "grid": grid,
        "pooling": choose_pooling(protocol),
    }
    if grid > 1:  # Kolesnikov et al. 2019: 192 of 224 pixels, nine patches of 64
        own |= {"size": grid * 64, "resize": round(grid * 64 * 7 / 6), "flip_probability": 0.0}
    if size:
        own |= {"size": size, "resize": round(size * (7 / 6 if grid > 1 else 8 / 7))}
    return dataclasses.replace(course, task=dataclasses.replace(course.task, **own))


def _follow_goyal19(trunk: Trunk, spec: InputSpec, epochs: float) -> Course:
    name, is_color = trunk.name, spec.kind == "lightness"
    is_caffenet = name.startswith("caffenet")
    is_alexnet = is_caffenet or name.startswith("alexnet")
    has_slow_norm = is_alexnet and not is_color
    view: Any = "resize_crop" if is_color else "random_resized_crop"
    if has_slow_norm:
        view = "squash" if is_caffenet else "center"
    task = LinearConfig(
        view=view,
        size=227 if is_alexnet else 224,
        norm="affine" if is_color and not is_alexnet else "plain",
        norm_momentum=0.001 if has_slow_norm else 0.1,
    )
    optim = OptimConfig(
        lr=0.01, nesterov=not has_slow_norm, weight_decay=5e-4 if is_alexnet else 1e-4
    )
    milestones = tuple(epochs * part / 28 for part in (8, 16, 24))
    return Course(task, optim, _drop_at(epochs, milestones))


def _follow_kolesnikov19(epochs: float) -> Course:
    task = LinearConfig(
        pooling="kolesnikov19",
        view="resize_crop",
        filter="area",
        flip_probability=0.0,
        norm="none",
        init="glorot",
    )
    optim = OptimConfig(lr=0.1, weight_decay=0.0)
    tail = min(40.0, epochs * 4 / 7)
    return Course(task, optim, _drop_at(epochs, (epochs - tail, epochs - tail / 2)))


def _follow_kolesnikov19_mlp(epochs: float) -> Course:
    course = _follow_kolesnikov19(epochs)
    return Course(
        dataclasses.replace(course.task, name="mlp", hidden=1000),
        OptimConfig(lr=0.01, lr_batch_size=512, weight_decay=0.0),
        _drop_at(epochs, (epochs / 3, 2 * epochs / 3)),
    )


def _drop_at(epochs: float, milestones: tuple[float, ...]) -> ScheduleConfig:
    return ScheduleConfig(epochs=epochs, milestones=milestones, gamma=0.1, warmup_epochs=0.0)


def train_heads(
    trunk: Trunk,
    course: Course,
    train_data: LoaderConfig,
    test_data: LoaderConfig,
    output_dir: Path,
    *,
    seed: int = 0,
    precision: Precision = "fp32",
    accumulation: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    max_steps: int | None = None,
    log: LogConfig | None = None,
) -> dict[str, Accuracy]:
    """Train classifiers on the end points of a frozen trunk and test them, on all ranks.

    It is a run like any other: it goes on where it was stopped, and leaves metrics, curves and
    checkpoints in its directory.

    Args:
        trunk: of ours or another library; its weights stay, its place and its mode change.
        course: from ``choose_course``.
        train_data: what is learnt from, such as ``part="remaining"`` of a dataset.
        test_data: what is tested on, such as ``part="held_out"`` of the same one, or another one
            whose classes have the same names.
        output_dir: of the run.
        seed: of everything drawn.
        precision: number format of the forward and backward pass; tests are in fp32.
        accumulation: micro-batches a step on each rank.
        device: where it trains.
        max_steps: stop after so many and test; None is the whole course.
        log: what is written; None is the usual.

    Returns:
        Scores by end point, in the trunk's order.

    Raises:
        InputError: for anything the user can cause, before the first step.
        StoppedBySignal: after a signal, with everything saved.
        RunFailed: as ``train``.
    """
    config = RunConfig(
        recipe=course.task.name,
        task=course.task,
        output_dir=output_dir,
        trunk=trunk.name,
        width=trunk.width,
        seed=seed,
        frozen_stages=len(trunk.stages()),
        max_steps=max_steps,
        accumulation=accumulation,
        precision=precision,
        device=device,
        data=train_data,
        optim=course.optim,
        schedule=course.schedule,
        log=log or LogConfig(pictures_every_steps=0),
    )

    def open_test(config: RunConfig, world: World, task: Task) -> HeadTest:
        assert isinstance(task, LinearHeads)
        return HeadTest(config, world, task, test_data)

    train(config, open_probe=open_test, trunk=trunk)
    return read_scores(output_dir)


def read_scores(folder: Path) -> dict[str, Accuracy]:
    """Return what the heads of a run that has ended reached, by end point.

    Args:
        folder: its directory.

    Raises:
        InputError: if they were not tested.
    """
    path = folder / HEADS_NAME
    if not path.exists():
        raise InputError(f"{path} does not exist; start the command again, which goes on")
    content = json.loads(path.read_text())
    return {name: _read_score(score) for name, score in content.items()}


def _read_score(score: dict[str, Any]) -> Accuracy:
    per_class = {int(label): share for label, share in score["per_class"].items()}
    return Accuracy(**{**score, "per_class": per_class})


class HeadTest(DataMeasure):
    """Tests the heads, on images cut from their centre."""

    def __init__(
        self, config: RunConfig, world: World, task: LinearHeads, data: LoaderConfig
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: the heads.
            data: what is tested on.

        Raises:
            InputError: if it cannot be opened, or its classes are not those that are learnt.
        """
        super().__init__(config, world, task, data, NEVER)
        self._folder = config.output_dir
        self._task = task
        with self._closing_on_errors():
            self._classes = match_classes(self._dataset, task, "the test data")

    def measure(
        self,
        is_stopping: Callable[[], bool] = never,  # noqa: ARG002 - the run would be at its end
    ) -> dict[str, float | None]:
        """Test, write the scores down, and return top-1 by end point; a collective call."""
        world, task = self._world, self._task
        everyone = world.gather(world.together(self._rank))
        ranks, truths = (torch.cat(parts) for parts in zip(*everyone, strict=True))
        scores = {
            name: summarize_ranks(ranks[:, number], truths, task.num_classes)
            for number, name in enumerate(task.end_points)
        }
        world.on_zero(lambda: _write_scores(self._folder, scores))
        return {f"test_accuracy_{name}": score.top1 for name, score in scores.items()}

    def _rank(self) -> tuple[Tensor, Tensor]:
        """Return the place of their own class, (B, E), and the class of this rank's images."""
        world, task = self._world, self._task
        ranks = [torch.empty(0, len(task.end_points), dtype=torch.int64)]
        truths = [torch.empty(0, dtype=torch.int64)]
        with self.passing(task.config.test_view) as batches:
            for batch in batches:
                assert batch.labels is not None  # the dataset has classes
                labels = self._classes[batch.labels.cpu()]
                found = task.rank_classes(batch.images, labels.clamp(min=0).to(world.device))
                ranks.append(found.cpu()[labels >= 0])
                truths.append(labels[labels >= 0])
        return torch.cat(ranks), torch.cat(truths)


def _write_scores(folder: Path, scores: Mapping[str, Accuracy]) -> None:
    content = {name: dataclasses.asdict(score) for name, score in scores.items()}
    publish_bytes(folder / HEADS_NAME, json.dumps(content, indent=1).encode() + b"\n")
