"""Which regions of an image a detector learns from: by overlap with objects, and by draw.

Nothing is drawn here: every candidate comes with a number that was drawn for it, the least are
taken. Shapes depend on no value, so that the same code runs where tensors have no memory.

Shape legend: B images, P candidates of each, M most objects, R regions that are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import Documented
from .detection import NOT_SAMPLED, box_coder, import_torchvision


@dataclass(frozen=True)
class SamplingRule(Documented):
    """How many regions of which kind; the numbers are Detectron's."""

    num: int = 64
    """R, of an image."""
    object_share: float = 0.25
    """Most of them that are of objects."""
    overlap: float = 0.5
    """Least intersection over union with an object of a region of it; less is background."""


@dataclass(frozen=True)
class Regions(Documented):
    """What is learnt from."""

    boxes: Tensor
    """float32 (B, R, 4): x1, y1, x2, y2 in pixels."""
    labels: Tensor
    """int64 (B, R): 0 background, 1 + class, or ``NOT_SAMPLED`` where there were too few."""
    targets: Tensor
    """float32 (B, R, 4): the code of the object's box; zeros for background."""


@torch.no_grad()
def sample_regions(
    proposals_BP4: Tensor,
    objects_BM4: Tensor,
    classes_BM: Tensor,
    draws: Tensor,
    rule: SamplingRule,
) -> Regions:
    """Choose R regions of each image; its objects' own boxes are among the candidates.

    A quarter at most are of objects, by chance among those that overlap one enough; the others are
    of the background, by chance among all that overlap every object less. Where there are fewer of
    either the rest stays empty, or is background.

    Args:
        proposals_BP4: x1, y1, x2, y2 in pixels; empty boxes are none.
        objects_BM4: likewise.
        classes_BM: int64; -1 where there is no object.
        draws: float32 (B, P + M) in 0 .. 1, of each proposal and object.
        rule: how many.
    """
    candidates = torch.cat((proposals_BP4, objects_BM4), 1).float()
    is_there = classes_BM >= 0
    is_real = torch.cat((_has_area(proposals_BP4), is_there & _has_area(objects_BM4)), 1)
    shares, which = find_overlaps(candidates, objects_BM4, is_there)
    is_object = is_real & (shares >= rule.overlap)
    is_background = is_real & ~is_object
    most = round(rule.num * rule.object_share)
    taken = is_object & (find_places_in_rank(draws, is_object) < most)
    left = rule.num - taken.sum(1, keepdim=True)
    others = is_background & (find_places_in_rank(draws, is_background) < left)
    # Objects first, then background, then what is not taken.
    place = torch.where(taken, draws, torch.where(others, draws + 1, 3.0))
    num = min(rule.num, candidates.shape[1])
    order = place.argsort(stable=True, dim=1)[:, :num]
    chosen = place.gather(1, order)
    classes = classes_BM.gather(1, which)
    labels = torch.where(taken, classes + 1, 0).gather(1, order)
    labels = torch.where(chosen < 3, labels, NOT_SAMPLED)
    boxes = _take(candidates, order)
    # An empty box has no code; what is not taken stands for the first pixel.
    boxes = torch.where((chosen < 3)[..., None], boxes, _first_pixel(boxes))
    own = torch.where((labels > 0)[..., None], _take(_take(objects_BM4, which), order), boxes)
    codes = box_coder().encode_single(own.flatten(0, 1), boxes.flatten(0, 1)).view_as(boxes)
    missing = rule.num - num
    if missing > 0:
        boxes = torch.cat((boxes, _first_pixel(boxes[:, :1].expand(-1, missing, -1))), 1)
        labels = torch.cat((labels, labels.new_full((len(labels), missing), NOT_SAMPLED)), 1)
        codes = torch.cat((codes, codes.new_zeros(len(codes), missing, 4)), 1)
    return Regions(boxes, labels, codes)


def find_overlaps(
    boxes_BP4: Tensor, objects_BM4: Tensor, is_there_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (B, P) the greatest overlap of each box with an object, 0 without any, and whose.

    Args:
        boxes_BP4: x1, y1, x2, y2.
        objects_BM4: likewise, M at least 1.
        is_there_BM: bool.
    """
    shares = overlap_all(boxes_BP4, objects_BM4, is_there_BM)
    best, which = shares.max(2)
    return best, which


def overlap_all(boxes_BP4: Tensor, objects_BM4: Tensor, is_there_BM: Tensor) -> Tensor:
    """Return the intersection over union of every box with every object, 0 for none: (B, P, M)."""
    box_iou = import_torchvision().box_iou
    pairs = zip(boxes_BP4.float(), objects_BM4.float(), strict=True)
    shares = torch.stack([box_iou(boxes, objects) for boxes, objects in pairs])
    return torch.where(is_there_BM[:, None], shares.nan_to_num(0.0), 0.0)


def find_places_in_rank(draws: Tensor, is_of: Tensor) -> Tensor:
    """Return the place of each by its draw among those that are of a kind, from 0.

    Args:
        draws: (B, N) in 0 .. 1.
        is_of: bool (B, N); the places of others mean nothing.
    """
    order = torch.where(is_of, draws, 2.0).argsort(stable=True, dim=1)
    return order.argsort(stable=True, dim=1)


def _has_area(boxes: Tensor) -> Tensor:
    return ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)


def _take(boxes_BP4: Tensor, rows_BR: Tensor) -> Tensor:
    return boxes_BP4.float().gather(1, rows_BR[..., None].expand(-1, -1, 4))


def _first_pixel(like: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(like[..., :2]), torch.ones_like(like[..., 2:])), -1)
