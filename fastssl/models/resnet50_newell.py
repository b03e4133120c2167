"""ResNet-50 in the form of Newell and Deng 2020, for images of 64 and 128 pixels.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Layers, LocalTrunk
from .layers import init_conv_and_norm
from .resnet50 import ResNet50

# AMDIM's finer map is the output of the fifth of six units of the third stage, its coarser map that
# of the second of three of the fourth.
_FINE_UNITS, _COARSE_UNITS = 5, 2


class ResNet50Newell(ResNet50, LocalTrunk):
    """ResNet-50 without the root's pool, whose feature layer acts at every location.

    Newell and Deng 2020; 24,032,576 parameters at the standard width. Weights but those of ``fc``
    are named and, but in the half form, shaped as torchvision's.
    """

    layers: ClassVar[Layers] = {**ResNet50.layers, "fc": ("fc",)}

    def __init__(
        self,
        width: int = 4,
        in_channels: int = 3,
        is_dense: bool = False,
        is_half: bool = False,
    ) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
            in_channels: of the images.
            is_dense: as for dense tasks: twice the features, and a last stage with a dilation of 2
                in place of its stride; an image of 128 px ends as 16.
            is_half: half the channels everywhere but in the first convolution.
        """
        divisor = 2 if is_half else 1
        super().__init__(
            width,
            last_stride=1 if is_dense else 2,
            in_channels=in_channels,
            has_root_pool=False,
            last_dilation=2 if is_dense else 1,
            stage_divisor=divisor,
        )
        last = self.num_features
        self.local_channels = (last // 2, last)
        self.num_features = 64 * width // divisor * (2 if is_dense else 1)
        # A 1x1 convolution: the linear layer of the paper at every location.
        self.fc = nn.Conv2d(last, self.num_features, 1)
        init_conv_and_norm(self.fc)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, in_channels, H, W).

        Returns:
            conv1, res2, res3, res4, res5, fc (the dense features) as (B, C, H, W) and pre_logits
            (B, D), the mean of fc.
        """
        points = super().forward_features(x)
        del points["pre_logits"]
        points["fc"] = self.fc(points["res5"])
        points["pre_logits"] = points["fc"].mean((2, 3))
        return points

    def forward_local(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return maps of inner units of res4 and res5, and pre_logits (B, D).

        Args:
            x: normalised images (B, in_channels, H, W).
        """
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        fine = self.layer3[:_FINE_UNITS](x)
        coarse = self.layer4[:_COARSE_UNITS](self.layer3[_FINE_UNITS:](fine))
        return fine, coarse, self.fc(self.layer4[_COARSE_UNITS:](coarse)).mean((2, 3))

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of res4 (N, C, 14, 14) to pre-logits (N, D)."""
        return self.fc(self.layer4(regions)).mean((2, 3))
