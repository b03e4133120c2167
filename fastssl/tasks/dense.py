"""What the dense downstream tasks share: answers at every place of a trunk's map.

What is known of a picture's pixels follows its flip and its crop, and is reduced to the map's
places by taking the nearest pixel, none mixed with another (Newell and Deng 2020). The study's maps
have 16 x 16 places: of 128 px by ResNet9 or the dilated ResNet-50.

Shape legend: B images, H W pixels of a target, C channels, S side of a picture, g places a side.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..models import Trunk
from ..models.base import list_end_points
from ..models.downstream_heads import build_downstream_head
from ..ops import augment_targets
from ..shards import ShardDataset
from .base import Inputs
from .downstream import DownstreamConfig, DownstreamTask
from .newell_views import augment, draw_augmentation
from .pictures import Picture, frame_picture

_SHOWN_SIDE = 128


class DenseMap(NamedTuple):
    """The map that a dense task answers at."""

    name: str
    """The trunk's end point."""
    channels: int
    """Its channels."""
    grid: int
    """Its places a side."""


def find_map(trunk: Trunk, side: int) -> DenseMap:
    """Return the last map of a trunk, ``fc`` in the study's forms.

    Args:
        trunk: on any device, "meta" too.
        side: of its images in pixels.

    Raises:
        InputError: if it has none, or layers behind it that would learn nothing.
    """
    points = list_end_points(trunk, side)
    names, known = list(points), "resnet9, resnet50_newell_dense or another trunk that ends in one"
    maps = [name for name in names if len(points[name]) == 3]
    if not maps:
        raise InputError(f"trunk '{trunk.name}' has no map; take {known}")
    name = maps[-1]
    behind = [stage for stage in trunk.stages() if stage in names[names.index(name) + 1 :]]
    if behind:
        raise InputError(
            f"trunk '{trunk.name}' has layers behind its last map, '{name}' ({', '.join(behind)}), "
            f"and a dense task answers at the map; take {known}"
        )
    channels, grid, width = points[name]
    if grid == 1:
        raise InputError(
            f"map '{name}' of trunk '{trunk.name}' has one place at {side} px; set a larger "
            "--view-size"
        )
    if grid != width:
        raise InputError(f"map '{name}' of trunk '{trunk.name}' ({grid} x {width}) must be square")
    return DenseMap(name, channels, grid)


class DenseTask(DownstreamTask):
    """A head at every place of a trunk's last map."""

    config: DownstreamConfig
    unit: ClassVar[torch.dtype]
    """Of the target in a batch of black images."""

    def __init__(self, config: Any, trunk: Trunk, num_outputs: int) -> None:
        """Build the head.

        Args:
            config: views and head.
            trunk: ends in a map.
            num_outputs: of the head.

        Raises:
            InputError: if the trunk does not take pictures of this size or has no map.
        """
        super().__init__(config, trunk)
        self.map = find_map(trunk, config.size)
        self.head = build_downstream_head(config.head, self.map.channels, num_outputs, True)

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:
        """Return the target of ``num`` black images."""
        side = self.config.size
        return {self.target: torch.zeros(num, side, side, dtype=self.unit)}

    @abc.abstractmethod
    def read_target(self, target: Tensor) -> Tensor:
        """Return what is learnt of a target as batches carry it, reduced already; of its shape."""

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment and normalise: ``images`` (B, C, S, S), ``truth`` (B, g, g) that has followed."""
        device = batch.images.device
        drawn = draw_augmentation(self.config, batch, seed, 1)
        pixels = reduce_nearest(self.take_target(batch), self.config.size)
        moved = augment_targets(pixels, drawn.flip_BK, drawn.offset_BK2)[:, 0]
        truth = self.read_target(reduce_nearest(moved, self.map.grid))
        images = augment(batch.images[:, 0], drawn.to(device), self.config, dtype)
        return {"images": images[:, 0], "truth": truth.to(device, non_blocking=True)}

    def find_truth(self, batch: Batch) -> Tensor:
        """Return what is to be found on pictures that nothing was drawn for: (B, g, g), CPU."""
        return self.read_target(reduce_nearest(self.take_target(batch), self.map.grid))

    def answer(self, images: Tensor) -> Tensor:
        """Return what the head says at every place: float32 (B, outputs, g, g)."""
        return self.head(self.trunk.forward_features(images)[self.map.name]).float()

    @torch.no_grad()
    def answer_shown(
        self, batch: Batch, seed: int, count: int
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return pictures as they are learnt from (uint8), truths and answers, on the CPU."""
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = self.answer(inputs["images"])
        return self.config.show_views(shown, seed, 1)[:, 0], inputs["truth"].cpu(), answers.cpu()


def reduce_nearest(target: Tensor, side: int) -> Tensor:
    """Bring targets to another resolution: of each place the pixel at its upper left corner.

    Args:
        target: (B, H, W) of any type.
        side: of the result.

    Returns:
        (B, side, side); what ``interpolate`` of torch calls nearest.
    """
    rows, columns = (torch.arange(side) * length // side for length in target.shape[1:])
    return target[:, rows][:, :, columns]


def check_square(dataset: ShardDataset, target: str, kinds: str, wanted: str) -> None:
    """See that a target tells of every pixel of square pictures.

    Args:
        dataset: has the target.
        target: its name.
        kinds: of numbers that are taken, as NumPy names them.
        wanted: the numbers in words.

    Raises:
        InputError: if it does not.
    """
    rows = dataset.targets[target]
    if rows.ndim != 3 or rows.shape[1] != rows.shape[2] or rows.dtype.kind not in kinds:
        raise InputError(
            f"target '{target}' of {dataset.path} is {rows.dtype} of shape {rows.shape[1:]} an "
            f"image, wanted {wanted} of shape (side, side)"
        )
    index = dataset.index
    is_oblong = index["width"] != index["height"]
    if is_oblong.any():
        number = int(np.flatnonzero(is_oblong)[0])
        size = f"{index['width'][number]} x {index['height'][number]}"
        raise InputError(
            f"sample {number} of {dataset.path} has {size} px and target '{target}' is square: it "
            "must tell of all of the picture; make the pictures square"
        )


def lay_out(picture: np.ndarray, maps: list[np.ndarray], words: str) -> Picture:
    """Lay a picture and maps beside each other, all of one size.

    Args:
        picture: uint8 (S, S, 3).
        maps: uint8 (g, g, 3), colours of places.
        words: below.
    """
    side = max(_SHOWN_SIDE, len(picture))
    pieces = [frame_picture(_enlarge(piece, side), None) for piece in (picture, *maps)]
    return Picture(np.concatenate(pieces, axis=1), words)


def _enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    places = np.arange(side) * len(picture) // side
    return picture[places][:, places]
