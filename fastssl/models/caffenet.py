"""CaffeNet, the supervised AlexNet of Goyal et al. 2019: 56.9 million parameters, no batch norm.

The trunk ends with the second of its fully connected layers; the third is the task's head. It is
not the network of ``alexnet.py``, whose fully connected layers belong to a head, nor torchvision's.

Shape legend: B images, H W pixels, D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from .base import Layers, RegionTrunk
from .layers import ChannelLRN

_DROPOUT = 0.5
_CONV_STD, _FULL_STD = 0.01, 0.005
# The reference begins them so: dead units are rarer where what feeds a ReLU begins above zero.
_BIASES = {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1}


class CaffeNet(RegionTrunk):
    """Five convolutions without padding in the first, then two layers of 1024 x width features.

    Response normalisation stands between the ReLU and the pool of the first two convolutions, as in
    the study's code (BVLC's own file has it behind the pool); groups are on the second, fourth and
    fifth convolution. Weights begin as Caffe's do, which fits images of 0 .. 255 less their mean.
    """

    layers: ClassVar[Layers] = {
        **{f"conv{i}": (f"conv{i}",) for i in range(1, 6)},
        "fc6": ("fc6", "drop6"),
        "pre_logits": ("fc7", "drop7"),
    }
    min_side = 227
    region_side = 6
    body = "conv5"

    def __init__(self, width: int = 4) -> None:
        """Build the trunk with fresh weights.

        Args:
            width: 4 is the standard network; every channel count is proportional to it.
        """
        super().__init__()
        base = 8 * width
        self.num_features = 128 * base
        self.conv1 = nn.Conv2d(3, 3 * base, 11, stride=4)
        self.conv2 = nn.Conv2d(3 * base, 8 * base, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(8 * base, 12 * base, 3, padding=1)
        self.conv4 = nn.Conv2d(12 * base, 12 * base, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(12 * base, 8 * base, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(3, 2)
        self.lrn = ChannelLRN()
        # As convolutions: of an image larger than 227 pixels they see every place where they fit.
        self.fc6 = nn.Conv2d(8 * base, self.num_features, 6)
        self.drop6 = nn.Dropout(_DROPOUT)
        self.fc7 = nn.Conv2d(self.num_features, self.num_features, 1)
        self.drop7 = nn.Dropout(_DROPOUT)
        for name, value in _BIASES.items():
            std = _FULL_STD if name.startswith("fc") else _CONV_STD
            nn.init.normal_(self.get_parameter(f"{name}.weight"), std=std)
            nn.init.constant_(self.get_parameter(f"{name}.bias"), value)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W), sides at least 227.

        Returns:
            conv1 .. conv5 (each after its ReLU, before any response normalisation), pool1, pool2,
            pool5, fc6 (after ReLU and dropout) as (B, C, H, W), and pre_logits (B, D).

        Raises:
            ValueError: if the images are too small.
        """
        points = self._convolve(x)
        points["pool5"] = self.pool(points["conv5"])
        points["fc6"] = self.drop6(functional.relu(self.fc6(points["pool5"])))
        points["pre_logits"] = self._end(points["fc6"])
        return points

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to conv5."""
        return self._convolve(x)["conv5"]

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map what stands in the place of pool5 (N, C, 6, 6) to pre-logits (N, D)."""
        return self._end(self.drop6(functional.relu(self.fc6(regions))))

    def _end(self, fc6: Tensor) -> Tensor:
        return self.drop7(functional.relu(self.fc7(fc6))).mean((2, 3))

    def _convolve(self, x: Tensor) -> dict[str, Tensor]:
        if min(x.shape[-2:]) < self.min_side:
            raise ValueError(
                f"images must have sides of at least {self.min_side} pixels for CaffeNet, got "
                f"{x.shape[-2]} x {x.shape[-1]}"
            )
        points = {"conv1": functional.relu(self.conv1(x))}
        points["pool1"] = self.pool(self.lrn(points["conv1"]))
        points["conv2"] = functional.relu(self.conv2(points["pool1"]))
        points["pool2"] = self.pool(self.lrn(points["conv2"]))
        points["conv3"] = functional.relu(self.conv3(points["pool2"]))
        points["conv4"] = functional.relu(self.conv4(points["conv3"]))
        points["conv5"] = functional.relu(self.conv5(points["conv4"]))
        return points
