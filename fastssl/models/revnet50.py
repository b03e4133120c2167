"""RevNet-50 (Gomez et al. 2017 in the form of Kolesnikov et al. 2019).

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from .base import Layers, RegionTrunk
from .layers import follow_kolesnikov, pool_last, pool_root
from .resnet50_v2 import PreActivationBranch
from .reversible import ReversibleStage, is_autocast

_ROOT_PARTS = 4
"""Parts that the root takes a batch in; each is computed again in the backward pass."""


def _enter(half: Tensor, number: int, stride: int) -> Tensor:
    """Go to the next stage without weights: average 2 x 2, channels doubled by zeros around.

    The zeros stand before the first half's channels and behind the second's.
    """
    if stride == 2:
        # As TensorFlow's SAME: a last window of one pixel is an average of that pixel.
        half = functional.avg_pool2d(half, 2, ceil_mode=True, count_include_pad=False)
    channels = half.shape[1]
    before, behind = (0, channels) if number else (channels, 0)
    return functional.pad(half, (0, 0, 0, 0, before, behind))


def _build_stage(channels: int, num_units: int, stride: int | None = None) -> ReversibleStage:
    """Build units of one resolution; stride is that of the way in, None after the root."""
    half = channels // 2
    return ReversibleStage(
        (PreActivationBranch(half, half // 4, half) for _ in range(num_units)),
        enter=None if stride is None else functools.partial(_enter, stride=stride),
    )


class RevNet50(RegionTrunk):
    """RevNet-50 without its classifier: training memory does not grow with units.

    The widths of ResNet-50 v2, with a quarter of its parameters. What is kept for the backward
    pass is the output of each of four stages; the root, the widest map of all, has no batch norm:
    it is computed again, a part of the batch at a time. Under autocast the stream between the
    units stays float32, so that it can be inverted.
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
            last_stride: of the transition to the last stage; 1 in the form for patches.
            last_relu: False is the paper's RevNet-50 (-).
            has_skip: must be True.

        Raises:
            InputError: if has_skip is False.
        """
        super().__init__()
        if not has_skip:
            raise InputError(
                "has_skip (False) must be True for RevNet-50: a reversible unit is its skip "
                "connection; take resnet50_v2_noskip"
            )
        channels = 64 * width
        self.num_features = 8 * channels
        self.last_relu = last_relu
        self.conv1 = nn.Conv2d(self.in_channels, channels, 7, root_stride, 3, bias=False)
        self.layer1 = _build_stage(channels, 3)
        self.layer2 = _build_stage(2 * channels, 4, 2)
        self.layer3 = _build_stage(4 * channels, 6, 2)
        self.layer4 = _build_stage(8 * channels, 3, last_stride)
        self.bn = nn.BatchNorm2d(self.num_features)
        follow_kolesnikov(self)

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed again; set it to False for plain autograd."""
        return self.layer1.recomputes

    @recomputes.setter
    def recomputes(self, value: bool) -> None:
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            stage.recomputes = value

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the end points.

        Args:
            x: normalised images (B, 3, H, W).

        Returns:
            after_root (after the pool), block1, block2, block3, block4 (before any batch norm) as
            (B, C, H, W) and pre_logits (B, D).
        """
        points = {"after_root": self._run_root(x)}
        halves = self.layer1(*self._split(points["after_root"]))
        points["block1"] = torch.cat(halves, 1)
        halves = self.layer2(*halves)
        points["block2"] = torch.cat(halves, 1)
        halves = self.layer3(*halves)
        points["block3"] = torch.cat(halves, 1)
        halves = self.layer4(*halves)
        points["block4"] = torch.cat(halves, 1)
        points["pre_logits"] = pool_last(self.bn(points["block4"]), self.last_relu)
        return points

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to pre-logits (B, D)."""
        halves = self.layer1(*self._split(self._run_root(x)))
        halves = self.layer2(*halves)
        halves = self.layer3(*halves)
        halves = self.layer4(*halves)
        return pool_last(self.bn(torch.cat(halves, 1)), self.last_relu)

    def forward_map(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to block3."""
        halves = self.layer1(*self._split(self._run_root(x)))
        return torch.cat(self.layer3(*self.layer2(*halves)), 1)

    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of block3 (N, C, 14, 14) to pre-logits (N, D)."""
        halves = self.layer4(*self._split(regions))
        return pool_last(self.bn(torch.cat(halves, 1)), self.last_relu)

    def _run_root(self, x: Tensor) -> Tensor:
        if not (self.recomputes and torch.is_grad_enabled()):
            return self._root(x)
        parts = [
            checkpoint(self._root, part, use_reentrant=False, preserve_rng_state=False)
            for part in x.chunk(_ROOT_PARTS)
        ]
        return torch.cat(parts)

    def _root(self, x: Tensor) -> Tensor:
        return pool_root(self.conv1(x))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the channels, each half contiguous in the memory order of the whole."""
        if is_autocast(x.device.type):
            x = x.float()
        is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        order = torch.channels_last if is_last else torch.contiguous_format
        first, second = x.chunk(2, 1)
        return first.contiguous(memory_format=order), second.contiguous(memory_format=order)
