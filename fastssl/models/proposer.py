"""Where objects may be: the region proposal network of Faster R-CNN on the map of a trunk (C4).

Anchors and head are torchvision's; which anchors are learnt from is drawn as regions are, by
numbers that come with every anchor, and shapes depend on no value.

Shape legend: B images, H' W' places of a map, K anchors a place, A = H' * W' * K anchors of an
image, M most objects, P proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..fields import Documented
from .detection import NOT_SAMPLED, box_coder, import_torchvision
from .region_sampling import find_places_in_rank, overlap_all

_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
_BETA = 1 / 9
RATIOS = (0.5, 1.0, 2.0)
"""Heights over widths of anchors."""


@dataclass(frozen=True)
class ProposalRule(Documented):
    """Which anchors are learnt from, and which become proposals; the numbers are Detectron's."""

    num: int = 256
    """Anchors of an image that are learnt from."""
    object_share: float = 0.5
    """Most of them that are of objects."""
    overlap: float = 0.7
    """Least intersection over union with an object of an anchor of it; its best anchor is too."""
    background: float = 0.3
    """An anchor of the background overlaps every object less."""
    nms_overlap: float = 0.7
    """Of two proposals that overlap more than this the lower one is left out."""


class RegionProposer(nn.Module):
    """Says of anchors at every place whether they hold an object, and where it lies."""

    def __init__(
        self,
        channels: int,
        scale: float,
        sizes: tuple[int, ...] = (64, 128, 256, 512),
        rule: ProposalRule | None = None,
    ) -> None:
        """Build it with fresh weights from torch's global generator.

        Args:
            channels: of the map.
            scale: places of the map a pixel.
            sizes: roots of the anchors' areas, in pixels.
            rule: which anchors are learnt from.
        """
        super().__init__()
        self.rule = rule or ProposalRule()
        self.stride = round(1 / scale)
        self.num_anchors = len(sizes) * len(RATIOS)
        self.head = import_torchvision("torchvision.models.detection.rpn").RPNHead(
            channels, self.num_anchors
        )
        self._make_anchors = import_torchvision(
            "torchvision.models.detection.anchor_utils"
        ).AnchorGenerator((tuple(sizes),), (RATIOS,))

    def list_anchors(self, maps: Tensor) -> Tensor:
        """Return (A, 4) in pixels, those of a place behind one another, row by row."""
        generator = self._make_anchors
        generator.set_cell_anchors(torch.float32, maps.device)
        step = torch.tensor(self.stride, device=maps.device)
        (anchors,) = generator.grid_anchors([maps.shape[-2:]], [[step, step]])
        return anchors

    def ask(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, A) and box codes (B, A, 4), in float32."""
        (logits,), (codes,) = self.head([maps])
        codes = codes.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return logits.permute(0, 2, 3, 1).flatten(1).float(), codes.float()

    @torch.no_grad()
    def choose(
        self,
        logits_BA: Tensor,
        codes_BA4: Tensor,
        anchors_A4: Tensor,
        sizes_B2: Tensor,
        before: int,
        after: int,
    ) -> Tensor:
        """Return proposals (B, after, 4) in pixels, best first, unused rows zero.

        Args:
            logits_BA: from ``ask``.
            codes_BA4: likewise.
            anchors_A4: from ``list_anchors``.
            sizes_B2: width and height of the pictures in pixels.
            before: best anchors that are looked at.
            after: P.
        """
        scores, rows = logits_BA.topk(min(before, logits_BA.shape[1]), dim=1)
        codes = codes_BA4.gather(1, rows[..., None].expand(-1, -1, 4))
        decoded = box_coder(_WEIGHTS).decode_single(codes.flatten(0, 1), anchors_A4[rows.flatten()])
        limits = sizes_B2.float().repeat(1, 2)[:, None]
        boxes = torch.minimum(decoded.view_as(codes).clamp(min=0), limits)
        return keep_best(boxes, scores, self.rule.nms_overlap, after)

    def propose(self, maps: Tensor, sizes_B2: Tensor, before: int, after: int) -> Tensor:
        """Return proposals (B, after, 4) of maps; see ``choose``."""
        return self.choose(*self.ask(maps), self.list_anchors(maps), sizes_B2, before, after)

    def score(
        self,
        logits_BA: Tensor,
        codes_BA4: Tensor,
        labels_BA: Tensor,
        targets_BA4: Tensor,
    ) -> dict[str, Tensor]:
        """Return ``loss_anchor`` (mean cross-entropy) and ``loss_anchor_box`` (smooth L1).

        Args:
            logits_BA: from ``ask``.
            codes_BA4: likewise.
            labels_BA: from ``sample_anchors``.
            targets_BA4: likewise.
        """
        is_sampled, is_object = labels_BA >= 0, labels_BA > 0
        num = is_sampled.sum().clamp(min=1)
        losses = functional.binary_cross_entropy_with_logits(
            logits_BA, is_object.float(), reduction="none"
        )
        errors = functional.smooth_l1_loss(codes_BA4, targets_BA4, beta=_BETA, reduction="none")
        return {
            "loss_anchor": (losses * is_sampled).sum() / num,
            "loss_anchor_box": (errors.sum(2) * is_object).sum() / num,
        }

    @torch.no_grad()
    def sample_anchors(
        self,
        anchors_A4: Tensor,
        sizes_B2: Tensor,
        objects_BM4: Tensor,
        classes_BM: Tensor,
        draws_BA: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Choose the anchors that are learnt from.

        Those that cross a picture's border have no part in it.

        Args:
            anchors_A4: from ``list_anchors``.
            sizes_B2: width and height of the pictures in pixels.
            objects_BM4: in pixels.
            classes_BM: int64; -1 where there is no object.
            draws_BA: float32 in 0 .. 1, of each anchor.

        Returns:
            int64 (B, A): 1 object, 0 background, ``NOT_SAMPLED``; and the codes (B, A, 4).
        """
        rule, is_there = self.rule, classes_BM >= 0
        anchors = anchors_A4.expand(len(objects_BM4), -1, -1)
        limits = sizes_B2.float()[:, None]
        is_inside = (anchors[..., :2] >= 0).all(2) & (anchors[..., 2:] <= limits).all(2)
        shares = overlap_all(anchors, objects_BM4, is_there) * is_inside[..., None]
        best, which = shares.max(2)
        highest = shares.max(1, keepdim=True).values
        is_best = ((shares == highest) & (highest > 0)).any(2)
        is_object = is_inside & ((best >= rule.overlap) | is_best)
        is_background = is_inside & ~is_object & (best < rule.background)
        taken = is_object & (
            find_places_in_rank(draws_BA, is_object) < round(rule.num * rule.object_share)
        )
        left = rule.num - taken.sum(1, keepdim=True)
        others = is_background & (find_places_in_rank(draws_BA, is_background) < left)
        labels = torch.where(taken, 1, torch.where(others, 0, NOT_SAMPLED))
        near = objects_BM4.gather(1, which[..., None].expand(-1, -1, 4))
        own = torch.where(taken[..., None], near, anchors)
        codes = box_coder(_WEIGHTS).encode_single(own.flatten(0, 1), anchors.flatten(0, 1))
        return labels, codes.view_as(own)


@torch.library.custom_op("fastssl::keep_best_regions", mutates_args=())
def keep_best(boxes_BK4: Tensor, scores_BK: Tensor, overlap: float, most: int) -> Tensor:
    """Suppress boxes that overlap a better one: float32 (B, most, 4), best first, then zeros.

    An operator, so that it has a shape where tensors have no memory.

    Args:
        boxes_BK4: empty ones are none.
        scores_BK: greater for what is better.
        overlap: greatest intersection over union of two that stay.
        most: of an image.
    """
    nms = import_torchvision().nms
    chosen = boxes_BK4.new_zeros(len(boxes_BK4), most, 4)
    for own, boxes, scores in zip(chosen, boxes_BK4, scores_BK, strict=True):
        is_real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        real = boxes[is_real]
        kept = real[nms(real, scores[is_real], overlap)[:most]]
        own[: len(kept)] = kept
    return chosen


@keep_best.register_fake
def _(boxes_BK4: Tensor, scores_BK: Tensor, overlap: float, most: int) -> Tensor:  # noqa: ARG001
    return boxes_BK4.new_empty(len(boxes_BK4), most, 4)
