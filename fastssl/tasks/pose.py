"""Pose: where does the up axis of an object point (Newell and Deng 2020).

Five answers: up, and, further than pi/8 from the vertical, to the left, away, to the right or
towards the camera. A mirrored picture shows left for right, so its label is swapped; in the study's
code it is not, which makes half of these labels wrong while it trains.

Shape legend: B images, S side of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..models import Trunk
from ..models.downstream_heads import build_downstream_head
from ..shards import ShardDataset
from .base import Inputs, Metric
from .classification import draw_answers
from .downstream import (
    DownstreamConfig,
    DownstreamTask,
    Score,
    count_labels,
    score_labels,
    summarize_labels,
)
from .newell_views import augment, draw_augmentation
from .pictures import Picture

POSE_NAMES = ("up", "left", "away", "right", "towards")
"""By the numbers of the target."""
_LEFT, _RIGHT = POSE_NAMES.index("left"), POSE_NAMES.index("right")


@dataclass(frozen=True)
class PoseConfig(DownstreamConfig):
    """Pose of one object."""

    name: Literal["pose"] = "pose"
    """Task."""


class Pose(DownstreamTask):
    """A head of five poses on a trunk's pre-logits."""

    metrics = (
        Metric("accuracy", "share", "images whose pose is found"),
        Metric("test_accuracy", "share", "test images whose pose is found"),
    )
    target = "pose"
    metric = "accuracy"

    def __init__(self, config: PoseConfig, trunk: Trunk) -> None:
        """Build the head.

        Args:
            config: views and head.
            trunk: gives ``num_features`` pre-logits.

        Raises:
            InputError: if the trunk does not take images of this size.
        """
        super().__init__(config, trunk)
        self.head = build_downstream_head(config.head, trunk.num_features, len(POSE_NAMES))

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse poses that are no poses of one object, or all the same."""
        check_poses(dataset, num_samples)

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:
        """Return ``pose`` of ``num`` images."""
        return {"pose": torch.zeros(num, dtype=torch.int64)}

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment and normalise: ``images`` (B, 3, S, S), ``labels`` int64 (B,) of what is seen."""
        device = batch.images.device
        drawn = draw_augmentation(self.config, batch, seed, 1)
        labels = mirror_poses(self.take_target(batch).long(), drawn.flip_BK[:, 0])
        images = augment(batch.images[:, 0], drawn.to(device), self.config, dtype)
        return {"images": images[:, 0], "labels": labels.to(device, non_blocking=True)}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy``."""
        return score_labels(self.answer(inputs["images"]), inputs["labels"])

    def answer(self, images: Tensor) -> Tensor:
        """Return logits (B, 5) of normalised images."""
        return self.head(self.trunk(images)).float()

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Count images by pose, see ``count_labels``."""
        return count_labels(answers, self.take_target(batch).long())

    def summarize(self, sums: Tensor) -> Score:
        """Return the share of images whose pose is found."""
        return summarize_labels(sums, POSE_NAMES)

    def chance(self) -> dict[str, float]:
        """Return 1 / 5 for the accuracy."""
        return {"accuracy": 1 / len(POSE_NAMES)}

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the pictures, framed green where the pose is found and red where it is not."""
        return draw_answers(self, batch, seed, count, POSE_NAMES)


def mirror_poses(poses_B: Tensor, flip_B: Tensor) -> Tensor:
    """Return the poses that pictures show: left for right where they are mirrored.

    Args:
        poses_B: int64.
        flip_B: bool.
    """
    swapped = torch.where(poses_B == _LEFT, _RIGHT, torch.where(poses_B == _RIGHT, _LEFT, poses_B))
    return torch.where(flip_B, swapped, poses_B)


def check_poses(dataset: ShardDataset, num_samples: int) -> None:
    """See that there are poses to tell apart.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.

    Raises:
        InputError: if it has several objects an image, other numbers, or one pose alone.
    """
    poses = dataset.targets[Pose.target]
    if poses.ndim != 1 or poses.dtype.kind not in "iu":
        what = f"{poses.dtype} of shape {poses.shape[1:]} an image"
        raise InputError(
            f"target 'pose' of {dataset.path} is {what}, wanted one whole number: the task is for "
            "sets of one object"
        )
    found = np.unique(poses[:num_samples])
    if found[0] < 0 or found[-1] >= len(POSE_NAMES):
        raise InputError(
            f"target 'pose' of {dataset.path} has numbers {found[0]} .. {found[-1]}, wanted 0 .. "
            f"{len(POSE_NAMES) - 1} ({', '.join(POSE_NAMES)})"
        )
    if len(found) == 1:
        raise InputError(
            f"all poses of {dataset.path} are {found[0]} ({POSE_NAMES[found[0]]}): there is "
            "nothing to tell apart, as in every set whose viewpoint is fixed; render one with "
            "V (--variant 0011, 0111, 1111 ...)"
        )
