"""What Noroozi's and Kolesnikov's jigsaw forms do to a patch beyond the fused operator.

Plain PyTorch in float32, a few passes over the patches; Goyal's form needs none of it.

Shape legend: B images, P patches, S patch side, C = 3 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.input_spec import SCALES
from ..ops import extract_patches, reference

_GREEN_AGAINST_MAGENTA = (-1.0, 2.0, -1.0)


def cut_shifted(
    images_BHWC: Tensor, corners_BP2: Tensor, shifts_BPC2: Tensor, size: int, flip_B: Tensor
) -> Tensor:
    """Cut patches whose colour channels are shifted against each other.

    Args:
        images_BHWC: uint8 RGB.
        corners_BP2: int32 top-left corners (y, x), as of ``extract_patches``.
        shifts_BPC2: int32 pixels (y, x) that each channel's corner moves on; where it would leave
            the image it stays at the border.
        size: patch side S in pixels.
        flip_B: bool, which images are mirrored first.

    Returns:
        uint8 (B, P, S, S, 3).
    """
    height, width = images_BHWC.shape[1:3]
    channels = []
    for channel, shift_BP2 in enumerate(shifts_BPC2.unbind(2)):
        corners = corners_BP2 + shift_BP2
        y, x = corners[..., 0].clamp(max=height - size), corners[..., 1].clamp(max=width - size)
        places = torch.stack([y, x], dim=-1)
        channels.append(extract_patches(images_BHWC, places, size, flip_B=flip_B)[..., channel])
    return torch.stack(channels, dim=-1)


def make_grey(patches_BPSSC: Tensor, grey: Tensor, kind: str) -> Tensor:
    """Replace R, G and B by their grey where a flag says so.

    Args:
        patches_BPSSC: uint8 or floating, 0 .. 255.
        grey: bool (B,) or (B, P).
        kind: ``luma`` or ``mean``.

    Returns:
        float32, not rounded.
    """
    values = patches_BPSSC.float()
    flags = grey.reshape(*grey.shape, *[1] * (values.dim() - grey.dim()))
    return torch.where(flags, reference.weigh_grey(values, kind == "mean"), values)


def project_colours(patches_BPSSC: Tensor, is_projected_B: Tensor) -> Tensor:
    """Take the green-against-magenta direction out of the colours of the images that are flagged.

    v - a (a v) / (a a) with a = (-1, 2, -1) (Noroozi and Favaro 2016). Grey stays as it is; other
    values may leave 0 .. 255 by up to 43, as they do in the original.

    Args:
        patches_BPSSC: uint8 or floating, 0 .. 255.
        is_projected_B: bool.

    Returns:
        float32.
    """
    values = patches_BPSSC.float()
    direction = values.new_tensor(_GREEN_AGAINST_MAGENTA)
    share = (values * direction).sum(-1, keepdim=True) / direction.square().sum()
    flags = is_projected_B[:, None, None, None, None]
    return torch.where(flags, values - share * direction, values)


def normalize_patches(pixels_BPSSC: Tensor, kind: str) -> Tensor:
    """Normalise 0 .. 255 in float32 by the rule that ``extract_patches`` has.

    Args:
        pixels_BPSSC: uint8 or floating.
        kind: ``patch`` for each patch's own mean and deviation, else a name in ``SCALES``.

    Returns:
        float32 of the same shape.
    """
    if kind == "patch":
        return reference.standardize_patches(pixels_BPSSC)
    return reference.scale(pixels_BPSSC, *SCALES[kind])
