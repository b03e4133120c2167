"""Detectors on a trunk: Fast R-CNN by its last stage on regions of its map (C4 of a ResNet).

What torchvision has is taken from there: pooling of regions, the code of boxes, suppression. The
rules are those of the Detectron release that Goyal et al. 2019 used.

Shape legend: B images, H W pixels, R regions of an image, N = B * R, C classes, Q = C + 1 with the
background at 0, D features.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..fields import Documented
from .base import RegionTrunk, Trunk

Pooling = Literal["roi_pool", "roi_align"]
"""How regions are cut out of a map: by maxima in whole places, or by bilinear samples."""
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of a box's code: a deviation of 0.1 of the centre over the side, 0.2 of the side's logarithm."""
NOT_SAMPLED = -1
"""Label of a region that takes no part."""
_LOGIT_STD, _BOX_STD = 0.01, 0.001


def import_torchvision(module: str = "torchvision.ops") -> Any:
    """Import a part of torchvision, an optional package.

    Args:
        module: its name.

    Raises:
        ImportError: says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            "detection needs torchvision, which is absent or does not fit this torch "
            f'({error}); install it: pip install "fastssl[detection]"'
        ) from error


@functools.cache
def box_coder(weights: tuple[float, float, float, float] = BOX_WEIGHTS) -> Any:
    """Return what turns boxes into differences from regions and back, torchvision's."""
    return import_torchvision("torchvision.models.detection._utils").BoxCoder(weights)


def fold_norms(network: nn.Module) -> None:
    """Make every batch norm the fixed affine function of its running statistics, in place.

    x * s + t with s = scale / sqrt(variance + epsilon), t = shift - mean * s: what it is in
    evaluation mode. It learns no more, keeps nothing of its input for the backward pass, and a
    batch of one or two large pictures does not change it.

    The study's code folds the deviation of the input into the first convolution too, as Detectron
    subtracts means alone. A trunk of ours is fed (x - mean) / deviation, and a convolution without
    bias of that is the one with weights over the deviation of x - mean, at the border too, where
    both pad with zeros: there is nothing to fold.

    Args:
        network: its parts are exchanged; parameters keep their names, as buffers.
    """
    frozen_norm = import_torchvision().FrozenBatchNorm2d
    for parent in [*network.modules()]:
        for name, norm in [*parent.named_children()]:
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            assert norm.running_mean is not None  # no trunk has one without
            assert norm.running_var is not None
            with torch.device(norm.running_mean.device):  # whatever the device of the context
                fixed = frozen_norm(norm.num_features, norm.eps)
            fixed.running_mean.copy_(norm.running_mean)
            fixed.running_var.copy_(norm.running_var)
            if norm.affine:
                fixed.weight.copy_(norm.weight.detach())
                fixed.bias.copy_(norm.bias.detach())
            setattr(parent, name, fixed.train(norm.training))


def take_apart(trunk: Trunk) -> RegionTrunk:
    """Return a trunk as one that a detector can take apart.

    Args:
        trunk: any.

    Raises:
        InputError: if it has no two parts.
    """
    if not isinstance(trunk, RegionTrunk):
        raise InputError(
            f"trunk '{trunk.name}' cannot be parted into a map and a last stage on its regions; "
            "take a ResNet, RevNet, ResNet9, AlexNet or CaffeNet of ours"
        )
    return trunk


@torch.no_grad()
def find_map_form(trunk: RegionTrunk) -> tuple[int, float]:
    """Return the channels of a trunk's map and its places a pixel, 1/16 of a ResNet.

    Args:
        trunk: is run twice without memory.
    """
    wrapped = _Map(trunk)
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*wrapped.named_parameters(), *wrapped.named_buffers()]
    }
    side = max(256, trunk.min_side)
    shapes = []
    for pixels in (side, 2 * side):
        images = torch.empty(1, trunk.in_channels, pixels, pixels, device="meta")
        shapes.append(torch.func.functional_call(wrapped, state, (images,)).shape)
    return shapes[0][1], (shapes[1][-1] - shapes[0][-1]) / side


class _Map(nn.Module):
    def __init__(self, trunk: RegionTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk.forward_map(images)


class RegionHead(nn.Module):
    """What class a region is of, and for each class where its box lies."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        """Build it with fresh weights from torch's global generator, as Detectron begins them.

        Args:
            num_features: D.
            num_classes: C.
        """
        super().__init__()
        self.classify = nn.Linear(num_features, num_classes + 1)
        self.locate = nn.Linear(num_features, 4 * (num_classes + 1))
        for layer, std in ((self.classify, _LOGIT_STD), (self.locate, _BOX_STD)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, Q) and box codes (N, Q, 4), in float32."""
        codes = self.locate(features_ND).float().unflatten(1, (-1, 4))
        return self.classify(features_ND).float(), codes


def pool_regions(
    maps: Tensor, regions_BR4: Tensor, side: int, scale: float, pooling: Pooling
) -> Tensor:
    """Cut regions out of maps.

    Args:
        maps: (B, channels, H', W').
        regions_BR4: x1, y1, x2, y2 in pixels of the images.
        side: of a cut, in places.
        scale: places of the map a pixel.
        pooling: how.

    Returns:
        (B * R, channels, side, side).
    """
    ops = import_torchvision()
    num, each = regions_BR4.shape[:2]
    kind, maps = maps.dtype, maps.float()  # the operators know no bfloat16 on a CPU
    numbers = torch.arange(num, device=maps.device, dtype=torch.float32).repeat_interleave(each)
    rows = torch.cat((numbers[:, None], regions_BR4.flatten(0, 1).float()), 1)
    if pooling == "roi_pool":
        return ops.roi_pool(maps, rows, side, scale).to(kind)
    return ops.roi_align(maps, rows, side, scale, sampling_ratio=0, aligned=False).to(kind)


def score_regions(
    logits_NQ: Tensor, codes_NQ4: Tensor, labels_N: Tensor, targets_N4: Tensor, beta: float
) -> dict[str, Tensor]:
    """Return the losses of a region head, and how often it is right.

    Args:
        logits_NQ: float32.
        codes_NQ4: float32, a box of each class.
        labels_N: int64, 0 for background, ``NOT_SAMPLED`` for what takes no part.
        targets_N4: the code of the box that belongs to a region of an object.
        beta: where smooth L1 goes over from square to linear; 1 in Detectron.

    Returns:
        ``loss_class`` (mean cross-entropy), ``loss_box`` (smooth L1, summed over the regions of
        objects, over the number of all regions), ``region_accuracy`` and ``object_share``.
    """
    is_sampled, is_object = labels_N >= 0, labels_N > 0
    num = is_sampled.sum().clamp(min=1)
    # Masks and sums rather than rows picked out: shapes are the same whatever was sampled.
    loss = functional.cross_entropy(logits_NQ, labels_N, ignore_index=NOT_SAMPLED, reduction="sum")
    own = labels_N.clamp(min=0)[:, None, None].expand(-1, 1, 4)
    errors = functional.smooth_l1_loss(
        codes_NQ4.gather(1, own)[:, 0], targets_N4, beta=beta, reduction="none"
    )
    is_right = (logits_NQ.detach().argmax(1) == labels_N) & is_sampled
    return {
        "loss_class": loss / num,
        "loss_box": (errors.sum(1) * is_object).sum() / num,
        "region_accuracy": is_right.sum() / num,
        "object_share": is_object.sum() / num,
    }


# ------------------------------------------------------------------ answers


@dataclass(frozen=True)
class AnswerRule(Documented):
    """Which boxes a detector answers with."""

    min_score: float = 0.05
    """Those of a greater score."""
    overlap: float = 0.3
    """Of two boxes of a class that overlap more than this the lower one is left out."""
    most: int = 100
    """Of an image the best ones."""


@dataclass(frozen=True)
class Found(Documented):
    """What was found in one image, best first."""

    boxes: Tensor
    """float32 (K, 4) in pixels of the image as it was shown."""
    scores: Tensor
    """float32 (K,)."""
    classes: Tensor
    """int64 (K,), 0 .. C-1."""


def choose_answers(
    logits_RQ: Tensor,
    codes_RQ4: Tensor,
    regions_R4: Tensor,
    size: tuple[int, int],
    rule: AnswerRule,
) -> Found:
    """Turn what a head says of an image's regions into boxes.

    Args:
        logits_RQ: float32.
        codes_RQ4: float32.
        regions_R4: in pixels.
        size: width and height of the image in pixels.
        rule: which boxes stay.
    """
    ops = import_torchvision()
    scores_RC = logits_RQ.softmax(1)[:, 1:]
    boxes = box_coder().decode(codes_RQ4.flatten(1), [regions_R4])[:, 1:]
    boxes = ops.clip_boxes_to_image(boxes, (size[1], size[0]))
    rows, classes = torch.nonzero(scores_RC > rule.min_score, as_tuple=True)
    boxes, scores = boxes[rows, classes], scores_RC[rows, classes]
    kept = ops.batched_nms(boxes, scores, classes, rule.overlap)[: rule.most]
    return Found(boxes[kept], scores[kept], classes[kept])


def run_in_parts(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], regions_R4: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Ask a head about an image's regions, so many at a time.

    Args:
        function: maps regions (r, 4) to logits and codes.
        regions_R4: R at least 1.
        most: regions at once.
    """
    parts = [function(part) for part in regions_R4.split(most)]
    logits, codes = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(codes)
