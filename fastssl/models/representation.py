"""A Linear layer between a trunk and what stands on it: representation size apart from width.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Trunk


class RepresentationTrunk(Trunk):
    """A trunk whose pre-logits are a Linear function of the pooled ones (Kolesnikov et al. 2019).

    The study says that there is such a layer and not where: here it follows the pool, has a bias
    and no activation.
    """

    trunk: Trunk

    def __init__(self, trunk: Trunk, num_features: int) -> None:
        """Put the layer, with fresh weights, behind a trunk.

        Args:
            trunk: whose pre-logits the layer takes.
            num_features: D, of the new pre-logits.
        """
        super().__init__()
        self.trunk = trunk
        self.linear = nn.Linear(trunk.num_features, num_features)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.num_features = num_features
        self.min_side = trunk.min_side
        self.in_channels = trunk.in_channels

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the trunk's end points, its pre-logits as ``pooled``, and pre_logits (B, D).

        Args:
            x: normalised images (B, in_channels, H, W).
        """
        points = self.trunk.forward_features(x)
        points["pooled"] = points.pop("pre_logits")
        points["pre_logits"] = self.linear(points["pooled"])
        return points

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return the trunk's stages, and the layer as ``pre_logits``."""
        inner = self.trunk.stages()
        if "pre_logits" in inner:
            inner["pooled"] = inner.pop("pre_logits")
        return {**inner, "pre_logits": [self.linear]}

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to pre-logits (B, D)."""
        return self.linear(self.trunk(x))
