"""Augmentation of normalised images: colours, flip, padded crop, cutout; dense targets follow.

Shape legend: B images, K copies of each, C = 3 channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from . import checks, library, reference  # noqa: F401 - library registers the operators

Space = Literal["lab", "rgb"]
"""Colours of a normalised image: CIE Lab as ``rgb_to_lab`` has it, or RGB in units of 0 .. 1."""


def augment_views(
    images_BHWC: Tensor,
    space: Space,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    gain_BK3: Tensor | None = None,
    shift_BK3: Tensor | None = None,
    grey_BK: Tensor | None = None,
    flip_BK: Tensor | None = None,
    offset_BK2: Tensor | None = None,
    corner_BK2: Tensor | None = None,
    cutout: int = 0,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Convert, normalise, change colours, mirror, crop, cut out, cast and lay out in one pass.

    Each image is converted once, whatever the number of its copies. In this order, as Newell and
    Deng 2020 have it: (x - mean) / std, times the gain and plus the shift of each channel, the mean
    of the channels where grey, mirror, shift against the frame with zeros where nothing of the
    image is, a square of zeros. So what is outside or cut out is of the mean colour. Not
    differentiable. Rows may be strided; images whose pixels are not dense are copied first.

    Args:
        images_BHWC: uint8 RGB.
        space: ``lab`` converts to CIE Lab first, ``rgb`` to 0 .. 1.
        mean: of L, a, b, or of R, G, B in units of 0 .. 1.
        std: likewise, above 0.
        gain_BK3: float32, a factor of each channel; with ``shift_BK3``, else None.
        shift_BK3: float32, added to each channel, in units of its deviation.
        grey_BK: bool; True makes all channels their mean.
        flip_BK: bool; True mirrors left to right.
        offset_BK2: int32 (y, x), the row and column of the mirrored image that comes to the corner
            of the result; negative where the image moves down or right.
        corner_BK2: int32 (y, x), where in the result the square of zeros begins; with ``cutout``.
        cutout: side of that square in pixels; 0 is none.
        dtype: float32, float16 or bfloat16.
        channels_last: write each copy's channels next to each other (torch.channels_last).

    Returns:
        (B, K, 3, H, W) on the same device; K is that of the tensors given, 1 without any.

    Raises:
        ValueError: if a shape, dtype or device is wrong, a std is not above 0, or one of two that
            go together is missing.
    """
    checks.check_images(images_BHWC, (4,))
    checks.check_float_dtype(dtype)
    if space not in ("lab", "rgb"):
        raise ValueError(f"space must be 'lab' or 'rgb', got {space!r}")
    mean, std = checks.check_mean_and_std(mean, std)
    for pair, has_one, has_other in (
        ("gain_BK3 and shift_BK3", gain_BK3 is not None, shift_BK3 is not None),
        ("corner_BK2 and cutout", corner_BK2 is not None, cutout != 0),
    ):
        if has_one != has_other:
            raise ValueError(f"{pair} must be given together, got one of them")
    if cutout < 0:
        raise ValueError(f"cutout must be 0 or a side in pixels, got {cutout}")
    copies = 0
    for name, tensor, kind, last in (
        ("gain_BK3", gain_BK3, torch.float32, (3,)),
        ("shift_BK3", shift_BK3, torch.float32, (3,)),
        ("grey_BK", grey_BK, torch.bool, ()),
        ("flip_BK", flip_BK, torch.bool, ()),
        ("offset_BK2", offset_BK2, torch.int32, (2,)),
        ("corner_BK2", corner_BK2, torch.int32, (2,)),
    ):
        if tensor is None:
            continue
        copies = copies or (tensor.shape[1] if tensor.dim() > 1 else 1)
        legend = "(B, K" + "".join(f", {size}" for size in last) + ")"
        shape = (images_BHWC.shape[0], copies, *last)
        checks.check_tensor(tensor, name, kind, images_BHWC.device, {legend: shape})
    return torch.ops.fastssl.augment_views.default(
        images_BHWC,
        gain_BK3,
        shift_BK3,
        grey_BK,
        flip_BK,
        offset_BK2,
        corner_BK2,
        copies or 1,
        cutout,
        space == "lab",
        mean,
        std,
        dtype,
        channels_last,
    )


def augment_targets(
    targets: Tensor, flip_BK: Tensor | None = None, offset_BK2: Tensor | None = None
) -> Tensor:
    """Let dense targets follow flip and crop: no number is mixed with another, outside is 0.

    Args:
        targets: (B, H, W) or (B, C, H, W) of any type, at the resolution of the images.
        flip_BK: bool, as ``augment_views`` had it.
        offset_BK2: int32, likewise.

    Returns:
        (B, K, H, W) or (B, K, C, H, W) of the same type; K is that of the tensors given, 1 without.

    Raises:
        ValueError: if a shape, dtype or device is wrong.
    """
    if targets.dim() not in (3, 4):
        raise ValueError(
            f"targets must be (B, H, W) or (B, C, H, W), got shape {tuple(targets.shape)}"
        )
    copies = next((t.shape[1] for t in (flip_BK, offset_BK2) if t is not None and t.dim() > 1), 1)
    shape = (targets.shape[0], copies)
    if flip_BK is not None:
        checks.check_tensor(flip_BK, "flip_BK", torch.bool, targets.device, {"(B, K)": shape})
    if offset_BK2 is not None:
        legend = {"(B, K, 2)": (*shape, 2)}
        checks.check_tensor(offset_BK2, "offset_BK2", torch.int32, targets.device, legend)
    has_channels = targets.dim() == 4
    values = targets.movedim(1, -1) if has_channels else targets[..., None]
    moved = reference.move_pixels(
        values[:, None].expand(-1, copies, -1, -1, -1), flip_BK, offset_BK2
    )
    return moved.movedim(-1, 2).contiguous() if has_channels else moved[..., 0].contiguous()
