"""Losses whose targets are too large to be written down.

Shape legend: B images, Q bins, K neighbours, H W places of the head's map.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from . import library  # noqa: F401 - library registers the operators
from .color_grid import color_bins, rebalance_bins

# The plane of a and b from -128 to 128 in squares; csrc/color.h has the same numbers.
_CELLS, _CELL_SIDE = 64, 4.0
# Kernels leave a share out below 2^-32 of the nearest bin's.
_LOG_OF_LEAST_SHARE = -32 * math.log(2)


def _list_candidates(
    bins_Q2: np.ndarray, num_neighbors: int, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """List for every cell the bins that some point in it has a share of.

    Returns:
        int32 offsets (cells + 1,) into int16 candidates, in each cell in ascending order.
    """
    centres = (np.arange(_CELLS) + 0.5) * _CELL_SIDE - 0.5 * _CELLS * _CELL_SIDE
    reach = _CELL_SIDE * 2**0.5 / 2
    lists = []
    for a in centres:
        squares = (a - bins_Q2[:, 0]) ** 2 + (centres[:, None] - bins_Q2[:, 1]) ** 2
        distances = np.sqrt(squares)
        # From a point of the cell no bin's distance differs from the centre's by more than reach.
        kth = np.partition(distances, num_neighbors - 1, axis=1)[:, num_neighbors - 1] + reach
        most = (distances.min(1) + reach) ** 2 - 2 * sigma**2 * _LOG_OF_LEAST_SHARE
        limits = np.minimum(kth, np.sqrt(most)) + reach + 1e-3
        lists += [np.flatnonzero(row) for row in distances <= limits[:, None]]
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    return offsets, np.concatenate(lists).astype(np.int16)


class ColorLoss(nn.Module):
    """Soft cross-entropy over colour bins, straight from logits and a and b (Zhang et al. 2016).

    A pixel's target are its K nearest bins, weighted by exp(-d^2 / (2 sigma^2)) and scaled to a sum
    of 1 (what float32 does not resolve is left out: shares below 2^-32 of the nearest bin's). It is
    made where it is used, in the forward and again in the backward pass: beyond logits
    and their gradient the loss keeps two numbers for each pixel, whatever K is. Logits may be
    float32, float16 or bfloat16, contiguous or channels_last; sums are float32.
    """

    bins_Q2: Tensor
    """float32, a and b of every bin."""
    _candidate_bytes: Tensor
    weights_Q: Tensor | None
    """float32, what a pixel counts whose nearest bin this is; None where all count 1."""

    def __init__(
        self,
        num_neighbors: int = 10,
        sigma: float = 5.0,
        grid: int = 10,
        prior_Q: np.ndarray | None = None,
        uniform_share: float = 0.5,
    ) -> None:
        """Prepare the bins; buffers are not part of the state dict.

        Args:
            num_neighbors: K, 1 .. Q.
            sigma: of the weights, in units of a and b.
            grid: step of the bins; 10 gives Q = 313.
            prior_Q: how often each bin is met; rare ones then count more. None counts all alike.
            uniform_share: lambda of the rebalancing, see ``rebalance_bins``.

        Raises:
            InputError: if a value is out of range, or the prior is of another set of bins.
        """
        super().__init__()
        bins_Q2 = color_bins(grid)
        if not 1 <= num_neighbors <= len(bins_Q2):
            raise InputError(
                f"num_neighbors ({num_neighbors}) must lie in 1 .. {len(bins_Q2)}, the bins of a "
                f"grid of step {grid}"
            )
        if not sigma > 0:
            raise InputError(f"sigma ({sigma}) must be above 0")
        self.num_neighbors, self.sigma = num_neighbors, float(sigma)
        offsets, candidates = _list_candidates(bins_Q2.astype(np.float64), num_neighbors, sigma)
        weights_Q = None
        if prior_Q is not None:
            weights_Q = torch.from_numpy(rebalance_bins(prior_Q, grid, sigma, uniform_share))
        self.register_buffer("bins_Q2", torch.from_numpy(bins_Q2), persistent=False)
        self.register_buffer("weights_Q", weights_Q, persistent=False)
        self.register_buffer("_offsets", torch.from_numpy(offsets), persistent=False)
        # As bytes: ranks send each other their buffers, and gloo knows no int16.
        in_bytes = torch.from_numpy(candidates.view(np.uint8))
        self.register_buffer("_candidate_bytes", in_bytes, persistent=False)

    @property
    def _candidates(self) -> Tensor:
        return self._candidate_bytes.view(torch.int16)

    @property
    def num_bins(self) -> int:
        """Q, the channels that the head must have."""
        return len(self.bins_Q2)

    def forward(
        self, logits_BQHW: Tensor, ab_B2HW: Tensor, counted_B: Tensor | None = None
    ) -> Tensor:
        """Return the mean over all pixels of the batch.

        Args:
            logits_BQHW: floating, of the head.
            ab_B2HW: float32, a and b of the same places.
            counted_B: bool; an image that is False adds nothing to the sum and counts in the mean
                (grey images: ``has_color``).

        Returns:
            float32 scalar.

        Raises:
            ValueError: if a shape, dtype or device is wrong.
        """
        return self.losses(logits_BQHW, ab_B2HW, counted_B).mean()

    def losses(
        self, logits_BQHW: Tensor, ab_B2HW: Tensor, counted_B: Tensor | None = None
    ) -> Tensor:
        """Return the loss of every pixel, float32 (B, H, W); arguments as those of ``forward``."""
        self._check(logits_BQHW, ab_B2HW, counted_B)
        losses_BHW, _ = torch.ops.fastssl.color_loss.default(
            logits_BQHW,
            ab_B2HW,
            self.bins_Q2,
            self._offsets,
            self._candidates,
            self.weights_Q,
            counted_B,
            self.num_neighbors,
            self.sigma,
        )
        return losses_BHW

    def _check(self, logits: Tensor, ab: Tensor, counted: Tensor | None) -> None:
        if logits.dim() != 4 or logits.shape[1] != self.num_bins:
            raise ValueError(
                f"logits must be (B, {self.num_bins}, H, W), one channel a bin, got "
                f"{tuple(logits.shape)}"
            )
        if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
        num, _, height, width = logits.shape
        if ab.dtype != torch.float32 or tuple(ab.shape) != (num, 2, height, width):
            raise ValueError(
                f"ab must be float32 (B, 2, H, W) = {(num, 2, height, width)} like logits, got "
                f"{ab.dtype} {tuple(ab.shape)}; set the stride of split_lab to that of the head"
            )
        if counted is not None and (counted.dtype != torch.bool or counted.shape != (num,)):
            raise ValueError(
                f"counted_B must be bool (B,) = ({num},), got {counted.dtype} "
                f"{tuple(counted.shape)}"
            )
        for name, tensor in (("ab", ab), ("counted_B", counted), ("the loss", self.bins_Q2)):
            if tensor is not None and tensor.device != logits.device:
                raise ValueError(
                    f"{name} must be on {logits.device} like logits, got {tensor.device}"
                )

    def extra_repr(self) -> str:
        """Show what the loss was built with."""
        return f"num_bins={self.num_bins}, num_neighbors={self.num_neighbors}, sigma={self.sigma}"


def decode_colors(logits_BQHW: Tensor, bins_Q2: Tensor, temperature: float = 0.38) -> Tensor:
    """Return the annealed mean of a predicted distribution (Zhang et al. 2016).

    Between the mean (temperature 1), which is dull, and the most likely bin (towards 0), which is
    patchy.

    Args:
        logits_BQHW: floating, of the head.
        bins_Q2: a and b of every bin.
        temperature: above 0.

    Returns:
        float32 ab (B, 2, H, W).

    Raises:
        ValueError: if the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    shares = (logits_BQHW.float() / temperature).softmax(1)
    return torch.einsum("bqhw,qc->bchw", shares, bins_Q2.float())
