"""Segmentation: what is at every place of a picture (Newell and Deng 2020).

Background and ten classes on the rendered sets, 16 x 16 places. Flip and crop move the classes too;
where nothing of the picture is, is background.

Shape legend: B images, Q classes, g places a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..fields import Range, Share
from ..models import Trunk
from ..shards import ShardDataset
from .base import Inputs, Metric, Side
from .dense import DenseTask, check_square, lay_out
from .downstream import (
    NOT_COUNTED,
    DownstreamConfig,
    Score,
    count_labels,
    score_labels,
    summarize_labels,
)
from .pictures import Picture

NOT_COUNTED_PIXEL = 255
"""Class of a pixel that takes no part, as in PASCAL VOC's masks."""
_ROWS_AT_ONCE = 1024
_COLOURS = np.array(
    [
        (40, 42, 48),
        (230, 75, 60),
        (60, 140, 230),
        (70, 180, 90),
        (245, 190, 60),
        (150, 90, 200),
        (60, 200, 200),
        (240, 130, 180),
        (150, 110, 70),
        (190, 220, 110),
        (225, 225, 225),
    ],
    np.uint8,
)
_NO_COLOUR = (0, 0, 0)


@dataclass(frozen=True)
class SegmentationConfig(DownstreamConfig):
    """Classes of places, without cutout."""

    name: Literal["segmentation"] = "segmentation"
    """Task."""
    size: Side = 128
    """Side of a picture in pixels; the trunk's map says how many places are told apart."""
    cutout: Share = 0.0
    """Side of the square of zeros, over that of the picture; 0 cuts none."""
    num_classes: Annotated[int, Range(2, NOT_COUNTED_PIXEL)] = 11
    """Classes that are told apart, background, 0, among them; 255 does not count."""


class Segmentation(DenseTask):
    """A classifier of every place of a trunk's last map."""

    metrics = (
        Metric("accuracy", "share", "places whose class is found"),
        Metric("test_accuracy", "share", "places of test images whose class is found"),
    )
    target = "segmentation"
    metric = "accuracy"
    unit = torch.uint8

    def __init__(self, config: SegmentationConfig, trunk: Trunk) -> None:
        """Build the head.

        Args:
            config: views, head and Q.
            trunk: ends in a map.

        Raises:
            InputError: if the trunk does not take images of this size or has no map.
        """
        super().__init__(config, trunk, config.num_classes)
        self.num_classes = config.num_classes

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse classes that are not told apart."""
        check_segmentation(dataset, num_samples, self.num_classes)

    def read_target(self, target: Tensor) -> Tensor:
        """Return classes as int64, ``NOT_COUNTED`` for 255."""
        classes = target.long()
        return torch.where(classes == NOT_COUNTED_PIXEL, NOT_COUNTED, classes)

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy over places) and ``accuracy``."""
        return score_labels(_by_place(self.answer(inputs["images"])), inputs["truth"].flatten())

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Count places by class, see ``count_labels``."""
        return count_labels(_by_place(answers), self.find_truth(batch).flatten())

    def summarize(self, sums: Tensor) -> Score:
        """Return the share of places whose class is found, background included."""
        return summarize_labels(sums, self._names)

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy; a background is commoner than that."""
        return {"accuracy": 1 / self.num_classes}

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the picture, what is where, and what was answered, a colour a class."""
        pictures = []
        for view, truth, logits in zip(*self.answer_shown(batch, seed, count), strict=True):
            answer = logits.argmax(0)
            counted = truth != NOT_COUNTED
            share = ((answer == truth) & counted).sum() / counted.sum().clamp(min=1)
            there = ", ".join(self._name(c) for c in truth[counted].unique().tolist())
            said = ", ".join(self._name(c) for c in answer.unique().tolist())
            words = f"{share:.0%} of places found. Truth: {there}; answer: {said}"
            pictures.append(lay_out(view, [_colour(truth), _colour(answer)], words))
        return pictures

    @property
    def _names(self) -> tuple[str, ...]:
        names = ("background", *self.class_names)
        return names if len(names) == self.num_classes else ("background",)

    def _name(self, label: int) -> str:
        return self._names[label] if label < len(self._names) else f"class {label}"


def _by_place(logits_BQgg: Tensor) -> Tensor:
    """Return (B * g * g, Q)."""
    return logits_BQgg.movedim(1, -1).flatten(0, 2)


def _colour(classes: Tensor) -> np.ndarray:
    numbers = classes.numpy()
    coloured = _COLOURS[np.where(numbers > 0, 1 + (numbers - 1) % (len(_COLOURS) - 1), 0)]
    coloured[numbers == NOT_COUNTED] = _NO_COLOUR
    return coloured


def check_segmentation(dataset: ShardDataset, num_samples: int, num_classes: int = 11) -> None:
    """See that a dataset's pixels have classes that are told apart.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.
        num_classes: Q.

    Raises:
        InputError: if they do not.
    """
    name = Segmentation.target
    check_square(dataset, name, "u", "uint8")
    rows = dataset.targets[name]
    for start in range(0, num_samples, _ROWS_AT_ONCE):
        classes = np.asarray(rows[start : min(start + _ROWS_AT_ONCE, num_samples)])
        others = classes[(classes >= num_classes) & (classes != NOT_COUNTED_PIXEL)]
        if others.size:
            raise InputError(
                f"target '{name}' of {dataset.path} has class {others.max()}, wanted 0 .. "
                f"{num_classes - 1}, or {NOT_COUNTED_PIXEL} for what does not count; set "
                f"--num-classes {others.max() + 1} or more"
            )
