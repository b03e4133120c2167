"""How much a supervised run knows of images that it does not learn from, while it trains.

Shape legend: B images, S side of the view.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from ..errors import InputError
from ..loaders import build_loader
from ..shards import ShardDataset, open_dataset
from ..tasks import Supervised, Task
from ..world import World
from .measures import Measure, never


class Validation(Measure):
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
        super().__init__(config.validation.every_steps or steps_per_epoch, config.log.every_steps)
        self._world = world
        self._task = task
        data = config.data
        part: dict[str, Any] = {"path": data.path, "part": "held_out"}
        if config.validation.path != Path():
            part = {"path": config.validation.path, "max_samples": 0, "hold_out": 0}
        self._dataset = open_dataset(part["path"])
        size = min(data.global_batch_size // config.accumulation, 1024)
        self._data = dataclasses.replace(
            data,
            loader=data.loader if data.loader in ("native", "webdataset") else "auto",
            global_batch_size=max(size // world.size, 1) * world.size,
            nominal_samples=0,
            targets=(),
            allow_repeat_in_batch=True,  # a pass repeats nothing
            **part,
        )
        try:
            self._classes = match_classes(self._dataset, task)
        except InputError:
            self.close()
            raise

    def measure(self, is_stopping: Callable[[], bool] = never) -> dict[str, float | None]:
        """Return the share of labelled images whose class is found; a collective call."""
        world = self._world
        loader = build_loader(
            self._data,
            self._task.validation_view,
            world.rank,
            world.size,
            str(world.device),
            dataset=self._dataset,
        )
        counts = torch.zeros(2, dtype=torch.int64, device=world.device)
        with contextlib.closing(loader), self._task.answering(), torch.no_grad():
            for batch in loader.one_pass():
                if is_stopping():
                    break
                assert batch.labels is not None  # the dataset has classes
                labels = self._classes[batch.labels.cpu()].to(world.device)
                counts += self._task.count_right(batch.images[:, 0], labels)
        right, labelled, num_stopping = world.sum(*counts.tolist(), is_stopping())()
        if num_stopping:
            return {}
        return {"validation_accuracy": right / max(labelled, 1)}

    def close(self) -> None:
        """Close the dataset."""
        self._dataset.close()


def open_validation(
    config: RunConfig, world: World, task: Task, steps_per_epoch: int
) -> Validation | None:
    """Return what tests a supervised run while it trains; None where there is nothing to test on.

    Args:
        config: of the run.
        world: the ranks.
        task: of the run.
        steps_per_epoch: of the run, rounded up.

    Raises:
        InputError: if the run's task cannot be tested so.
    """
    if config.validation.path != Path() and not isinstance(task, Supervised):
        raise InputError(
            f"validation.path ({config.validation.path}) is for supervised runs, the task is "
            f"{config.task.name}; leave it out"
        )
    has_some = config.validation.path != Path() or config.data.hold_out
    if not (has_some and isinstance(task, Supervised)):
        return None
    return Validation(config, world, task, steps_per_epoch)


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
            + (f"{len(unknown)} classes that are not learnt ({some})" if names else "no classes")
            + f"; wanted classes of the {len(learnt)} of --data.path, by name"
        )
    return torch.tensor([*(learnt[name] for name in names), -1])
