"""Colour: sRGB to CIE Lab and back, and what a network for colorization sees and is asked for.

Lab is that of scikit-image: sRGB's curve, white D65 of the 2 degree observer, L in 0 .. 100. In the
8-bit variant L, a and b are rounded as if stored in 8 bits (L in steps of 100 / 255, a and b in
steps of 1), as the original of Goyal et al. 2019 did with OpenCV, whose integer arithmetic is one
step off for a tenth of all colours and never more than two.

Shape legend: B images, V views of each, C = 3 channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import checks, library  # noqa: F401 - library registers the operators
from .color_grid import WHITE, XYZ_OF_RGB


def rgb_to_lab(images: Tensor, eight_bit: bool = False) -> Tensor:
    """Convert images to CIE Lab in one pass over memory. Not differentiable.

    Args:
        images: uint8 (B, H, W, 3) or (B, V, H, W, 3), sRGB.
        eight_bit: round as if L, a and b were stored in 8 bits.

    Returns:
        float32 (B, 3, H, W) or (B, V, 3, H, W) on the same device: L in 0 .. 100, a, b.

    Raises:
        ValueError: if shape or dtype is wrong.
    """
    checks.check_images(images, (4, 5))
    op = torch.ops.fastssl.rgb_to_lab.default
    if images.dim() == 5:
        return op(images.flatten(0, 1), eight_bit).unflatten(0, images.shape[:2])
    return op(images, eight_bit)


def split_lab(
    images_BHWC: Tensor,
    stride: int,
    flip_B: Tensor | None = None,
    mean: bool = False,
    eight_bit: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Split images in the lightness that a trunk sees and the a and b that it shall tell.

    One fused pass: mirror, convert, centre and cast lightness, reduce a and b. Not differentiable.

    Args:
        images_BHWC: uint8, sRGB; sides multiples of the stride.
        stride: pixels to one pair of a and b, in both directions: that of the head.
        flip_B: bool (B,); True mirrors left to right, before a and b are reduced.
        mean: a and b are averages over stride x stride pixels; else those of the first of them
            (Zhang et al. 2016).
        eight_bit: round as if L, a and b were stored in 8 bits.
        dtype: of lightness: float32, float16 or bfloat16.

    Returns:
        lightness (B, 1, H, W), L - 50 in -50 .. 50, and float32 ab (B, 2, H / stride, W / stride).

    Raises:
        ValueError: if a shape, dtype or device is wrong, or sides are no multiples of the stride.
    """
    checks.check_images(images_BHWC, (4,))
    checks.check_float_dtype(dtype)
    num, height, width = images_BHWC.shape[:3]
    if stride < 1 or height % stride or width % stride:
        raise ValueError(
            f"stride ({stride}) must divide the sides of images, got {height} x {width}"
        )
    if flip_B is not None:
        checks.check_tensor(flip_B, "flip_B", torch.bool, images_BHWC.device, {"(B,)": (num,)})
    op = torch.ops.fastssl.split_lab.default
    return op(images_BHWC, flip_B, stride, mean, eight_bit, dtype)


def has_color(ab_B2HW: Tensor, threshold: float = 5.0) -> Tensor:
    """Tell which images have any colour to learn from (Zhang et al. 2016).

    Args:
        ab_B2HW: a and b, reduced or not.
        threshold: an image counts where some a or b is further than it from 0.

    Returns:
        bool (B,).
    """
    return (ab_B2HW.abs() > threshold).flatten(1).any(1)


def lab_to_rgb(lab_B3HW: Tensor) -> Tensor:
    """Convert CIE Lab to sRGB, for pictures; what sRGB does not have is clipped.

    Args:
        lab_B3HW: floating (B, 3, H, W): L in 0 .. 100, a, b.

    Returns:
        uint8 (B, H, W, 3).
    """
    lightness, a, b = lab_B3HW.float().unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], -1)
    cubes = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    device = lab_B3HW.device
    xyz = cubes.clamp(min=0) * torch.tensor(WHITE, device=device)
    rgb_of_xyz = torch.linalg.inv(torch.tensor(XYZ_OF_RGB, dtype=torch.float64)).float()
    linear = (xyz @ rgb_of_xyz.to(device).T).clamp(0, 1)
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    values = torch.where(linear > 0.0031308, curve, 12.92 * linear)
    return (255 * values).round().clamp(0, 255).to(torch.uint8)
