"""The encoder of augmented multiscale deep infomax (Bachman et al. 2019), for images of 64 pixels.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from .base import Layers, LocalTrunk

# Of the five blocks: side and stride of their convolution, channels in units of the stem's.
_BLOCKS = ((4, 2, 2), (4, 2, 4), (2, 2, 8), (3, 1, 8), (3, 1, 8))
_DEPTH = 10


class PooledUnit(nn.Module):
    """Residual unit of two convolutions whose shortcut is an average pool.

    Nothing is padded: the receptive field of a place is exactly what its kernels see.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int = 1, stride: int = 1) -> None:
        """Build the unit with fresh weights; the second convolution begins at zero.

        Args:
            in_channels: of the input.
            out_channels: of the output; the shortcut has zeros in place of channels that the input
                lacks, and leaves its last ones out where there are fewer.
            side: of the first convolution and of the pool.
            stride: of both.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, side, stride, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(side, stride) if (side, stride) != (1, 1) else nn.Identity()
        self.num_missing = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H', W')."""
        branch = self.conv2(self.relu(self.conv1(x)))
        # A negative pad cuts channels off.
        return branch + functional.pad(self.pool(x), (0, 0, 0, 0, 0, self.num_missing))


def _build_block(in_channels: int, out_channels: int, side: int, stride: int) -> nn.Sequential:
    first = PooledUnit(in_channels, out_channels, side, stride)
    return nn.Sequential(
        first, *(PooledUnit(out_channels, out_channels) for _ in range(_DEPTH - 1))
    )


class AmdimEncoder(LocalTrunk):
    """AMDIM's own encoder: hardly any 3x3 convolutions, no padding, one batch norm, at the end.

    Its size is not published for Newell and Deng 2020, who say that it equals their ResNet-50's:
    the stem's 64 channels of their code and the ten units a block of the original's larger runs
    make 23,644,416 parameters at the standard width.
    """

    layers: ClassVar[Layers] = {
        "stem": ("stem",),
        "block1": ("block1",),
        "block2": ("block2",),
        "block3": ("block3",),
        "block4": ("block4",),
        "block5": ("block5",),
        "pre_logits": ("last", "bn"),
    }
    min_side = 64

    def __init__(self, width: int = 4) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
        """
        super().__init__()
        base = 16 * width
        self.num_features = 4 * base
        self.stem = nn.Conv2d(3, base, 3)
        self.relu = nn.ReLU(inplace=True)
        channels = [base, *(base * units for _, _, units in _BLOCKS)]
        self.block1, self.block2, self.block3, self.block4, self.block5 = (
            _build_block(channels[i], channels[i + 1], side, stride)
            for i, (side, stride, _) in enumerate(_BLOCKS)
        )
        self.local_channels = (channels[3], channels[4])
        self.last = PooledUnit(channels[5], self.num_features, 3)
        self.bn = nn.BatchNorm2d(self.num_features)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

        Returns:
            stem and block1 .. block5 as (B, C, H, W), of 64 px: 62, 30, 14, 7, 5 and 3 pixels; and
            pre_logits (B, D).
        """
        points = {"stem": self.relu(self.stem(x))}
        x = points["stem"]
        for number, block in enumerate(
            (self.block1, self.block2, self.block3, self.block4, self.block5), 1
        ):
            x = block(x)
            points[f"block{number}"] = x
        points["pre_logits"] = self._finish(x)
        return points

    def forward_local(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return block3, block4 and pre_logits (B, D).

        Args:
            x: normalised images (B, 3, H, W).
        """
        points = self.forward_features(x)
        return points["block3"], points["block4"], points["pre_logits"]

    def _finish(self, x: Tensor) -> Tensor:
        return self.bn(self.last(x)).mean((2, 3))
