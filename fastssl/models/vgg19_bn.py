"""VGG-19 with batch norm, in the form of Kolesnikov et al. 2019.

torchvision's ``vgg19_bn`` has the same sixteen convolutions, but with biases, and Linear layers
with dropout: its weights do not fit here.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from .base import Layers, Trunk
from .layers import follow_kolesnikov

_GROUPS = ((2, 1), (2, 2), (4, 4), (4, 8), (4, 8))
"""Convolutions of each group, and its channels in units of the first group's."""


class NormedConv(nn.Sequential):
    """Convolution without bias, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, side: int, padding: int = 0) -> None:
        """Build the layer.

        Args:
            in_channels: of the input.
            out_channels: of the output.
            side: of the kernel, in pixels.
            padding: zeros around the input, in pixels.
        """
        super().__init__(
            nn.Conv2d(in_channels, out_channels, side, padding=padding, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class VGG19BN(Trunk):
    """VGG-19 with batch norm instead of dropout, its fully connected layers as convolutions.

    fc6's kernel is the whole last map of images of one size. Of larger images it sees every place
    where it fits, and the pre-logits are an average over them. Width 8 is the standard network.
    Weights begin Glorot-uniform, batch norms have an epsilon of 1e-3 and a momentum of 0.01.
    """

    layers: ClassVar[Layers] = {
        **{f"block{number}": (f"group{number}",) for number in range(1, len(_GROUPS) + 1)},
        "fc6": ("fc6",),
        "pre_logits": ("fc7",),
    }

    def __init__(self, width: int = 8, side: int = 224) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 8 is the standard network; every channel count is proportional to it.
            side: of the images, in pixels, at least 32; 224, or 64 for patches.
        """
        super().__init__()
        base, self.num_features = 8 * width, 512 * width
        into, kernel = self.in_channels, side // 32
        groups = []
        for num_convs, factor in _GROUPS:
            out = factor * base
            convs = [NormedConv(into if i == 0 else out, out, 3, 1) for i in range(num_convs)]
            groups.append(nn.Sequential(*convs))
            into = out
        self.group1, self.group2, self.group3, self.group4, self.group5 = groups
        self.fc6 = NormedConv(into, self.num_features, kernel)
        self.fc7 = NormedConv(self.num_features, self.num_features, 1)
        self.min_side = 32 * kernel
        follow_kolesnikov(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W), sides at least ``min_side``.

        Returns:
            block1, block2, block3, block4, block5 (each before its max pool; the paper's text
            counts from the second), fc6 as (B, C, H, W) and pre_logits (B, D).

        Raises:
            ValueError: if the images are too small.
        """
        if min(x.shape[-2:]) < self.min_side:
            raise ValueError(
                f"images must have sides of at least {self.min_side} pixels for this VGG-19, got "
                f"{x.shape[-2]} x {x.shape[-1]}; vgg19_bn_patch takes 64"
            )
        points = {}
        for number in range(1, len(_GROUPS) + 1):
            points[f"block{number}"] = getattr(self, f"group{number}")(x)
            x = functional.max_pool2d(points[f"block{number}"], 2)
        points["fc6"] = self.fc6(x)
        points["pre_logits"] = self.fc7(points["fc6"]).mean((2, 3))
        return points
