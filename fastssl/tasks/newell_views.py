"""Augmentation of Newell and Deng 2020: what their four methods and downstream tasks see.

The whole picture is brought to a square and normalised, in CIE Lab by default, and everything
happens there, in this order: colours of four images in five change, a quarter become grey, half are
mirrored, four in five are shifted against a frame of zeros, and a square is cut out. What is drawn
here is drawn for each copy of each sample; the study draws once a round for blocks of samples.

Shape legend: B images, K copies of each, C = 3 channels, S side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..fields import Checked, Range, Share
from ..models.input_spec import InputSpec
from ..ops import augment_views, lab_to_rgb
from ..randomness import Stream, draw_words, is_below, to_below, to_normal
from ..views import ViewSpec
from .base import Drawn, Side

# 0 whether colours change, 1 grey, 2 flip, 3 uncropped, 4 5 crop, 6 7 cutout, then a pair for each
# of the six deviates: three gains, three shifts.
_DRAWS_PER_COPY = 20
Strength = Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class NewellViewsConfig(Checked, prefix="task."):
    """What a picture is and how it changes; the defaults are the study's."""

    size: Side = 64
    """Side of a picture in pixels."""
    space: Literal["lab", "rgb"] = "lab"
    """Colours that the trunk takes and that the augmentation works in."""
    statistics: Literal["newell20", "cifar10"] = "newell20"
    """Whose mean and deviation they are normalised by: the study's synthetic set, or CIFAR-10."""
    jitter_probability: Share = 0.8
    """Share of pictures whose colours change."""
    jitter: Strength = 0.25
    """Colours: each normalised channel times 2^(jitter x normal) plus jitter x normal."""
    grey_probability: Share = 0.25
    """Share of pictures whose normalised channels all become their mean."""
    flip_probability: Share = 0.5
    """Share of pictures mirrored."""
    padding: Share = 0.125
    """Frame of zeros that a picture is shifted against, over its side; 0 crops none."""
    uncropped: Share = 0.2
    """Share of pictures that are not shifted."""
    cutout: Share = 0.25
    """Side of the square of zeros, over that of the picture; 0 cuts none."""

    def list_views(self) -> tuple[ViewSpec, ...]:
        """Return what to ask of the loader: one view, the picture without its longer ends."""
        return (ViewSpec.center(self.size, self.size),)

    @property
    def padding_px(self) -> int:
        """Width of the frame of zeros in pixels."""
        return round(self.padding * self.size)

    @property
    def cutout_px(self) -> int:
        """Side of the square of zeros in pixels."""
        return round(self.cutout * self.size)

    @property
    def input_spec(self) -> InputSpec:
        """What the trunk takes."""
        return InputSpec.named(f"{self.statistics}_{self.space}")

    def make_views(self, batch: Batch, seed: int, num_views: int, dtype: torch.dtype) -> Tensor:
        """Draw and make K = ``num_views`` copies of each picture: (B, K, 3, S, S) of ``dtype``."""
        augmentation = draw_augmentation(self, batch, seed, num_views).to(batch.images.device)
        return augment(batch.images[:, 0], augmentation, self, dtype)

    def show_views(self, batch: Batch, seed: int, num_views: int) -> np.ndarray:
        """Return the same as people see it: uint8 (B, K, S, S, 3), on the CPU."""
        return to_pictures(self.make_views(batch, seed, num_views, torch.float32), self)


@dataclass(frozen=True)
class Augmentation(Drawn):
    """What was drawn for the copies of a batch, on one device; see ``ops.augment_views``."""

    gain_BK3: Tensor
    """float32, the factor of each channel."""
    shift_BK3: Tensor
    """float32, added to each channel."""
    grey_BK: Tensor
    """bool."""
    flip_BK: Tensor
    """bool."""
    offset_BK2: Tensor
    """int32 (y, x)."""
    corner_BK2: Tensor
    """int32 (y, x), where the square of zeros begins."""


def draw_augmentation(
    config: NewellViewsConfig, batch: Batch, seed: int, copies: int, shares_flip: bool = False
) -> Augmentation:
    """Draw the augmentations of a batch from its sample ids and epochs (law 2), on the CPU.

    Args:
        config: what changes, and how much.
        batch: from the loader.
        seed: the run's seed.
        copies: K, independent of each other; the first ones never depend on how many there are.
        shares_flip: mirror all copies of an image or none.
    """
    epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()
    words = draw_words(seed, epochs, ids, Stream.AUGMENTATION, _DRAWS_PER_COPY * copies)
    words = words.reshape(len(ids), copies, _DRAWS_PER_COPY)
    changes = is_below(words[..., 0], config.jitter_probability)[..., None]
    deviates = config.jitter * to_normal(words[..., 8:].reshape(len(ids), copies, 6, 2))
    # Rounded as the deviates are: the last bit of a power is the C library's.
    gain = np.where(changes, np.round(np.exp2(deviates[..., :3]), 6), 1.0)
    shift = np.where(changes, deviates[..., 3:], 0.0)
    flips = words[:, :1, 2].repeat(copies, 1) if shares_flip else words[..., 2]
    padding, cutout = config.padding_px, config.cutout_px
    offset = to_below(words[..., 4:6], 2 * padding + 1) - padding
    offset[is_below(words[..., 3], config.uncropped)] = 0
    corner = to_below(words[..., 6:8], config.size - cutout + 1)
    return Augmentation(
        torch.from_numpy(gain.astype(np.float32)),
        torch.from_numpy(shift.astype(np.float32)),
        torch.from_numpy(is_below(words[..., 1], config.grey_probability)),
        torch.from_numpy(is_below(flips, config.flip_probability)),
        torch.from_numpy(offset.astype(np.int32)),
        torch.from_numpy(corner.astype(np.int32)),
    )


def augment(
    images_BHWC: Tensor, augmentation: Augmentation, config: NewellViewsConfig, dtype: torch.dtype
) -> Tensor:
    """Normalise and augment pictures, all copies of each from one conversion.

    Args:
        images_BHWC: uint8 RGB, square.
        augmentation: on the same device.
        config: that it was drawn for.
        dtype: of the result.

    Returns:
        (B, K, 3, S, S) whose ``.flatten(0, 1)`` is torch.channels_last.
    """
    spec, has_cutout = config.input_spec, config.cutout_px > 0
    return augment_views(
        images_BHWC,
        config.space,
        spec.mean,
        spec.std,
        gain_BK3=augmentation.gain_BK3,
        shift_BK3=augmentation.shift_BK3,
        grey_BK=augmentation.grey_BK,
        flip_BK=augmentation.flip_BK,
        offset_BK2=augmentation.offset_BK2,
        corner_BK2=augmentation.corner_BK2 if has_cutout else None,
        cutout=config.cutout_px,
        dtype=dtype,
        channels_last=True,
    )


def to_pictures(values: Tensor, config: NewellViewsConfig) -> np.ndarray:
    """Return normalised images as people see them.

    Args:
        values: floating (..., 3, S, S), from ``augment`` or of a network that makes such images.
        config: their colours.

    Returns:
        uint8 (..., S, S, 3) on the CPU.
    """
    spec = config.input_spec
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    colours = values.detach().float().cpu() * std + mean
    if config.space == "lab":
        pixels = lab_to_rgb(colours.flatten(0, -4))
    else:
        pixels = (255 * colours.flatten(0, -4)).clamp(0, 255).round().byte().movedim(1, -1)
    return pixels.unflatten(0, values.shape[:-3]).numpy()
