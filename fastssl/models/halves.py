"""Two networks side by side, one for lightness and one for colour, as one trunk.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import Trunk

_NUM_CHANNELS = {"lightness": 1, "colour": 2}


class HalvesTrunk(Trunk):
    """The half networks of contrastive multiview coding (Tian et al. 2019, Newell and Deng 2020).

    The first channel of an image, L of Lab, goes to one half, a and b to the other. An end point is
    what lightness's half has of that name and then, along the channels, what colour's half has.
    """

    def __init__(self, width: int, half: Callable[[int, int], Trunk]) -> None:
        """Build both halves with fresh weights.

        Args:
            width: of either half.
            half: builds one from its width and the channels that it takes.
        """
        super().__init__()
        self.lightness, self.colour = (half(width, number) for number in _NUM_CHANNELS.values())
        self.num_features = self.lightness.num_features + self.colour.num_features
        self.min_side = self.lightness.min_side

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points of both halves, joined along the channels.

        Args:
            x: normalised Lab images (B, 3, H, W).

        Returns:
            The maps by the halves' own names (B, C, H, W) as they are, and pre_logits (B, D), in
            which each half's D / 2 features have length 1.
        """
        pairs = [half.forward_features(part) for half, part in self._split(x)]
        points = {name: torch.cat([points[name] for points in pairs], 1) for name in pairs[0]}
        points["pre_logits"] = _join([points["pre_logits"] for points in pairs])
        return points

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised Lab images (B, 3, H, W) to pre-logits (B, D), each half of length 1."""
        return _join([half(part) for half, part in self._split(x)])

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return the stages by the halves' own names; each holds weights of both."""
        colour = self.colour.stages()
        return {name: [*parts, *colour[name]] for name, parts in self.lightness.stages().items()}

    def _split(self, x: Tensor) -> list[tuple[Trunk, Tensor]]:
        lightness, colour = x.split([*_NUM_CHANNELS.values()], 1)
        return [(self.lightness, lightness), (self.colour, colour)]


def _join(features: Sequence[Tensor]) -> Tensor:
    return torch.cat([functional.normalize(part, dim=1) for part in features], 1)
