"""Exemplar: crops of one image lie together, those of others apart (Dosovitskiy et al. 2014).

In the form of Kolesnikov et al. 2019: eight crops of each image, a Linear embedding, and a triplet
loss whose negatives are mined among a few images.

Shape legend: B images, V crops of each, G groups of images that are mined by themselves,
N embeddings of a group, D features, S side of a crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..fields import Range, Share
from ..models import Trunk
from ..models.heads import build_linear_head
from ..models.input_spec import InputSpec
from .base import Features, Inputs, Metric, Task, check_side
from .inception_views import (
    InceptionConfig,
    Normalization,
    draw_appearance,
    prepare_views,
    to_pictures,
)
from .pictures import Picture, frame_picture
from .triplets import find_nearest, normalize_embeddings, pair_distances, semihard_loss


@dataclass(frozen=True)
class ExemplarConfig(InceptionConfig):
    """Exemplar; ``kolesnikov`` gives the form of Kolesnikov et al. 2019."""

    name: Literal["exemplar"] = "exemplar"
    """Pretext task."""
    num_crops: Annotated[int, Range(2, 64)] = 8
    """Crops of each image, all of one decode."""
    grey_probability: Share = 0.66
    """Share of images made grey, all crops together."""
    normalize: Normalization = "image"
    """To -1 .. 1; by ImageNet's mean and deviation; by each crop's own; or Caffe's channel means
    (123, 117, 104) taken from 0 .. 255."""
    embedding: Features = 1000
    """Features of the embedding, a Linear function of the pre-logits."""
    margin: Annotated[float, Range(0, 1000, without=0)] = 0.5
    """How much farther a negative should be than a positive, in squared distance."""
    l2_axis: Literal["batch", "embedding", "none"] = "batch"
    """What is scaled to length 1: each coordinate over a group, as the study's code has it; each
    embedding, as triplets have it elsewhere; nothing."""
    group_images: Annotated[int, Range(2, 64)] = 8
    """Images whose crops are each other's negatives; a rank's micro-batch is a multiple of it."""


class Exemplar(Task):
    """A linear embedding of crops on a trunk."""

    metrics = (
        Metric(
            "accuracy", "share", "crops whose nearest other crop of the group is of their image"
        ),
    )

    def __init__(self, config: ExemplarConfig, trunk: Trunk) -> None:
        """Build the embedding.

        Args:
            config: the crops and the loss.
            trunk: gives ``num_features`` pre-logits of an image.

        Raises:
            InputError: if the trunk does not take images of this size.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        self.config = config
        self.views = config.list_views(config.num_crops)
        self.batch_multiple = config.group_images
        self.input_spec = InputSpec.named(config.normalize)
        self.trunk = trunk
        self.head = build_linear_head(trunk.num_features, config.embedding)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Colour the crops: ``images`` (B, V, 3, S, S) normalised, ``labels`` int64 (B,).

        Raises:
            InputError: if the images are no multiple of ``group_images``.
        """
        config, device = self.config, batch.images.device
        self.check_batch(len(batch))
        appearance = draw_appearance(config, batch, seed, config.num_crops).to(device)
        labels = batch.used_ids.to(device, non_blocking=True)
        return {
            "images": prepare_views(batch.images, appearance, config, dtype),
            "labels": labels,
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean hinge of all pairs) and ``accuracy``.

        ``accuracy`` is the share of crops whose nearest other crop of the group is of their image.
        """
        labels_GN = self._label_crops(inputs)
        distances = self._distances(inputs)
        loss = semihard_loss(distances, labels_GN, self.config.margin)
        is_right = labels_GN.gather(1, find_nearest(distances)) == labels_GN
        return {"loss": loss, "accuracy": is_right.float().mean()}

    def chance(self) -> dict[str, float]:
        """Return (V - 1) / (N - 1) for the accuracy."""
        crops = self.config.num_crops
        return {"accuracy": (crops - 1) / (crops * self.config.group_images - 1)}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show each image's crops, and below each the nearest other crop.

        It is sought among the first ``group_images`` images, which are shown and not mined
        together. It has a green frame where it is of the same image and a red one elsewhere.
        """
        config = self.config
        shown = batch.rows(0, config.group_images)
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            nearest = find_nearest(self._distances(inputs))[0].cpu().numpy()
        appearance = draw_appearance(config, shown, seed, config.num_crops)
        crops = to_pictures(shown.images, appearance, config)
        flat = crops.reshape(-1, *crops.shape[2:])
        labels = self._label_crops(inputs)[0].cpu().numpy()
        is_right = labels == labels[nearest]
        columns = [
            np.concatenate([frame_picture(crop, None), frame_picture(flat[other], right)])
            for crop, other, right in zip(flat, nearest, is_right.tolist(), strict=True)
        ]
        rows = [slice(b * config.num_crops, (b + 1) * config.num_crops) for b in range(len(shown))]
        return [
            Picture(
                np.concatenate(columns[row], axis=1),
                f"Crops, and below each the nearest other crop: {is_right[row].sum()} of "
                f"{config.num_crops} of the same image",
            )
            for row in rows[:count]
        ]

    def _label_crops(self, inputs: Inputs) -> Tensor:
        """Name the image of every crop: int64 (G, N)."""
        labels_BV = inputs["labels"][:, None].expand(-1, self.config.num_crops)
        return group_images(labels_BV, self.config.group_images).flatten(1)

    def _distances(self, inputs: Inputs) -> Tensor:
        """Measure the squared distances of the embeddings in their groups: float32 (G, N, N)."""
        images, config = inputs["images"], self.config
        embeddings = self.head(self.trunk(images.flatten(0, 1))).float()
        # Differences of long sums: not in half precision.
        with torch.autocast(images.device.type, enabled=False):
            groups = group_images(embeddings.unflatten(0, images.shape[:2]), config.group_images)
            return pair_distances(normalize_embeddings(groups.flatten(1, 2), config.l2_axis))


def group_images(rows_B: Tensor, size: int) -> Tensor:
    """Sort the images of a micro-batch on one rank into the groups that are mined by themselves.

    The M images that all ranks take at a time stand at places 0 .. M-1 of the order, and rank r of
    W has those with place mod W = r. A group is the ``size`` places that are equal mod M / size:
    where W divides that number a group is whole on one rank, and the groups are the same at every
    world size. Of a rank's own rows these are again the ones that are equal mod B / size. Another
    accumulation has another M and other groups; it is part of the run's identity.

    Args:
        rows_B: B rows of any shape, a multiple of ``size``.
        size: images of a group.

    Returns:
        (B / size, size, ...), a view.
    """
    return rows_B.unflatten(0, (size, -1)).transpose(0, 1)
