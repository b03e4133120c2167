"""Variational autoencoder: paint the picture again (Kingma and Welling 2014, Newell and Deng 2020).

The trunk's pre-logits give the mean and the logarithm of the variance of as many latent numbers; a
decoder paints the augmented picture from a draw of them. What is kept are the pre-logits.

Shape legend: B images, D features and latent numbers, S side of the picture, R of what is painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Range, Share
from ..models import Trunk
from ..models.decoder import MAX_OUTPUT, PictureDecoder, check_output
from .base import Inputs, Metric, Task, check_side
from .newell_views import NewellViewsConfig, to_pictures
from .pictures import Picture, frame_picture


@dataclass(frozen=True)
class VaeConfig(NewellViewsConfig):
    """A variational autoencoder; the defaults are those of Newell and Deng 2020."""

    name: Literal["vae"] = "vae"
    """Pretext task."""
    cutout: Share = 0.0
    """Side of the square of zeros, over that of the picture; 0 cuts none, as the study."""
    output: Annotated[int, Range(4, MAX_OUTPUT)] = 64
    """Side in pixels of what is painted: 4 doubled a number of times, at most the picture's side;
    of a larger picture the nearest pixels are taken."""
    kl_weight: Annotated[float, Range(0, 1000)] = 1e-5
    """Weight of the divergence, summed over latent numbers and kl_batch_size images."""
    kl_batch_size: Annotated[int, Range(1, 1_000_000)] = 512
    """Images that the divergence is summed over: the study sums over its batch. Here it grows with
    no batch, so that ranks and micro-batches change nothing."""

    def check(self) -> None:
        """Refuse what the decoder cannot paint."""
        check_output("task.output", self.output)
        if self.output > self.size:
            raise InputError(
                f"task.output ({self.output}) must be at most task.size ({self.size}); enlarge "
                "--task.size, or set a smaller --task.output"
            )


class VaeHead(nn.Module):
    """From pre-logits to latent numbers, and from those to a picture."""

    def __init__(self, num_features: int, side: int, width: int = 4) -> None:
        """Build the layers.

        Args:
            num_features: D, of the trunk, and of latent numbers.
            side: R, of the picture.
            width: of the trunk; a narrow one gets a decoder as narrow.
        """
        super().__init__()
        self.mean = nn.Linear(num_features, num_features)
        self.log_variance = nn.Linear(num_features, num_features)
        self.decoder = PictureDecoder(num_features, side, width)

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a picture (B, 3, R, R), and mean and logarithm of the variance (B, D).

        In evaluation the latent numbers are their mean, else drawn by torch's generator.
        """
        mean, log_variance = self.mean(features_BD), self.log_variance(features_BD)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(latent), mean, log_variance


def sum_divergence(mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
    """Return each image's Kullback-Leibler divergence from the standard normal, in nats: (B,).

    Args:
        mean_BD: of the latent numbers.
        log_variance_BD: likewise.
    """
    terms = 1 + log_variance_BD - mean_BD.square() - log_variance_BD.exp()
    return -0.5 * terms.sum(-1)


class Vae(Task):
    """Latent numbers and a decoder on a trunk."""

    metrics = (
        Metric("reconstruction", "", "mean squared error of the normalised channels"),
        Metric("kl", "nats", "divergence of an image's latent numbers from the standard normal"),
    )

    def __init__(self, config: VaeConfig, trunk: Trunk) -> None:
        """Build the decoder.

        Args:
            config: the views and the decoder.
            trunk: gives ``num_features`` pre-logits of an image.

        Raises:
            InputError: if the trunk does not take images of this size.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        self.config = config
        self.views = config.list_views()
        self.input_spec = config.input_spec
        self.trunk = trunk
        self.head = VaeHead(trunk.num_features, config.output, trunk.width)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment the pictures: ``images`` (B, 3, S, S)."""
        return {"images": self.config.make_views(batch, seed, 1, dtype)[:, 0]}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss``, and of it ``reconstruction`` and ``kl`` of an image on average."""
        painted, mean, log_variance = self.head(self.trunk(inputs["images"]))
        target = self._reduce(inputs["images"])
        precise = painted.dtype if painted.dtype == torch.float64 else torch.float32
        error = functional.mse_loss(painted.to(precise), target.to(precise))
        divergence = sum_divergence(mean.to(precise), log_variance.to(precise)).mean()
        weight = self.config.kl_weight * self.config.kl_batch_size
        return {
            "loss": error + weight * divergence,
            "reconstruction": error.detach(),
            "kl": divergence.detach(),
        }

    def chance(self) -> dict[str, float]:
        """Return nothing: there is no answer to guess."""
        return {}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show what the trunk sees, what is to be painted of it, and what is painted."""
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            seen = self.prepare(shown, seed, next(self.parameters()).dtype)["images"]
            painted, _, _ = self.head(self.trunk(seen))
        target = self._reduce(seen)
        errors = (painted.float() - target.float()).square().mean((1, 2, 3)).tolist()
        rows = [to_pictures(values, self.config) for values in (target, painted)]
        return [_draw_pair(*row) for row in zip(*rows, errors, strict=True)]

    def _reduce(self, images: Tensor) -> Tensor:
        """Take the nearest pixels where the picture is larger than what is painted."""
        if images.shape[-1] == self.config.output:
            return images
        return functional.interpolate(images, size=(self.config.output,) * 2, mode="nearest")


def _draw_pair(target: np.ndarray, painted: np.ndarray, error: float) -> Picture:
    pair = [frame_picture(picture, None) for picture in (target, painted)]
    words = f"Left as augmented, right as painted again: mean squared error {error:.3f}"
    return Picture(np.concatenate(pair, axis=1), words)
