"""ResNet-50 v2, with activations before the convolutions (He et al. 2016b; Kolesnikov et al. 2019).

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Layers, RegionTrunk
from .layers import follow_kolesnikov, pool_last, pool_root

_EXPANSION = 4


class PreActivationBranch(nn.Module):
    """BN, ReLU, 1x1; BN, ReLU, 3x3 with the stride; BN, ReLU, 1x1: a residual unit's branch."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, stride: int = 1) -> None:
        """Build the branch.

        Args:
            in_channels: of the input.
            channels: of the 3x3 convolution.
            out_channels: of the output.
            stride: of the 3x3 convolution.
        """
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def activate(self, x: Tensor) -> Tensor:
        """Return the activated input (B, C, H, W), which a projecting shortcut sees too."""
        return self.relu(self.bn1(x))

    def convolve(self, x: Tensor) -> Tensor:
        """Map an activated input to (B, out_channels, H / stride, W / stride)."""
        x = self.relu(self.bn2(self.conv1(x)))
        return self.conv3(self.relu(self.bn3(self.conv2(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.convolve(self.activate(x))


class PreActivationUnit(PreActivationBranch):
    """A branch and its shortcut; nothing follows the sum.

    Where stride or channels change the shortcut is a 1x1 convolution of the activated input, else
    the raw input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, has_skip: bool) -> None:
        """Build the unit.

        Args:
            in_channels: of the input.
            channels: of the 3x3 convolution; the output has four times as many.
            stride: of the 3x3 convolution and of the shortcut.
            has_skip: False leaves the shortcut out.
        """
        out_channels = _EXPANSION * channels
        super().__init__(in_channels, channels, out_channels, stride)
        self.has_skip = has_skip
        self.project: nn.Conv2d | None = None
        if has_skip and (stride != 1 or in_channels != out_channels):
            self.project = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        active = self.activate(x)
        if not self.has_skip:
            return self.convolve(active)
        shortcut = x if self.project is None else self.project(active)
        return self.convolve(active) + shortcut


def _build_stage(
    in_channels: int, channels: int, num_units: int, stride: int, has_skip: bool
) -> nn.Sequential:
    """Build units of one resolution; the first carries the stride."""
    units = [PreActivationUnit(in_channels, channels, stride, has_skip)]
    for _ in range(num_units - 1):
        units.append(PreActivationUnit(_EXPANSION * channels, channels, 1, has_skip))
    return nn.Sequential(*units)


class ResNet50V2(RegionTrunk):
    """ResNet-50 v2 without its classifier, as Kolesnikov et al. 2019 have it.

    No batch norm or ReLU in the root, whose pool has a border of zeros; batch norm and maybe a ReLU
    after the last stage. Weights begin Glorot-uniform, batch norms have an epsilon of 1e-3 and a
    momentum of 0.01.
    """

    layers: ClassVar[Layers] = {
        "after_root": ("conv1",),
        "block1": ("layer1",),
        "block2": ("layer2",),
        "block3": ("layer3",),
        "block4": ("layer4",),
        "pre_logits": ("bn",),
    }
    min_side = 1
    body = "block3"

    def __init__(
        self,
        width: int = 4,
        root_stride: int = 2,
        last_stride: int = 2,
        last_relu: bool = True,
        has_skip: bool = True,
    ) -> None:
        """Build the trunk with fresh weights; they fit whatever the strides.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            root_stride: of the first convolution; 1 in the form for patches.
            last_stride: of the last stage; 1 in the form for patches: a patch of 64 px gives maps
                of 32, 32, 16, 8 and 8 px.
            last_relu: False is the paper's ResNet-50 v2 (-): the pre-logits are averages of batch
                norms.
            has_skip: False leaves the shortcuts out, projections included.
        """
        super().__init__()
        base = 16 * width
        self.num_features = 8 * _EXPANSION * base
        self.last_relu = last_relu
        self.conv1 = nn.Conv2d(self.in_channels, base, 7, root_stride, 3, bias=False)
        self.layer1 = _build_stage(base, base, 3, 1, has_skip)
        self.layer2 = _build_stage(4 * base, 2 * base, 4, 2, has_skip)
        self.layer3 = _build_stage(8 * base, 4 * base, 6, 2, has_skip)
        self.layer4 = _build_stage(16 * base, 8 * base, 3, last_stride, has_skip)
        self.bn = nn.BatchNorm2d(self.num_features)
        follow_kolesnikov(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

        Returns:
            after_root (after the pool), block1, block2, block3, block4 (sums, before any batch
            norm) as (B, C, H, W) and pre_logits (B, D).
        """
        points = {"after_root": pool_root(self.conv1(x))}
        points["block1"] = self.layer1(points["after_root"])
        points["block2"] = self.layer2(points["block1"])
        points["block3"] = self.layer3(points["block2"])
        points["block4"] = self.layer4(points["block3"])
        points["pre_logits"] = pool_last(self.bn(points["block4"]), self.last_relu)
        return points

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to block3."""
        return self.layer3(self.layer2(self.layer1(pool_root(self.conv1(x)))))

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of block3 (N, C, 14, 14) to pre-logits (N, D)."""
        return pool_last(self.bn(self.layer4(regions)), self.last_relu)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to pre-logits (B, D)."""
        return self.forward_regions(self.forward_map(x))
