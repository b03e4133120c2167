"""Classification by label, on a trunk that learns with its head: fine-tuning, or from scratch.

Two forms of views: Newell and Deng 2020's, and random crops of photographs at what any trunk takes.

Shape legend: B images, C channels that the trunk takes, S side of a picture, Q classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..models import Trunk
from ..models.downstream_heads import build_downstream_head
from ..shards import ShardDataset
from .base import Inputs, Metric, check_labelled
from .downstream import (
    NOT_COUNTED,
    DownstreamConfig,
    DownstreamTask,
    Score,
    count_labels,
    score_labels,
    summarize_labels,
)
from .photograph_views import PhotographViewsConfig
from .pictures import Picture, frame_picture


@dataclass(frozen=True)
class ClassificationConfig(DownstreamConfig):
    """Classes of pictures in the form of Newell and Deng 2020."""

    name: Literal["classification"] = "classification"
    """Task."""


@dataclass(frozen=True)
class PhotographClassificationConfig(PhotographViewsConfig):
    """Classes of photographs: random crops and flips, for a trunk that takes whatever it takes."""

    name: Literal["classification"] = "classification"
    """Task."""


class Classification(DownstreamTask):
    """A head on a trunk's pre-logits; images without a label enter neither loss nor score."""

    needs_labels = True
    metrics = (
        Metric("accuracy", "share", "labelled images whose class is found"),
        Metric("test_top1", "share", "labelled test images whose class is found"),
    )
    metric = "top1"

    def __init__(
        self,
        config: ClassificationConfig | PhotographClassificationConfig,
        trunk: Trunk,
        num_classes: int,
    ) -> None:
        """Build the head.

        Args:
            config: views and head.
            trunk: gives ``num_features`` pre-logits.
            num_classes: Q, of the dataset.

        Raises:
            InputError: if the dataset has fewer than two classes, or the trunk does not take images
                of this size.
        """
        super().__init__(config, trunk)
        if num_classes < 2:
            raise InputError(
                f"task ({config.name}) needs labels of at least 2 classes, the dataset has "
                f"{num_classes}; give a dataset made from one folder a class"
            )
        self.num_classes = num_classes
        self.head = build_downstream_head(config.head, trunk.num_features, num_classes)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a dataset without labels."""
        check_labelled(dataset, num_samples, self.config.name)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment and normalise: ``images`` (B, C, S, S), ``labels`` int64 (B,)."""
        labels = self.take_target(batch)
        return {
            "images": self.config.make_views(batch, seed, 1, dtype)[:, 0],
            "labels": labels.to(batch.images.device, non_blocking=True),
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over the labelled images."""
        return score_labels(self.answer(inputs["images"]), inputs["labels"])

    def answer(self, images: Tensor) -> Tensor:
        """Return logits (B, Q) of normalised images."""
        return self.head(self.trunk(images)).float()

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Count images by class, see ``count_labels``."""
        return count_labels(answers, self.take_target(batch))

    def summarize(self, sums: Tensor) -> Score:
        """Return the share of images whose class is found."""
        return summarize_labels(sums, self.class_names)

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.num_classes}

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the pictures, framed green where the class is found and red where it is not."""
        return draw_answers(self, batch, seed, count, self.class_names)


@torch.no_grad()
def draw_answers(
    task: DownstreamTask, batch: Batch, seed: int, count: int, names: Sequence[str]
) -> list[Picture]:
    """Show pictures as they are learnt from, framed by whether their class is found.

    Args:
        task: has one label an image.
        batch: from the loader.
        seed: the run's seed.
        count: pictures wanted.
        names: of the classes.
    """
    shown = batch.rows(0, min(count, len(batch)))
    with task.answering():
        inputs = task.prepare(shown, seed, next(task.parameters()).dtype)
        answers = task.answer(inputs["images"]).argmax(-1)

    def name(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    pictures = []
    views = task.config.show_views(shown, seed, 1)[:, 0]
    for view, label, answer in zip(views, inputs["labels"].tolist(), answers.tolist(), strict=True):
        if label == NOT_COUNTED:
            pictures.append(Picture(frame_picture(view, None), "no label"))
            continue
        said = "found" if label == answer else f"taken for {name(answer)}"
        pictures.append(Picture(frame_picture(view, label == answer), f"{name(label)}, {said}"))
    return pictures
