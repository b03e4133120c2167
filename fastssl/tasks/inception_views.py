"""Crops, flips and colours of Szegedy et al. 2015, as Kolesnikov et al. 2019 use them.

The study takes the file ``inception_preprocessing.py`` of TensorFlow's slim in its fast mode: a
crop of random area and shape, a flip, random brightness and then saturation. What is drawn here is
drawn for each view; only grey is drawn once for all views of an image.

Shape legend: B images, V views of each, H W pixels, C = 3 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..fields import Checked, Range, Share
from ..models.input_spec import InputSpec, make_inputs
from ..ops import color_jitter, reference
from ..randomness import Stream, draw_words, is_below, to_unit
from ..views import ViewSpec
from .base import Drawn, Side

# slim tries 100 times, a view may 16: one box in a thousand then misses by the log-uniform rule, by
# TensorFlow's none in 10^14.
_ATTEMPTS = 16
_DRAWS_PER_VIEW = 4
_BRIGHTNESS_FIRST = 0.25


Area = Annotated[float, Range(0, 1, without=0)]
"""Share of an image's area."""
Normalization = Literal["inception", "imagenet", "image", "caffe"]


@dataclass(frozen=True)
class InceptionConfig(Checked, prefix="task."):
    """What a view is; ``kolesnikov`` gives the study's."""

    size: Side = 224
    """Side of a view in pixels."""
    min_area: Area = 0.05
    """Smallest share of the image's area that a crop may cover."""
    crop_rule: Literal["log_uniform", "tensorflow"] = "log_uniform"
    """Area uniform and shape log-uniform, as torchvision has it; or height and shape uniform, as
    TensorFlow's, of the study."""
    max_ratio: Annotated[float, Range(1, 100)] = 4 / 3
    """Widest crop, width over height, and tallest the other way; 1 takes squares alone."""
    flip_probability: Share = 0.5
    """Share of views mirrored."""
    brightness: Share = 32 / 255
    """Largest change of brightness, of a range of 1; 0 leaves it as it is."""
    saturation: Share = 0.5
    """Largest change of the saturation's factor around 1; 0 leaves it as it is."""
    colour_order: Literal["drawn", "brightness_first"] = "drawn"
    """Saturation before brightness for three views in four; or never, as in the study."""
    grey_probability: Share = 0.0
    """Share of images made grey, all views together."""
    grey: Literal["luma", "mean"] = "mean"
    """Grey is the luma (ITU-R 601) or the mean of the channels."""
    normalize: Normalization = "inception"
    """To -1 .. 1; by ImageNet's mean and deviation; by each view's own; or Caffe's channel means
    (123, 117, 104) taken from 0 .. 255."""

    @classmethod
    def kolesnikov(cls, **changes: Any) -> Self:
        """Return the form of Kolesnikov et al. 2019; ``changes`` are fields with other values."""
        fields: dict[str, Any] = {
            "min_area": 0.1,
            "crop_rule": "tensorflow",
            "colour_order": "brightness_first",
        }
        return cls(**fields | changes)

    def list_views(self, count: int = 1) -> tuple[ViewSpec, ...]:
        """Return what to ask of the loader for ``count`` views of each image."""
        is_log = self.crop_rule == "log_uniform"
        cut = ViewSpec.random_resized_crop if is_log else ViewSpec.tensorflow_crop
        return (
            cut(
                self.size,
                scale=(self.min_area, 1.0),
                ratio=(1 / self.max_ratio, self.max_ratio),
                attempts=_ATTEMPTS,
                # The whole image, as slim has it, is no square: squares keep to the centre.
                fallback="whole" if self.max_ratio > 1 else "center",
                count=count,
            ),
        )

    @property
    def input_spec(self) -> InputSpec:
        """What the trunk takes."""
        return InputSpec.named(self.normalize)

    def make_views(self, batch: Batch, seed: int, num_views: int, dtype: torch.dtype) -> Tensor:
        """Draw and make the first views of a batch: (B, V, 3, S, S) of ``dtype``."""
        appearance = draw_appearance(self, batch, seed, num_views).to(batch.images.device)
        return prepare_views(batch.images[:, :num_views], appearance, self, dtype)

    def show_views(self, batch: Batch, seed: int, num_views: int) -> np.ndarray:
        """Return the same as people see it: uint8 (B, V, S, S, 3), on the CPU."""
        appearance = draw_appearance(self, batch, seed, num_views)
        return to_pictures(batch.images[:, :num_views], appearance, self)

    @property
    def has_jitter(self) -> bool:
        """Whether brightness or saturation change."""
        return self.brightness > 0 or self.saturation > 0

    @property
    def is_plain(self) -> bool:
        """Whether colours stay as they are or become luma, for which there are cheaper operators.

        Their luma is rounded to 8 bits.
        """
        return not (self.has_jitter or (self.grey_probability > 0 and self.grey == "mean"))


@dataclass(frozen=True)
class Appearance(Drawn):
    """What was drawn for the views of a batch, on one device."""

    flip_BV: Tensor
    """bool."""
    grey_BV: Tensor
    """bool, the same for all views of an image."""
    brightness_BV: Tensor
    """float32, added to values of 0 .. 1."""
    saturation_BV: Tensor
    """float32, the saturation's factor."""
    is_brightness_first_BV: Tensor
    """bool; else the saturation changes first."""


def draw_appearance(config: InceptionConfig, batch: Batch, seed: int, num_views: int) -> Appearance:
    """Draw flips and colours of a batch from its sample ids and epochs (law 2), on the CPU.

    Args:
        config: what a view is.
        batch: from the loader.
        seed: the run's seed.
        num_views: V.
    """
    epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()

    def words(stream: Stream, num: int) -> np.ndarray:
        return draw_words(seed, epochs, ids, stream, num)

    coins_BV4 = words(Stream.COLOUR_JITTER, _DRAWS_PER_VIEW * num_views).reshape(
        len(ids), num_views, _DRAWS_PER_VIEW
    )
    # Symmetric in -1 .. 1, exact in float32.
    brightness, saturation = (2 * to_unit(coins_BV4[..., i]) - np.float32(1) for i in (0, 1))
    grey = is_below(words(Stream.GREY, 1), config.grey_probability)
    share_first = _BRIGHTNESS_FIRST if config.colour_order == "drawn" else 1.0
    return Appearance(
        torch.from_numpy(is_below(words(Stream.FLIP, num_views), config.flip_probability)),
        torch.from_numpy(grey).expand(-1, num_views),
        torch.from_numpy(brightness * np.float32(config.brightness)),
        torch.from_numpy(np.float32(1) + saturation * np.float32(config.saturation)),
        torch.from_numpy(is_below(coins_BV4[..., 2], share_first)),
    )


def paint_views(images_BVHWC: Tensor, appearance: Appearance, config: InceptionConfig) -> Tensor:
    """Mirror the views and change their colours, in plain PyTorch, for people to look at.

    Args:
        images_BVHWC: uint8 RGB.
        appearance: on the same device.
        config: what a view is.

    Returns:
        float32 (B, V, H, W, 3), 0 .. 255, not rounded.
    """
    return reference.paint(
        images_BVHWC,
        appearance.brightness_BV,
        appearance.saturation_BV,
        appearance.is_brightness_first_BV,
        appearance.flip_BV,
        appearance.grey_BV,
        config.grey == "mean",
    )


def prepare_views(
    images_BVHWC: Tensor, appearance: Appearance, config: InceptionConfig, dtype: torch.dtype
) -> Tensor:
    """Mirror, colour and normalise the views.

    Args:
        images_BVHWC: uint8 RGB, square.
        appearance: on the same device.
        config: what a view is.
        dtype: of the result.

    Returns:
        (B, V, 3, H, W) whose ``.flatten(0, 1)`` is torch.channels_last.
    """
    spec = config.input_spec
    if not config.is_plain:
        scaled = spec.kind == "scaled"
        return color_jitter(
            images_BVHWC,
            appearance.brightness_BV,
            appearance.saturation_BV,
            appearance.is_brightness_first_BV,
            appearance.flip_BV,
            appearance.grey_BV,
            config.grey,
            mean=spec.mean if scaled else None,
            std=spec.std if scaled else None,
            standardize=not scaled,
            dtype=dtype,
            channels_last=True,
        )
    views = make_inputs(
        images_BVHWC.flatten(0, 1),
        spec,
        dtype,
        flip_B=appearance.flip_BV.flatten(),
        grey_B=appearance.grey_BV.flatten(),
    )
    return views.unflatten(0, images_BVHWC.shape[:2])


def to_pictures(
    images_BVHWC: Tensor, appearance: Appearance, config: InceptionConfig
) -> np.ndarray:
    """Return the views as people see them: uint8 (B, V, H, W, 3), on the CPU."""
    pixels = paint_views(images_BVHWC.cpu(), appearance, config)
    return pixels.clamp(0, 255).round().to(torch.uint8).numpy()
