"""ResNet9 in the form of Newell and Deng 2020, for images of 64 pixels.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from .base import Layers, LocalTrunk, RegionTrunk
from .layers import init_conv_and_norm

_CELU_ALPHA = 0.075


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int) -> None:
        """Build the unit.

        Args:
            in_channels: of the input.
            mid_channels: between the convolutions.
            out_channels: of the output; where it differs from the input the shortcut is a 1x1
                convolution with a batch norm.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid_channels)
        self.conv2 = nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(branch)) + shortcut)


class Block(nn.Module):
    """Convolution, 2x2 max pool before the batch norm, CELU, and maybe a residual unit."""

    def __init__(self, channels: Sequence[int]) -> None:
        """Build the block.

        Args:
            channels: of the input and of what the convolution makes; where a residual unit ends
                the block, also those inside it and those of its output.
        """
        super().__init__()
        in_channels, out_channels, *residual = channels
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.bn = nn.BatchNorm2d(out_channels)
        self.celu = nn.CELU(_CELU_ALPHA)
        self.residual = Residual(out_channels, *residual) if residual else nn.Identity()

    def reduce(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / 2, W / 2), what the residual unit takes."""
        return self.celu(self.bn(self.pool(self.conv(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / 2, W / 2)."""
        return self.residual(self.reduce(x))


class ResNet9(LocalTrunk, RegionTrunk):
    """ResNet9 whose feature layer acts at every location before the mean pool.

    Newell and Deng 2020; 6,699,328 parameters at the standard width, 6,830,656 with 512 features.
    Sides are multiples of 8 (a rest is cut off by the pools) and at least 8.
    """

    blocks: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 2, 2, 2), (2, 4), (4, 8, 8, 8))
    """Channels of each block (see ``Block``) in units of the stem's."""
    features: ClassVar[int] = 4
    """D in units of the stem's channels."""

    layers: ClassVar[Layers] = {
        "stem": ("conv1", "bn1"),
        "block1": ("block1",),
        "block2": ("block2",),
        "block3": ("block3",),
        "fc": ("fc",),
    }
    min_side = 8
    body = "block2"

    def __init__(self, width: int = 4, in_channels: int = 3, is_dense: bool = False) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            in_channels: of the images.
            is_dense: twice the features, as for dense tasks.
        """
        super().__init__()
        base = 16 * width
        self.in_channels = in_channels
        self.num_features = self.features * base * (2 if is_dense else 1)
        self.local_channels = (base * self.blocks[1][-1], base * self.blocks[2][1])
        self.conv1 = nn.Conv2d(in_channels, base, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.block1, self.block2, self.block3 = (
            Block([base * units for units in block]) for block in self.blocks
        )
        # A 1x1 convolution: the linear layer of the paper at every location.
        self.fc = nn.Conv2d(base * self.blocks[-1][-1], self.num_features, 1)
        init_conv_and_norm(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, in_channels, H, W).

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

    def forward_local(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return block2, what block3's residual unit takes, and pre_logits (B, D).

        Args:
            x: normalised images (B, in_channels, H, W).
        """
        fine = self.forward_map(x)
        coarse = self.block3.reduce(fine)
        return fine, coarse, self.fc(self.block3.residual(coarse)).mean((2, 3))

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to block2."""
        return self.block2(self.block1(self.relu(self.bn1(self.conv1(x)))))

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of block2 (N, C, 14, 14) to pre-logits (N, D)."""
        return self.fc(self.block3(regions)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to pre-logits (B, D)."""
        return self.forward_regions(self.forward_map(x))


class ResNet9Half(ResNet9):
    """Half of ResNet9, for one of the two views of contrastive multiview coding.

    Newell and Deng 2020; 3.32 million parameters at the standard width.
    """

    blocks = ((1, 1, 1, 2), (2, 2), (2, 8, 4, 8))
    features = 2
