"""ResNet-50 v1, with torchvision's layout and names.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import init_conv_and_norm

_EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual unit 1x1, 3x3, 1x1; the 3x3 carries the stride, as in torchvision."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        """Build the unit.

        Args:
            in_channels: of the input.
            channels: of the 3x3 convolution; the output has four times as many.
            stride: of the 3x3 convolution and of the shortcut.
        """
        super().__init__()
        out_channels = _EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
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
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def _build_stage(in_channels: int, channels: int, num_units: int, stride: int) -> nn.Sequential:
    """Build units of one resolution; the first carries the stride."""
    units = [Bottleneck(in_channels, channels, stride)]
    units += [Bottleneck(_EXPANSION * channels, channels, 1) for _ in range(num_units - 1)]
    return nn.Sequential(*units)


class ResNet50(nn.Module):
    """ResNet-50 v1 without its classifier (He et al. 2016; stride in the 3x3).

    A torchvision state dict without ``fc`` loads and gives equal features.
    """

    min_side = 1

    def __init__(self, width: int = 4, root_stride: int = 2, last_stride: int = 2) -> None:
        """Build the trunk with fresh weights; they fit whatever the strides.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            root_stride: of the first convolution; 1 in the patch form of Kolesnikov et al. 2019.
            last_stride: of the last stage; 1 in the same form: a patch of 64 px gives maps of
                64, 32, 32, 16, 8 and 8 px.
        """
        super().__init__()
        base = 16 * width
        self.num_features = 8 * _EXPANSION * base
        self.conv1 = nn.Conv2d(3, base, 7, root_stride, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _build_stage(base, base, 3, stride=1)
        self.layer2 = _build_stage(4 * base, 2 * base, 4, stride=2)
        self.layer3 = _build_stage(8 * base, 4 * base, 6, stride=2)
        self.layer4 = _build_stage(16 * base, 8 * base, 3, stride=last_stride)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        init_conv_and_norm(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

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

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to pre-logits (B, D)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.avgpool(x).flatten(1)
