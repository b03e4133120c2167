"""ResNet-50 v1, with torchvision's layout and names, in two styles.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Layers, RegionTrunk
from .layers import follow_kolesnikov, init_conv_and_norm

_EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual unit 1x1, 3x3, 1x1; the 3x3 carries the stride, as in torchvision."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        has_skip: bool = True,
        dilation: int = 1,
    ) -> None:
        """Build the unit.

        Args:
            in_channels: of the input.
            channels: of the 3x3 convolution; the output has four times as many.
            stride: of the 3x3 convolution and of the shortcut.
            has_skip: False leaves the shortcut out.
            dilation: of the 3x3 convolution.
        """
        super().__init__()
        out_channels = _EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(
            channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.has_skip = has_skip
        self.downsample: nn.Sequential | None = None
        if not has_skip:
            return
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut if self.has_skip else x)


def _build_stage(
    in_channels: int,
    channels: int,
    num_units: int,
    stride: int,
    has_skip: bool,
    dilation: int = 1,
) -> nn.Sequential:
    """Build units of one resolution; the first carries the stride, all others the dilation."""
    units = [Bottleneck(in_channels, channels, stride, has_skip)]
    for _ in range(num_units - 1):
        units.append(Bottleneck(_EXPANSION * channels, channels, 1, has_skip, dilation))
    return nn.Sequential(*units)


class ResNet50(RegionTrunk):
    """ResNet-50 v1 without its classifier (He et al. 2016; stride in the 3x3).

    A torchvision state dict without ``fc`` loads and gives equal features.
    """

    layers: ClassVar[Layers] = {
        "conv1": ("conv1", "bn1"),
        "res2": ("layer1",),
        "res3": ("layer2",),
        "res4": ("layer3",),
        "res5": ("layer4",),
    }
    min_side = 1
    body = "res4"

    def __init__(
        self,
        width: int = 4,
        root_stride: int = 2,
        last_stride: int = 2,
        in_channels: int = 3,
        has_skip: bool = True,
        has_root_pool: bool = True,
        last_dilation: int = 1,
        stage_divisor: int = 1,
    ) -> None:
        """Build the trunk with fresh weights; they fit whatever strides, pool and dilation.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            root_stride: of the first convolution; 1 in the patch form of Kolesnikov et al. 2019.
            last_stride: of the last stage; 1 in the same form: a patch of 64 px gives maps of
                64, 32, 32, 16, 8 and 8 px. 1 also in Goyal et al. 2019's colorization: an image
                of 224 px ends as 14.
            in_channels: of the images; 1 is lightness alone.
            has_skip: False leaves the shortcuts out, projections included.
            has_root_pool: False leaves out the max pool behind the first convolution.
            last_dilation: of the last stage's 3x3 convolutions, but for its first unit's.
            stage_divisor: 2 halves the channels of the stages, not those of the first convolution.
        """
        super().__init__()
        root = 16 * width
        base = root // stage_divisor
        self.in_channels = in_channels
        self.num_features = 8 * _EXPANSION * base
        self.conv1 = nn.Conv2d(in_channels, root, 7, root_stride, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(root)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if has_root_pool else nn.Identity()
        self.layer1 = _build_stage(root, base, 3, 1, has_skip)
        self.layer2 = _build_stage(4 * base, 2 * base, 4, 2, has_skip)
        self.layer3 = _build_stage(8 * base, 4 * base, 6, 2, has_skip)
        self.layer4 = _build_stage(16 * base, 8 * base, 3, last_stride, has_skip, last_dilation)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        init_conv_and_norm(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, in_channels, H, W).

        Returns:
            conv1 (after BN and ReLU, before the pool), res2, res3, res4, res5 as (B, C, H, W) and
            pre_logits (B, D).
        """
        points = {"conv1": self.relu(self.bn1(self.conv1(x)))}
        x = self.maxpool(points["conv1"])
        points["res2"] = self.layer1(x)
        points["res3"] = self.layer2(points["res2"])
        points["res4"] = self.layer3(points["res3"])
        points["res5"] = self.layer4(points["res4"])
        points["pre_logits"] = self.avgpool(points["res5"]).flatten(1)
        return points

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to res4."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of res4 (N, C, 14, 14) to pre-logits (N, D)."""
        return self.avgpool(self.layer4(regions)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to pre-logits (B, D)."""
        return self.forward_regions(self.forward_map(x))


class ResNet50V1(ResNet50):
    """ResNet-50 v1 as Kolesnikov et al. 2019 have it: their weights' start, norms and end points.

    Weights begin Glorot-uniform, batch norms have an epsilon of 1e-3 and a momentum of 0.01. The
    names of the weights are those of ``ResNet50``.
    """

    layers: ClassVar[Layers] = {
        "after_root": ("conv1", "bn1"),
        "block1": ("layer1",),
        "block2": ("layer2",),
        "block3": ("layer3",),
        "block4": ("layer4",),
    }
    body = "block3"

    def __init__(
        self, width: int = 4, root_stride: int = 2, last_stride: int = 2, has_skip: bool = True
    ) -> None:
        """Build the trunk with fresh weights; arguments as those of ``ResNet50``."""
        super().__init__(width, root_stride, last_stride, has_skip=has_skip)
        follow_kolesnikov(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

        Returns:
            after_root (after the pool), block1, block2, block3, block4 as (B, C, H, W) and
            pre_logits (B, D).
        """
        # A border of zeros and one of minus infinity are one behind a ReLU.
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        points = {"after_root": x}
        for number, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), 1):
            x = layer(x)
            points[f"block{number}"] = x
        points["pre_logits"] = self.avgpool(x).flatten(1)
        return points
