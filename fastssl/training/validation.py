"""How much a run knows of images that it does not learn from, while it trains or at its end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..batch import Batch
from ..config import LoaderConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..loaders import build_loader
from ..shards import ShardDataset, open_dataset
from ..tasks import Supervised, Task
from ..tasks.downstream import DownstreamTask, Score
from ..views import ViewSpec
from ..world import World
from .measures import Measure, never

_MOST_AT_ONCE = 1024


class DataMeasure(Measure):
    """Measures what was learnt by images of a dataset, each seen once."""

    def __init__(
        self, config: RunConfig, world: World, task: Task, data: LoaderConfig, every_steps: int
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: what learns.
            data: what is measured on.
            every_steps: steps between two measurements.

        Raises:
            InputError: if it cannot be opened.
        """
        super().__init__(every_steps, config.log.every_steps)
        self._world = world
        is_own = data.path == config.data.path  # what is held out of it
        self._dataset = open_dataset(data.path, data.cache if is_own else None)
        size = min(config.data.global_batch_size // config.accumulation, _MOST_AT_ONCE)
        self._data = dataclasses.replace(
            data,
            global_batch_size=max(size // world.size, 1) * world.size,
            targets=task.targets,
            allow_repeat_in_batch=True,  # a pass repeats nothing
        )
        self._answering = task.answering

    @contextlib.contextmanager
    def passing(self, view: ViewSpec) -> Iterator[Iterator[Batch]]:
        """Give this rank's images once, while the task answers as in evaluation.

        Args:
            view: that they are cut by.
        """
        world = self._world
        loader = build_loader(
            self._data, view, world.rank, world.size, str(world.device), dataset=self._dataset
        )
        with contextlib.closing(loader), self._answering(), torch.no_grad():
            yield loader.one_pass()

    def close(self) -> None:
        """Close the dataset."""
        self._dataset.close()

    @contextlib.contextmanager
    def _closing_on_errors(self) -> Iterator[None]:
        """Close the dataset where what follows its opening fails."""
        try:
            yield
        except InputError:
            self.close()
            raise


class Validation(DataMeasure):
    """Tests a supervised task on another dataset, or on what is held out of its own.

    Every labelled image once, cut from its centre.
    """

    def __init__(
        self, config: RunConfig, world: World, task: Supervised, steps_per_epoch: int
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run; its ``validation.path`` names the dataset, else it is what the run
                holds out of its own.
            world: the ranks.
            task: what is tested.
            steps_per_epoch: of the run.

        Raises:
            InputError: if it cannot be opened, or its classes are not those that are learnt.
        """
        every_steps = config.validation.every_steps or steps_per_epoch
        super().__init__(config, world, task, _choose_data(config), every_steps)
        self._task = task
        with self._closing_on_errors():
            self._classes = match_classes(self._dataset, task)

    def measure(self, is_stopping: Callable[[], bool] = never) -> dict[str, float | None]:
        """Return the share of labelled images whose class is found; a collective call."""
        world = self._world
        counts = torch.zeros(2, dtype=torch.int64, device=world.device)
        with self.passing(self._task.validation_view) as batches:
            for batch in batches:
                if is_stopping():
                    break
                assert batch.labels is not None  # the dataset has classes
                labels = self._classes[batch.labels.cpu()].to(world.device)
                counts += self._task.count_right(batch.images[:, 0], labels)
        right, labelled, num_stopping = world.sum(*counts.tolist(), is_stopping())()
        if num_stopping:
            return {}
        return {self._task.tested: right / max(labelled, 1)}


class DownstreamValidation(DataMeasure):
    """Tests a downstream task on pictures that nothing was drawn for."""

    def __init__(
        self,
        config: RunConfig,
        world: World,
        task: DownstreamTask,
        data: LoaderConfig,
        every_steps: int,
        what: str = "validation.path",
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: what learns.
            data: what is tested on.
            every_steps: steps between two tests.
            what: the dataset is, for a message.

        Raises:
            InputError: if it cannot be opened, or does not have what is learnt.
        """
        super().__init__(config, world, task, data, every_steps)
        self._task = task
        self._classes: Tensor | None = None
        with self._closing_on_errors():
            if task.needs_labels:
                self._classes = match_classes(self._dataset, task, what)
            self._task.check_tested(self._dataset, what)

    def measure(self, is_stopping: Callable[[], bool] = never) -> dict[str, float | None]:
        """Return the task's figure; a collective call."""
        score = self.score(is_stopping)
        return {} if score is None else {self._task.tested: score.value}

    def score(self, is_stopping: Callable[[], bool] = never) -> Score | None:
        """Return what is reached now, None where a rank is to stop; a collective call.

        Args:
            is_stopping: asked at each batch.
        """
        world, task = self._world, self._task
        counts = world.together(lambda: self._count(is_stopping))
        (num_stopping,) = world.sum(is_stopping())()
        if num_stopping:
            return None
        return task.summarize(task.join([c for c in world.gather(counts) if c is not None]))

    def _count(self, is_stopping: Callable[[], bool]) -> Tensor | None:
        """Return the counts of this rank's images; None where it has none."""
        counts = []
        with self.passing(self._task.config.test_view) as batches:
            for batch in batches:
                if is_stopping():
                    break
                if self._classes is not None and batch.labels is not None:
                    labels = self._classes[batch.labels.cpu()]
                    batch = dataclasses.replace(batch, labels=labels)
                counts.append(self._task.test(batch))
        return self._task.join(counts) if counts else None


def open_validation(
    config: RunConfig, world: World, task: Task, steps_per_epoch: int
) -> DataMeasure | None:
    """Return what tests a run while it trains; None where there is nothing to test on.

    Args:
        config: of the run.
        world: the ranks.
        task: of the run.
        steps_per_epoch: of the run, rounded up.

    Raises:
        InputError: if the run's task cannot be tested so.
    """
    if config.validation.path != Path() and not isinstance(task, (Supervised, DownstreamTask)):
        raise InputError(
            f"validation.path ({config.validation.path}) is for tasks that learn labels or "
            f"targets, the task is {config.task.name}; leave it out"
        )
    if config.validation.path == Path() and not config.data.hold_out:
        return None
    if isinstance(task, Supervised):
        return Validation(config, world, task, steps_per_epoch)
    if isinstance(task, DownstreamTask):
        every_steps = config.validation.every_steps or steps_per_epoch
        return DownstreamValidation(config, world, task, _choose_data(config), every_steps)
    return None


def _choose_data(config: RunConfig) -> LoaderConfig:
    """Return what a run is tested on: its ``validation.path``, or what it holds out of its own."""
    data = config.data
    part: dict[str, Any] = {"path": data.path, "part": "held_out"}
    if config.validation.path != Path():
        of_data = {"target_files": (), "target_sha256": ()}
        part = {"path": config.validation.path, "max_samples": 0, "hold_out": 0, **of_data}
    loader = data.loader if data.loader in ("native", "webdataset") else "auto"
    return dataclasses.replace(data, loader=loader, nominal_samples=0, **part)


def match_classes(dataset: ShardDataset, task: Task, what: str = "validation.path") -> Tensor:
    """Return the learnt class of every label of a dataset, by name: int64, the last for label -1.

    Args:
        dataset: to test on.
        task: whose ``class_names`` are those of the data that it learns from.
        what: the dataset is, for a message.

    Raises:
        InputError: if none is learnt, or some are not.
    """
    learnt = {name: number for number, name in enumerate(task.class_names)}
    names = dataset.class_names
    unknown = [name for name in names if name not in learnt]
    if unknown or not names:
        some = ", ".join(repr(name) for name in unknown[:5])
        raise InputError(
            f"{what} ({dataset.path}) has "
            + (
                f"{spell_number(len(unknown), 'class', 'classes')} that are not learnt ({some})"
                if names
                else "no classes"
            )
            + f"; wanted classes of the {len(learnt)} of --data.path, by name"
        )
    return torch.tensor([*(learnt[name] for name in names), -1])
