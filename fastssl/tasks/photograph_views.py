"""Views of photographs to fine-tune on: crops and flips, for a trunk that takes whatever it takes.

Shape legend: B images, C channels that the trunk takes, S side of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..fields import Checked, Range, Share
from ..models.downstream_heads import HeadName
from ..models.input_spec import INPUT_KEY, InputSpec, make_inputs
from ..randomness import Stream, draw_words, is_below
from ..views import ViewSpec
from .base import Resize, Side
from .inception_views import Area


@dataclass(frozen=True)
class PhotographConfig(Checked, prefix="task."):
    """A photograph as a trunk sees it, mirrored or not, and what trunk and head are."""

    size: Side = 224
    """Side of what the trunk sees, in pixels."""
    flip_probability: Share = 0.5
    """Share of photographs mirrored."""
    input: str = ""
    """What the trunk takes, as its file says it; "" is ImageNet's mean and deviation."""
    head: HeadName = "linear"
    """One Linear layer; or a hidden one of the features' number with BN and ReLU before it."""

    @property
    def input_spec(self) -> InputSpec:
        """What the trunk takes."""
        return InputSpec.from_metadata({INPUT_KEY: self.input}) if self.input else InputSpec()

    def make_views(
        self,
        batch: Batch,
        seed: int,
        num_views: int,  # noqa: ARG002 - one, as the list of views has it
        dtype: torch.dtype,
    ) -> Tensor:
        """Mirror and normalise views: (B, 1, C, S, S) of ``dtype``."""
        flips = self.draw_flips(batch, seed).to(batch.images.device)
        return make_inputs(batch.images[:, 0], self.input_spec, dtype, flip_B=flips)[:, None]

    def show_views(
        self,
        batch: Batch,
        seed: int,
        num_views: int,  # noqa: ARG002
    ) -> np.ndarray:
        """Return the same as people see it: uint8 (B, 1, S, S, 3), on the CPU."""
        flips = self.draw_flips(batch, seed)[:, None, None, None, None]
        images = batch.images[:, :1].cpu()
        return torch.where(flips, images.flip(3), images).numpy()

    def draw_flips(self, batch: Batch, seed: int) -> Tensor:
        """Draw which photographs are mirrored: bool (B,) on the CPU."""
        ids, epochs = batch.sample_ids.numpy(), batch.epochs.numpy()
        words = draw_words(seed, epochs, ids, Stream.FLIP, 1)[:, 0]
        return torch.from_numpy(is_below(words, self.flip_probability))


@dataclass(frozen=True)
class PhotographViewsConfig(PhotographConfig):
    """What a photograph is cut to."""

    view: Literal["random_resized_crop", "resize_crop"] = "random_resized_crop"
    """Crop of random area and shape; or a square at a random place of the resized image."""
    min_area: Area = 0.2
    """Crop of random area: smallest share of the image's area that it may cover."""
    max_area: Area = 1.0
    """Crop of random area: largest share."""
    resize: Resize = 256
    """View resize_crop: short side that the image is resized to, in pixels."""
    test_crops: Annotated[int, Range(1, 100)] = 1
    """Crops that an image is tested by: 1 is its centre; more are drawn as those that are learnt
    from, not mirrored, and the answers to them are averaged."""

    def check(self) -> None:
        """Refuse areas out of order."""
        if self.min_area > self.max_area:
            raise InputError(
                f"task.min_area ({self.min_area}) must not exceed task.max_area ({self.max_area})"
            )

    def list_views(self) -> tuple[ViewSpec, ...]:
        """Return what to ask of the loader to learn from."""
        return (self._cut(1),)

    @property
    def test_view(self) -> ViewSpec:
        """What to ask of the loader to test on: the centre of a short side of 8/7, or crops."""
        if self.test_crops > 1:
            return self._cut(self.test_crops)
        return ViewSpec.center(round(self.size * 8 / 7), self.size)

    def _cut(self, count: int) -> ViewSpec:
        if self.view == "resize_crop":
            return ViewSpec.resize_crop(self.resize, self.size, count)
        areas = (self.min_area, self.max_area)
        return ViewSpec.random_resized_crop(self.size, scale=areas, count=count)
