"""Whole pictures in the upper left corners of black squares: where they lie, and what is learnt.

Shape legend: B images, L side of a square, H W pixels of the largest picture, N boxes of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..fields import Documented
from ..models.input_spec import InputSpec, make_inputs
from ..randomness import Stream, draw_words, is_below
from ..views import ViewSpec, fitted_sizes


@dataclass(frozen=True)
class Places(Documented):
    """Where pictures lie in their squares; on the CPU."""

    sizes_B2: Tensor
    """int64: width and height in pixels."""
    scales_B2: Tensor
    """float32: these over those of the stored pictures."""
    flips_B: Tensor
    """bool: which are mirrored."""

    def rows(self, start: int, stop: int) -> Places:
        """Return those of some pictures."""
        return Places(
            self.sizes_B2[start:stop], self.scales_B2[start:stop], self.flips_B[start:stop]
        )

    def move(self, boxes_BN4: Tensor) -> Tensor:
        """Bring boxes of the stored pictures to those that are shown, cut to their borders."""
        limits = self.sizes_B2.float().repeat(1, 2)[:, None]
        moved = boxes_BN4.float() * self.scales_B2.repeat(1, 2)[:, None]
        moved = torch.minimum(moved.clamp(min=0), limits)
        x1, y1, x2, y2 = moved.unbind(-1)
        width = limits[..., 0]
        mirrored = torch.stack((width - x2, y1, width - x1, y2), -1)
        return torch.where(self.flips_B[:, None, None], mirrored, moved)

    def cut(self, images_BLLC: Tensor) -> Tensor:
        """Cut squares to the largest picture and mirror those that are to be: (B, H, W, C)."""
        width, height = self.sizes_B2.max(0).values.tolist()
        cut = images_BLLC[:, :height, :width].contiguous()
        if self.flips_B.any() and cut.data_ptr() == images_BLLC.data_ptr():
            cut = cut.clone()
        for row in self.flips_B.nonzero().flatten().tolist():
            w, h = self.sizes_B2[row].tolist()
            cut[row, :h, :w] = cut[row, :h, :w].flip(1)
        return cut

    def blank(self, images_BCHW: Tensor) -> Tensor:
        """Make zero what is no picture."""
        height, width = images_BCHW.shape[2:]
        if (self.sizes_B2 == torch.tensor((width, height))).all():
            return images_BCHW
        inside = [
            torch.arange(length) < self.sizes_B2[:, axis, None]
            for axis, length in ((1, height), (0, width))
        ]
        mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images_BCHW * mask.to(images_BCHW.device, non_blocking=True)


def find_places(
    batch: Batch, view: ViewSpec, seed: int | None = None, flip_probability: float = 0.0
) -> Places:
    """Work out where the pictures of a batch lie.

    Args:
        batch: from the loader; without boxes the largest picture lies in each square.
        view: that it was cut by, from ``ViewSpec.fit``.
        seed: the run's; None where nothing is drawn.
        flip_probability: share of them that is mirrored.
    """
    num, epochs, ids = len(batch), batch.epochs.numpy(), batch.sample_ids.numpy()
    flips = torch.zeros(num, dtype=torch.bool)
    if flip_probability and seed is not None:
        words = draw_words(seed, epochs, ids, Stream.FLIP, num=1)
        flips = torch.from_numpy(is_below(words[:, 0], flip_probability))
    if batch.boxes is None:
        sizes = torch.tensor((view.size, max(view.sides))).expand(num, 2)
        return Places(sizes, torch.ones(num, 2), flips)
    fitted = fitted_sizes((view,), batch.boxes.numpy(), seed, epochs, ids)[:, 0]
    sizes = torch.from_numpy(fitted).long()
    return Places(sizes, sizes.float() / batch.boxes[:, 0, 2:].float(), flips)


def make_images(
    images_BLLC: Tensor, places: Places, spec: InputSpec, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make what a trunk takes of squares: (B, C, H, W), zero where no picture is.

    Args:
        images_BLLC: uint8 RGB.
        places: where pictures lie in them.
        spec: what the trunk takes.
        dtype: of the result.
    """
    return places.blank(make_inputs(places.cut(images_BLLC), spec, dtype))
