"""ResNet9 in the form of Newell and Deng 2020, for images of 64 pixels.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Layers, Trunk
from .layers import init_conv_and_norm

_CELU_ALPHA = 0.075


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, channels: int) -> None:
        """Build the unit.

        Args:
            channels: of input, output and everything between.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        branch = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(branch)) + x)


class Block(nn.Module):
    """Convolution, 2x2 max pool before the batch norm, CELU, and maybe a residual unit."""

    def __init__(self, in_channels: int, out_channels: int, has_residual: bool) -> None:
        """Build the block.

        Args:
            in_channels: of the input.
            out_channels: of the output.
            has_residual: whether a residual unit ends the block.
        """
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.bn = nn.BatchNorm2d(out_channels)
        self.celu = nn.CELU(_CELU_ALPHA)
        self.residual = Residual(out_channels) if has_residual else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / 2, W / 2)."""
        return self.residual(self.celu(self.bn(self.pool(self.conv(x)))))


class ResNet9(Trunk):
    """ResNet9 whose feature layer acts at every location before the mean pool.

    Newell and Deng 2020; 6,699,328 parameters at the standard width. Sides are multiples of 8 (a
    rest is cut off by the pools) and at least 8.
    """

    layers: ClassVar[Layers] = {
        "stem": ("conv1", "bn1"),
        "block1": ("block1",),
        "block2": ("block2",),
        "block3": ("block3",),
        "fc": ("fc",),
    }
    min_side = 8

    def __init__(self, width: int = 4) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
        """
        super().__init__()
        base = 16 * width
        self.num_features = 4 * base
        self.conv1 = nn.Conv2d(3, base, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.block1 = Block(base, 2 * base, has_residual=True)
        self.block2 = Block(2 * base, 4 * base, has_residual=False)
        self.block3 = Block(4 * base, 8 * base, has_residual=True)
        # A 1x1 convolution: the linear layer of the paper at every location.
        self.fc = nn.Conv2d(8 * base, self.num_features, 1)
        init_conv_and_norm(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

        Returns:
            stem, block1, block2, block3, fc (the dense features) as (B, C, H, W) and pre_logits
            (B, D), the mean of fc.
        """
        points = {"stem": self.relu(self.bn1(self.conv1(x)))}
        points["block1"] = self.block1(points["stem"])
        points["block2"] = self.block2(points["block1"])
        points["block3"] = self.block3(points["block2"])
        points["fc"] = self.fc(points["block3"])
        points["pre_logits"] = points["fc"].mean((2, 3))
        return points

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to pre-logits (B, D)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(x).mean((2, 3))
