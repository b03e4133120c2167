"""What the downstream tasks share: views, a head on a trunk that learns with it, and their test.

They are those of Newell and Deng 2020, section 4 of the paper: classification and pose of the whole
picture, segmentation and depth at every place of the trunk's map. The same task and schedule train
a pretrained trunk and one from scratch.

Shape legend: B images, C channels that the trunk takes, S side of a picture, Q classes, N answers.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Documented
from ..models import Trunk
from ..models.downstream_heads import HeadName
from ..models.input_spec import INPUT_KEY, InputSpec, make_inputs
from ..shards import ShardDataset
from ..views import ViewSpec
from .base import Task, check_side, rank_own
from .newell_views import NewellViewsConfig

NOT_COUNTED = -1
"""A label that takes no part in loss and score."""
_KIND_OF_SPACE = {"lab": "lab", "rgb": "scaled"}


@dataclass(frozen=True)
class DownstreamConfig(NewellViewsConfig):
    """The study's augmentation, for any trunk that takes Lab or RGB by a mean and a deviation."""

    input: str = ""
    """What the trunk takes, as its file says it; "" is what space and statistics say."""
    head: HeadName = "linear"
    """One Linear layer; or a hidden one of the features' number with BN and ReLU before it."""

    def check(self) -> None:
        """Refuse colours that the trunk does not take."""
        super().check()
        if self.input_spec.kind != _KIND_OF_SPACE[self.space]:
            raise InputError(
                f"task.space ({self.space}) is not what the trunk takes, {self.input}; the "
                "augmentation of Newell and Deng 2020 knows Lab and RGB by mean and deviation"
            )

    @property
    def input_spec(self) -> InputSpec:
        """What the trunk takes."""
        return (
            InputSpec.from_metadata({INPUT_KEY: self.input}) if self.input else super().input_spec
        )

    @property
    def test_view(self) -> ViewSpec:
        """What to ask of the loader to test on: the same picture, which nothing changes then."""
        return self.list_views()[0]


@dataclass(frozen=True)
class Score(Documented):
    """What a task reached on test data."""

    value: float
    """Of the task's ``metric``: 0 .. 1, but for angles in degrees."""
    per_class: dict[str, float] = field(default_factory=dict)
    """The same by class, for those that there are."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further figures."""


class DownstreamTask(Task):
    """A head on a trunk, both of which learn; tested on pictures that nothing was drawn for."""

    target: ClassVar[str] = ""
    """The dataset's target that is learnt; "" is its label."""
    metric: ClassVar[str]
    """Of its result: ``top1``, ``accuracy``, ``delta_1.25``, ``median_angle``."""

    def __init__(self, config: Any, trunk: Trunk) -> None:
        """Take over config and trunk.

        Args:
            config: has ``size``, ``list_views``, ``test_view`` and ``input_spec``.
            trunk: that learns.

        Raises:
            InputError: if the trunk does not take pictures of this size.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        self.config = config
        self.views = config.list_views()
        self.input_spec = config.input_spec
        self.targets = (self.target,) if self.target else ()
        self.tested = f"test_{self.metric}"
        self.trunk = trunk

    @abc.abstractmethod
    def answer(self, images: Tensor) -> Tensor:
        """Return what the head says of normalised images (B, C, S, S), in float32."""

    @abc.abstractmethod
    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Compare answers with what is known of a batch.

        Args:
            answers: from ``answer``.
            batch: from the loader, with ``config.test_view``.

        Returns:
            A tensor on the CPU that ``join`` joins with those of other batches and ranks.
        """

    def join(self, counts: Sequence[Tensor]) -> Tensor:
        """Return what counts of several batches, in the order of their samples, come to: a sum."""
        return torch.stack([*counts]).sum(0)

    @abc.abstractmethod
    def summarize(self, counts: Tensor) -> Score:
        """Return the score that joined counts come to."""

    @torch.no_grad()
    def test(self, batch: Batch) -> Tensor:
        """Answer a batch as it comes, of several views the mean, and return its ``count``."""
        views = batch.images.unbind(1)
        answers = [self.answer(make_inputs(view, self.input_spec)) for view in views]
        return self.count(torch.stack(answers).mean(0), batch)

    def check_tested(self, dataset: ShardDataset, what: str) -> None:
        """Refuse a dataset that the task cannot be tested on.

        Args:
            dataset: to test on.
            what: it is, for a message.

        Raises:
            InputError: if it does not have what is learnt.
        """
        if self.target:
            check_target(dataset, self.target, self.config.name, what)
        self.check_data(dataset, dataset.num_samples)

    def take_target(self, batch: Batch) -> Tensor:
        """Return what is learnt of a batch, (B, ...) on the CPU."""
        found = batch.targets.get(self.target) if self.target else batch.labels
        if found is None:
            what = f"targets['{self.target}']" if self.target else "labels"
            raise ValueError(f"batch.{what} (None) must be given to task {self.config.name}")
        return found


def check_target(dataset: ShardDataset, name: str, task: str, what: str) -> None:
    """See that a dataset has a target.

    Args:
        dataset: the samples.
        name: of the target.
        task: that learns it, for a message.
        what: the dataset is, for a message.

    Raises:
        InputError: lists the targets that it has.
    """
    if name not in dataset.targets:
        has = ", ".join(dataset.targets) or "none"
        raise InputError(
            f"{what} ({dataset.path}) has no target '{name}', which {task} learns (targets: "
            f"{has}); give one that make-shards made of a rendered set, or with such a target "
            "(docs/shards.md, Targets)"
        )


def score_labels(logits_NQ: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Return ``loss`` (mean cross-entropy) and ``accuracy`` over the labels that count.

    Args:
        logits_NQ: float32.
        labels_N: int64 on the same device, ``NOT_COUNTED`` where there is none.
    """
    counts = labels_N != NOT_COUNTED
    num = counts.sum().clamp(min=1)
    # A batch without a single label costs nothing; the mean of nothing would be NaN.
    loss = functional.cross_entropy(logits_NQ, labels_N, ignore_index=NOT_COUNTED, reduction="sum")
    is_right = (logits_NQ.detach().argmax(-1) == labels_N) & counts
    return {"loss": loss / num, "accuracy": is_right.sum() / num}


def count_labels(logits_NQ: Tensor, labels_N: Tensor) -> Tensor:
    """Count answers by class: float64 (3, Q) on the CPU, of found, among the best five, and all.

    Args:
        logits_NQ: greater for what is more likely.
        labels_N: int64, ``NOT_COUNTED`` where there is none.
    """
    num_classes = logits_NQ.shape[1]
    labels_N = labels_N.to(logits_NQ.device)
    counts = labels_N != NOT_COUNTED
    ranks, labels = rank_own(logits_NQ[counts], labels_N[counts]), labels_N[counts]
    chosen = (labels[ranks == 0], labels[ranks < 5], labels)
    return torch.stack([torch.bincount(c, minlength=num_classes) for c in chosen]).double().cpu()


def summarize_labels(sums_3Q: Tensor, names: Sequence[str]) -> Score:
    """Return the share of labels that were found, by class too, and what guessing would reach.

    Args:
        sums_3Q: from ``count_labels``.
        names: of the classes; of numbers where they have none.
    """
    found, among_five, numbers = sums_3Q
    num = float(numbers.sum())
    details = {"chance": float(numbers.max()) / max(num, 1.0)}
    if len(numbers) > 5:
        details["top5"] = float(among_five.sum()) / max(num, 1.0)
    per_class = {
        names[c] if c < len(names) else f"class {c}": float(found[c] / numbers[c])
        for c in np.flatnonzero(numbers.numpy()).tolist()
    }
    return Score(float(found.sum()) / max(num, 1.0), per_class, details)
