"""The contract of a pretext task: what it sees, how it prepares it, what it pays for.

Shape legend: B images, V views.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Documented, Range
from ..models import Trunk
from ..models.input_spec import InputSpec
from ..shards import ShardDataset
from ..views import MAX_SIDE, ViewSpec
from ..world import World
from .divided_table import DividedTable
from .pictures import Picture

Inputs = dict[str, Tensor]

Side = Annotated[int, Range(1, 1024)]
"""Side in pixels of what a trunk sees."""
Resize = Annotated[int, Range(1, MAX_SIDE)]
"""Side in pixels that an image is brought to before something is cut from it."""
Features = Annotated[int, Range(1, 65_536)]
"""Width of a head's layer."""
_ROWS_AT_ONCE = 1 << 16


# TensorBoard shows folders by the alphabet: what is asked first stands first.
_FOLDERS = dict.fromkeys(("task", "train"), "1_learning")


@dataclass(frozen=True)
class Metric(Documented):
    """One number that a run records."""

    name: str
    """Key in a line of metrics.jsonl."""
    unit: str
    """``share`` is 0 .. 1; empty for a number without a unit."""
    meaning: str
    """What it is, in a line."""
    group: str = "task"
    """Folder of its curve in TensorBoard; empty for what is no curve."""

    @property
    def tag(self) -> str:
        """Place of its curve in TensorBoard."""
        folder = _FOLDERS.get(self.group, self.group)
        return f"{folder}/{self.name.removeprefix(f'{self.group}_')}"

    def spell(self, value: float) -> str:
        """Return a value as people read it."""
        return f"{value:.1%}" if self.unit == "share" else f"{value:.2f} {self.unit}".rstrip()

    def of_chance(self) -> Metric:
        """Return what guessing would reach, as a number of its own."""
        return Metric(f"{self.name}_of_chance", self.unit, f"{self.name} of a guess", self.group)


class Drawn:
    """What was drawn for a batch; a task's own is a frozen dataclass of tensors on one device."""

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        return type(self)(
            **{name: t.to(device, non_blocking=True) for name, t in vars(self).items()}
        )


def score_answers(logits_NQ: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Return ``loss`` (mean cross-entropy in float32) and ``accuracy`` of N answers out of Q."""
    logits_NQ = logits_NQ.float()
    accuracy = (logits_NQ.detach().argmax(-1) == labels_N).float().mean()
    return {"loss": functional.cross_entropy(logits_NQ, labels_N), "accuracy": accuracy}


def rank_own(scores_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Return how many classes stand before the own one of each sample: int64 (N,), 0 for the best.

    Args:
        scores_NC: greater for what is more likely.
        labels_N: int64, a class each.
    """
    own_N1 = scores_NC.gather(1, labels_N[:, None])
    is_lower_C = torch.arange(scores_NC.shape[1], device=labels_N.device) < labels_N[:, None]
    return ((scores_NC > own_N1) | ((scores_NC == own_N1) & is_lower_C)).sum(1)


def check_side(field: str, side: int, trunk: Trunk) -> None:
    """Refuse images or patches that a trunk cannot take.

    Args:
        field: of the task's config.
        side: its value in pixels.
        trunk: that sees them.

    Raises:
        InputError: names the smallest side.
    """
    if side < trunk.min_side:
        raise InputError(
            f"task.{field} ({side}) must be at least {trunk.min_side} px for trunk "
            f"'{trunk.name}'; enlarge it, or choose another --trunk"
        )


def check_labelled(dataset: ShardDataset, num_samples: int, task: str) -> None:
    """Refuse a dataset of which no sample has one label, and a run would learn nothing.

    Args:
        dataset: of a run.
        num_samples: samples with ids below this are used.
        task: that learns labels, for a message.

    Raises:
        InputError: says who takes several labels, where the dataset has them.
    """
    labels = dataset.index["label"]
    starts = range(0, num_samples, _ROWS_AT_ONCE)  # of most datasets the first row has one
    if any((labels[s : min(s + _ROWS_AT_ONCE, num_samples)] >= 0).any() for s in starts):
        return
    several = " (several: fastssl evaluate finetune takes those)" * ("labels" in dataset.targets)
    raise InputError(
        f"task ({task}) needs images of one label each, and none of the {num_samples:,} of "
        f"{dataset.path} has one{several}; give a dataset made from one folder a class"
    )


class Task(nn.Module, abc.ABC):
    """A trunk, a head, and the question put to them.

    ``prepare`` draws the question's answer and what else is random from the sample ids, so that it
    is the same on every loader, rank and device; ``forward`` holds everything that learns.
    """

    needs_labels: ClassVar[bool] = False
    """Whether the dataset's labels reach the task, and how many classes they have; a pretext task
    never sees them."""
    targets: tuple[str, ...] = ()
    """The dataset's targets that the task learns from; the trainer has batches carry them."""
    learns_trunk: ClassVar[bool] = True
    """Whether the trunk comes out another than it went in, so that a run exports it at its end."""
    batch_multiple: int = 1
    """Images that belong together: a micro-batch is a multiple of it."""
    metrics: tuple[Metric, ...] = ()
    """What ``forward`` returns beside ``loss``, and what tests of the task give."""
    tested: str = ""
    """The number that says what was reached on images that are not learnt from, where there is a
    test."""
    class_names: Sequence[str] = ()
    """Of the dataset's labels, for the words of pictures; the trainer sets it."""
    read_samples: Callable[[NDArray[np.int64]], Iterable[Batch]] | None = None
    """Reads samples of the run's dataset by their ids, for pictures alone; the trainer sets it."""

    views: tuple[ViewSpec, ...]
    """What to ask of the loader."""
    input_spec: InputSpec
    """What the trunk takes in place of RGB."""
    trunk: Trunk
    """What is kept when the run ends."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile ``forward`` for the sizes that come: those of a run never change.

        Dynamo by itself would take a size for unknown once an earlier network of the process had
        another, and Inductor (torch 2.14) cannot order the strides of channels-last images whose
        height and width it does not know.

        Args:
            args: as ``torch.compile`` takes them.
            kwargs: likewise; ``dynamic`` is false.
        """
        super().compile(*args, **{"dynamic": False, **kwargs})

    def keep_known(self, batch: Batch) -> Batch:
        """Return a batch with no more of what is known of its samples than may reach the task."""
        labels = batch.labels if self.needs_labels else None
        targets = batch.targets if self.needs_labels or self.targets else {}
        return dataclasses.replace(batch, labels=labels, targets=targets)

    def check_batch(self, size: int) -> None:
        """Refuse a micro-batch that the task cannot divide, before the run starts.

        Args:
            size: images of a micro-batch on one rank.

        Raises:
            InputError: names the nearest sizes that it can.
        """
        multiple = self.batch_multiple
        if size % multiple:
            lower = size // multiple * multiple
            sizes = [str(number) for number in (lower, lower + multiple) if number]
            raise InputError(
                f"images of a micro-batch on one rank ({size}) must be a multiple of {multiple}, "
                f"which this task takes together; change --data.global-batch-size (or world size "
                f"or accumulation) so that they are {' or '.join(sizes)}"
            )

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a dataset that the task can learn nothing from, before the run starts.

        Args:
            dataset: of the run.
            num_samples: samples with ids below this are used.

        Raises:
            InputError: says why; most tasks take any images.
        """

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return what a batch of ``num`` black images would carry as targets; most tasks none."""
        return {}

    def count_table_bytes(
        self,
        num_samples: int,  # noqa: ARG002 - for tasks that have tables
        world_size: int,  # noqa: ARG002
    ) -> int:
        """Return what ``open_tables`` will take on a rank, in bytes; the run says it beforehand.

        Args:
            num_samples: samples with ids below this are used.
            world_size: number of ranks.
        """
        return 0

    def open_tables(
        self,
        num_samples: int,  # noqa: ARG002 - for tasks that have tables
        world: World,  # noqa: ARG002
    ) -> dict[str, DividedTable]:
        """Make state that is too large for a buffer, once, before the first step; not collective.

        ``prepare`` reads it, ``forward`` notes what is to change, ``end_step`` changes it. All
        three also run where there is none: a run's step is tried without memory before it starts.

        Args:
            num_samples: samples with ids below this are used.
            world: the ranks.

        Returns:
            The tables by name (a plain word); checkpoints keep them. Most tasks have none.
        """
        return {}

    def end_step(self, is_kept: Tensor) -> None:
        """Do to the tables what the forward passes since the last call have noted, or forget it.

        Args:
            is_kept: bool scalar on the training device; False to forget: the loss was not finite,
                or the pass was no step.
        """

    @abc.abstractmethod
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Turn uint8 views into the network's inputs, without gradient.

        Args:
            batch: from the loader, images on the training device.
            seed: the run's seed.
            dtype: floating type of the network's input.

        Returns:
            Tensors on the training device.
        """

    @abc.abstractmethod
    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return scalars by name: ``loss`` to be minimised, and those of ``metrics``."""

    @abc.abstractmethod
    def chance(self) -> dict[str, float]:
        """Return what guessing would reach, for the names of ``forward``."""

    @abc.abstractmethod
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the first images of a batch: what was asked and what the network answered.

        Args:
            batch: from the loader, images on the training device.
            seed: the run's seed.
            count: pictures wanted.

        Returns:
            Pictures with their words.
        """

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer as in evaluation while the block runs: no dropout, no statistics of the batch."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, was_training in modes:  # a frozen stage stays in evaluation mode
                module.training = was_training
