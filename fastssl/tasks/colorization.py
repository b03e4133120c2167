"""Colorization: tell the colours from lightness (Zhang et al. 2016, Goyal et al. 2019).

The trunk sees L of CIE Lab alone; a head says, for every few pixels, which of Q bins of a and b is
there. Targets are soft, the K nearest bins of each pixel: K is the difficulty that Goyal et al.
2019 vary.

Shape legend: B images, S side of the view, Q bins, h w places of the head's map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Checked, Range, Share, free
from ..models import Trunk
from ..models.heads import ColorHead
from ..models.input_spec import InputSpec
from ..ops import ColorLoss, decode_colors, has_color, lab_to_rgb, split_lab
from ..ops.color_grid import MAX_GRID, MIN_GRID
from ..randomness import Stream, draw_words, is_below
from ..shards import ShardDataset
from ..shards.index import SampleFlags
from ..views import ViewSpec
from .base import Features, Inputs, Metric, Resize, Side, Task
from .checksums import note_checksum
from .color_prior import PRIOR_REMEDY, SHIPPED_GRID, SHIPPED_PRIOR, read_prior
from .pictures import Picture, frame_picture

TRUNK_STRIDE = 16
"""Pixels to one place of the maps below."""

# The map that the head sees, and how many of its places the trunk's pre-logits hold.
_MAPS = {"alexnet_color": ("conv5", 4), "resnet50_color": ("res5", 1)}
_MIDDLE_OF_LIGHTNESS = 50.0
_IS_GREY = SampleFlags(is_grey=True).pack() ^ SampleFlags().pack()
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ColorizationConfig(Checked, prefix="task."):
    """Colorization; the defaults are those of Goyal et al. 2019 where they are known."""

    name: Literal["colorization"] = "colorization"
    """Pretext task."""
    num_neighbors: Annotated[int, Range(1, 10_000)] = 10
    """Bins that a pixel's target is spread over: the difficulty, 1 to all bins of the grid."""
    sigma: Annotated[float, Range(0, 1000, without=0)] = 5.0
    """Width of that spread, in units of a and b."""
    bin_grid: Annotated[int, Range(MIN_GRID, MAX_GRID)] = 10
    """Step of the bins, in units of a and b; 10 gives 313, the study has 5, 15 and 20 too."""
    prior: Literal["even", "imagenet"] = "even"
    """All colours count alike; or rare ones more, by numbers that ship with the package, counted in
    300 photographs of ImageNet-1k. Where there is a prior_file that is taken."""
    prior_file: str = free("")
    """Count rare colours more by this file of fastssl color-prior, made of your own images."""
    prior_sha256: str = ""
    """SHA-256 of that file; filled in where it is not given, so that a run keeps its prior."""
    uniform_share: Share = 0.5
    """Share of the even prior that is mixed in; 1 counts all alike."""
    grey_threshold: Annotated[float, Range(0, 128, without=128)] = 5.0
    """An image teaches where some a or b of its targets is further from 0 than this; 0 takes every
    image."""
    head_stride: Literal[4, 8, 16] = 4
    """Pixels to one place of the head's map, in both directions."""
    targets: Literal["point", "mean"] = "point"
    """a and b of a place: those of its first pixel, or the mean of its pixels."""
    hidden: Features = 256
    """Channels of the head's layers."""
    eight_bit: bool = False
    """Round L, a and b as if stored in 8 bits, as the code of Goyal et al. 2019 does."""
    resize_short: Resize = 256
    """Short side of the image in pixels before the crop."""
    crop: Side = 224
    """Side of the crop in pixels, a multiple of 16."""
    flip_probability: Share = 0.5
    """Share of images mirrored."""

    def check(self) -> None:
        """Refuse a crop that cannot be made, and note the checksum of a prior."""
        if self.crop % TRUNK_STRIDE:
            lower = max(self.crop // TRUNK_STRIDE, 1) * TRUNK_STRIDE
            raise InputError(
                f"task.crop ({self.crop}) must be a multiple of {TRUNK_STRIDE}, the trunk's "
                f"stride; set --task.crop to {lower} or {lower + TRUNK_STRIDE}"
            )
        if self.resize_short < self.crop:
            raise InputError(
                f"task.resize_short ({self.resize_short}) must be at least task.crop "
                f"({self.crop}); enlarge --task.resize-short"
            )
        note_checksum(self, "prior", PRIOR_REMEDY)
        if self.prior == "imagenet" and not self.prior_file and self.bin_grid != SHIPPED_GRID:
            raise InputError(
                f"task.prior (imagenet) is of bins of step {SHIPPED_GRID}, task.bin_grid is "
                f"{self.bin_grid}; give --task.prior-file of fastssl color-prior --grid "
                f"{self.bin_grid}, or set --task.prior even"
            )


def load_prior(config: ColorizationConfig) -> np.ndarray | None:
    """Return how often each bin is met, float64 (Q,), by the file or the name; None for even.

    Raises:
        InputError: if there is a file that cannot be used.
    """
    if config.prior_file:
        return read_prior(config.prior_file, config.bin_grid)
    return read_prior(SHIPPED_PRIOR, config.bin_grid) if config.prior == "imagenet" else None


class Colorization(Task):
    """A map of colour bins on a trunk that sees lightness."""

    metrics = (
        Metric("accuracy", "share", "places whose nearest colour bin is the most likely one"),
        Metric("accuracy_of_grey", "share", "accuracy of an answer that is grey everywhere"),
        Metric(
            "error", "units of Lab", "mean distance of the annealed mean from the target in a and b"
        ),
        Metric("error_of_grey", "units of Lab", "error of an answer that is grey everywhere"),
    )

    def __init__(self, config: ColorizationConfig, trunk: Trunk) -> None:
        """Build the head and the loss.

        Args:
            config: what is asked.
            trunk: takes lightness; gives a map of stride 16.

        Raises:
            InputError: if the trunk is none for colorization or does not take images of this size,
                or a value of the loss is out of range.
        """
        super().__init__()
        if trunk.name not in _MAPS:
            raise InputError(
                f"trunk ('{trunk.name}') has no map of lightness for colorization; set --trunk to "
                f"{' or '.join(sorted(_MAPS))}"
            )
        if config.crop < trunk.min_side:
            raise InputError(
                f"task.crop ({config.crop}) must be at least {trunk.min_side} px for trunk "
                f"'{trunk.name}'; enlarge --task.crop"
            )
        self.config = config
        self.views = (ViewSpec.resize_crop(config.resize_short, config.crop),)
        self.input_spec = InputSpec("lightness", eight_bit=config.eight_bit)
        self.trunk = trunk
        self._end_point, places = _MAPS[trunk.name]
        self.criterion = ColorLoss(
            config.num_neighbors,
            config.sigma,
            config.bin_grid,
            load_prior(config),
            config.uniform_share,
        )
        num_doublings = (TRUNK_STRIDE // config.head_stride).bit_length() - 1
        self.head = ColorHead(
            trunk.num_features // places, config.hidden, self.criterion.num_bins, num_doublings
        )

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a dataset of grey images: there is no colour to tell."""
        # Stops at the first colour: an index of a hundred million rows is not read whole.
        for start in range(0, num_samples, _ROWS_AT_ONCE):
            flags = dataset.index["flags"][start : min(start + _ROWS_AT_ONCE, num_samples)]
            if not (flags & _IS_GREY).all():
                return
        raise InputError(
            f"dataset {dataset.path} holds grey images alone ({num_samples} of {num_samples}), "
            "colorization needs colours; choose another dataset or another task"
        )

    def draw_flips(self, batch: Batch, seed: int) -> Tensor:
        """Draw which images are mirrored (law 2): bool (B,)."""
        words = draw_words(seed, batch.epochs.numpy(), batch.sample_ids.numpy(), Stream.FLIP, 1)
        return torch.from_numpy(is_below(words[:, 0], self.config.flip_probability))

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Split the views in what is seen and what is asked.

        Returns:
            ``lightness`` (B, 1, S, S) in -50 .. 50, ``ab`` float32 (B, 2, h, w), and ``is_counted``
            bool (B,), False for a grey image.
        """
        config, images = self.config, batch.images[:, 0]
        lightness, ab = split_lab(
            images,
            config.head_stride,
            self.draw_flips(batch, seed).to(images.device, non_blocking=True),
            mean=config.targets == "mean",
            eight_bit=config.eight_bit,
            dtype=dtype,
        )
        is_counted = torch.ones(len(ab), dtype=torch.bool, device=ab.device)
        if config.grey_threshold > 0:
            is_counted = has_color(ab, config.grey_threshold)
        return {"lightness": lightness, "ab": ab, "is_counted": is_counted}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` and figures of one place in every 16 x 16 pixels, whatever the stride.

        ``error`` is the mean distance in a and b of the annealed mean from the target,
        ``accuracy`` the share of places whose nearest bin is the most likely one; ``error_of_grey``
        and ``accuracy_of_grey`` are those of an answer that is grey everywhere.
        """
        logits = self._logits(inputs)
        loss = self.criterion(logits, inputs["ab"], inputs["is_counted"])
        step = TRUNK_STRIDE // self.config.head_stride
        figures = self._measure(logits[..., ::step, ::step], inputs["ab"][..., ::step, ::step])
        return {"loss": loss, **figures}

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.criterion.num_bins}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show each image as it was seen, in its own colours, and in those of the network."""
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            ab = decode_colors(self._logits(inputs), self.criterion.bins_Q2)
        lightness = inputs["lightness"].float() + _MIDDLE_OF_LIGHTNESS
        ab = functional.interpolate(ab, lightness.shape[-2:], mode="bilinear")
        grey = lab_to_rgb(torch.cat([lightness, torch.zeros_like(ab)], 1))
        painted = lab_to_rgb(torch.cat([lightness, ab], 1))
        flips = self.draw_flips(shown, seed).to(grey.device)[:, None, None, None]
        images = shown.images[:, 0]
        original = torch.where(flips, images.flip(2), images)
        rows = (part.cpu().numpy() for part in (grey, original, painted))
        return [
            Picture(
                np.concatenate([frame_picture(picture, None) for picture in row], axis=1),
                "As the network saw it, in its own colours, and as painted",
            )
            for row in zip(*rows, strict=True)
        ]

    def _logits(self, inputs: Inputs) -> Tensor:
        lightness = inputs["lightness"]
        maps = self.trunk.forward_features(lightness)[self._end_point]
        return self.head(maps, lightness.shape[-1] // TRUNK_STRIDE)

    @torch.no_grad()
    def _measure(self, logits_BQhw: Tensor, ab_B2hw: Tensor) -> dict[str, Tensor]:
        bins = self.criterion.bins_Q2
        with torch.autocast(logits_BQhw.device.type, enabled=False):
            guess = decode_colors(logits_BQhw, bins)
            squares = (ab_B2hw[:, None] - bins[..., None, None]).square().sum(2)
            nearest = squares.argmin(1)
            grey = bins.square().sum(1).argmin()
            return {
                "accuracy": (logits_BQhw.argmax(1) == nearest).float().mean(),
                "accuracy_of_grey": (nearest == grey).float().mean(),
                "error": (guess - ab_B2hw).norm(dim=1).mean(),
                "error_of_grey": ab_B2hw.norm(dim=1).mean(),
            }
