"""From a crop to what people and trunks see of its patches: two ways, each from top to bottom.

Shape legend: B images, P patches, S patch side, C = 3 channels, H W pixels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..models.input_spec import SCALES
from ..ops import extract_patches
from .patch_colours import cut_shifted, make_grey, normalize_patches, project_colours


class FusedPatches:
    """Mirror, cut, grey by luma, normalise, order and cast in one pass of ``extract_patches``."""

    def __init__(self, size: int, normalize: str) -> None:
        """Remember what is the same for all images.

        Args:
            size: patch side S in pixels.
            normalize: ``patch`` for each patch's own mean and deviation, else a name in ``SCALES``.
        """
        self._size = size
        mean, std = SCALES.get(normalize, (None, None))
        is_own = normalize == "patch"
        self._scale: dict[str, Any] = {"mean": mean, "std": std, "standardize": is_own}

    def show(self, images_BHWC: Tensor, drawn: Any) -> Tensor:
        """Cut the patches as people see them.

        Args:
            images_BHWC: uint8 RGB.
            drawn: ``corners_BP2``, ``flip_B`` and ``grey`` as of ``extract_patches``.

        Returns:
            uint8 (B, P, S, S, 3).
        """
        return extract_patches(
            images_BHWC, drawn.corners_BP2, self._size, flip_B=drawn.flip_B, grey=drawn.grey
        )

    def prepare(
        self, images_BHWC: Tensor, drawn: Any, dtype: torch.dtype, order_BP: Tensor | None = None
    ) -> Tensor:
        """Cut the patches as a trunk sees them.

        Args:
            images_BHWC: uint8 RGB.
            drawn: as of ``show``.
            dtype: of the result.
            order_BP: int64, slot i holds patch ``order_BP[b, i]``; none keeps the order.

        Returns:
            (B, P, 3, S, S), ``.flatten(0, 1)`` of it torch.channels_last.
        """
        return extract_patches(
            images_BHWC,
            drawn.corners_BP2,
            self._size,
            flip_B=drawn.flip_B,
            grey=drawn.grey,
            order_BP=order_BP,
            **self._scale,
            dtype=dtype,
            channels_last=True,
        )


class PaintedPatches:
    """The same with what the operator does not know, in plain PyTorch, a few passes more."""

    def __init__(
        self,
        size: int,
        normalize: str,
        grey: Literal["luma", "mean"] | None,
        has_shifts: bool = False,
        has_projection: bool = False,
    ) -> None:
        """Remember what is the same for all images.

        Args:
            size: patch side S in pixels.
            normalize: as of ``FusedPatches``.
            grey: of images or patches made grey; None makes none grey.
            has_shifts: whether the channels of a patch are shifted against each other.
            has_projection: whether images lose their green-magenta colour.
        """
        self._size = size
        self._normalize = normalize
        self._has_shifts = has_shifts
        self._has_projection = has_projection
        # The operator's luma is that of whole pixels: channels that are shifted are none yet.
        self._is_grey_cut = grey == "luma" and not has_shifts
        self._grey = None if self._is_grey_cut else grey

    def show(self, images_BHWC: Tensor, drawn: Any) -> Tensor:
        """Cut the patches and change their colours.

        Args:
            images_BHWC: uint8 RGB.
            drawn: as of ``FusedPatches.show``; with them, where they are asked for,
                ``shifts_BPC2`` and ``is_projected_B``.

        Returns:
            (B, P, S, S, 3), uint8 or float32; a projection may leave 0 .. 255.
        """
        corners_BP2, flip_B = drawn.corners_BP2, drawn.flip_B
        if self._has_shifts:
            pixels = cut_shifted(images_BHWC, corners_BP2, drawn.shifts_BPC2, self._size, flip_B)
        else:
            grey = drawn.grey if self._is_grey_cut else None
            pixels = extract_patches(images_BHWC, corners_BP2, self._size, flip_B=flip_B, grey=grey)
        if self._grey is not None:
            pixels = make_grey(pixels, drawn.grey, self._grey)
        if self._has_projection:
            pixels = project_colours(pixels, drawn.is_projected_B)
        return pixels

    def prepare(
        self, images_BHWC: Tensor, drawn: Any, dtype: torch.dtype, order_BP: Tensor | None = None
    ) -> Tensor:
        """Cut the patches as a trunk sees them; arguments and result as of ``FusedPatches``."""
        pixels = self.show(images_BHWC, drawn)
        if order_BP is not None:
            rows = torch.arange(len(pixels), device=pixels.device)
            pixels = pixels[rows[:, None], order_BP]
        return normalize_patches(pixels, self._normalize).to(dtype).movedim(-1, -3)


def choose_look(
    size: int,
    normalize: str,
    grey: Literal["luma", "mean"] | None,
    has_shifts: bool = False,
    has_projection: bool = False,
) -> FusedPatches | PaintedPatches:
    """Return the cheapest way to what is asked for; arguments as of ``PaintedPatches``."""
    if grey == "mean" or has_shifts or has_projection:
        return PaintedPatches(size, normalize, grey, has_shifts, has_projection)
    return FusedPatches(size, normalize)
