"""AlexNet in the forms of Goyal et al. 2019: five convolutions, 2.3 million parameters.

torchvision's ``alexnet`` is another network (64-192-384-256-256 channels, no groups, no
normalisation, padding in the first layer): its weights do not fit here.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from .base import Layers, RegionTrunk
from .layers import ChannelLRN, init_conv_and_norm

_POOL, _POOL_STRIDE = 3, 2
_CONV1 = 11
_PRE_LOGITS_SIDE = 2


class AlexNet(RegionTrunk):
    """Convolutions of 11, 5, 3, 3 and 3 pixels; groups on the second, fourth and fifth.

    Max pools of 3 pixels and stride 2 follow the first, second and fifth, rounded down as the
    maps of the published evaluation are (109-54-26-26-26 of 227 pixels at stride 2). Pre-logits
    are the last pool's map in 2 x 2 places: of a 64-pixel patch at stride 2 that is the whole map,
    of a larger image an average of it. The fully connected layers belong to the task's head.
    """

    layers: ClassVar[Layers] = {f"conv{i}": (f"conv{i}", f"bn{i}") for i in range(1, 6)}
    region_side = 6
    body = "conv5"

    def __init__(
        self,
        width: int = 4,
        stride: Literal[2, 4] = 2,
        norm: Literal["none", "late", "all"] = "late",
        lrn: bool = True,
        in_channels: int = 3,
        has_affine: bool = True,
    ) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            stride: of the first convolution; weights fit either.
            norm: batch norm, before the ReLU, on no convolution, on the last three, or on all five.
                A convolution without one has a bias.
            lrn: local response normalisation across channels after the first two pools.
            in_channels: of the images; 1 is lightness alone.
            has_affine: whether batch norms have a scale and a shift.
        """
        super().__init__()
        is_normed = [norm == "all"] * 2 + [norm != "none"] * 3

        def convolve(number: int, into: int, out: int, side: int, **options: Any) -> nn.Conv2d:
            return nn.Conv2d(into, out, side, bias=not is_normed[number - 1], **options)

        def normalise(number: int, channels: int) -> nn.Module:
            if not is_normed[number - 1]:
                return nn.Identity()
            return nn.BatchNorm2d(channels, affine=has_affine)

        base = 8 * width
        self.in_channels = in_channels
        self.num_features = 8 * base * _PRE_LOGITS_SIDE**2
        self.conv1 = convolve(1, in_channels, 3 * base, _CONV1, stride=stride)
        self.bn1 = normalise(1, 3 * base)
        self.conv2 = convolve(2, 3 * base, 8 * base, 5, padding=2, groups=2)
        self.bn2 = normalise(2, 8 * base)
        self.conv3 = convolve(3, 8 * base, 12 * base, 3, padding=1)
        self.bn3 = normalise(3, 12 * base)
        self.conv4 = convolve(4, 12 * base, 12 * base, 3, padding=1, groups=2)
        self.bn4 = normalise(4, 12 * base)
        self.conv5 = convolve(5, 12 * base, 8 * base, 3, padding=1, groups=2)
        self.bn5 = normalise(5, 8 * base)
        self.pool = nn.MaxPool2d(_POOL, _POOL_STRIDE)
        self.lrn: nn.Module = ChannelLRN() if lrn else nn.Identity()
        self.min_side = _needed_side(stride)
        # By fan-in: where no batch norm follows, it is what keeps the scale of the activations.
        init_conv_and_norm(self, mode="fan_in")

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, in_channels, H, W), sides at least ``min_side``.

        Returns:
            conv1, pool1, conv2, pool2, conv3, conv4, conv5 (each after its ReLU), pool5 as
            (B, C, H, W), pools before any response normalisation, and pre_logits (B, D).

        Raises:
            ValueError: if the images are too small.
        """
        if min(x.shape[-2:]) < self.min_side:
            raise ValueError(
                f"images must have sides of at least {self.min_side} pixels for this AlexNet, got "
                f"{x.shape[-2]} x {x.shape[-1]}"
            )
        points = {"conv1": functional.relu(self.bn1(self.conv1(x)))}
        points["pool1"] = self.pool(points["conv1"])
        points["conv2"] = functional.relu(self.bn2(self.conv2(self.lrn(points["pool1"]))))
        points["pool2"] = self.pool(points["conv2"])
        points["conv3"] = functional.relu(self.bn3(self.conv3(self.lrn(points["pool2"]))))
        points["conv4"] = functional.relu(self.bn4(self.conv4(points["conv3"])))
        points["conv5"] = functional.relu(self.bn5(self.conv5(points["conv4"])))
        points["pool5"] = self.pool(points["conv5"])
        points["pre_logits"] = self.forward_regions(points["pool5"])
        return points

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to conv5."""
        return self.forward_features(x)["conv5"]

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map what stands in the place of pool5 (N, C, 6, 6) to pre-logits (N, D)."""
        return _halve_twice(regions).flatten(1)


def _needed_side(stride: int) -> int:
    """Return the smallest image whose last pool has the places that the pre-logits need."""
    side = _PRE_LOGITS_SIDE
    for _ in range(3):
        side = (side - 1) * _POOL_STRIDE + _POOL
    return (side - 1) * stride + _CONV1


def _halve_twice(maps: Tensor) -> Tensor:
    """Average a map in 2 x 2 windows that cover it; they share a row where the side is odd.

    Adaptive pooling would do, but its gradient is not deterministic on a GPU.
    """
    steps = [side // _PRE_LOGITS_SIDE for side in maps.shape[-2:]]
    windows = [side - step for side, step in zip(maps.shape[-2:], steps, strict=True)]
    return functional.avg_pool2d(maps, windows, steps)
