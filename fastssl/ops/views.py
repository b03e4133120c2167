"""Operators on whole views.

Shape legend: B samples, V views of each, C = 3 channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from . import checks, library  # noqa: F401 - library registers the operators


def _flags_of_views(
    flags: Tensor | None, name: str, images_BVHWC: Tensor, dtype: torch.dtype = torch.bool
) -> Tensor | None:
    """Give every view its flag or number: (B,) or (B, V) becomes (B * V,)."""
    if flags is None:
        return None
    num, views = images_BVHWC.shape[:2]
    shapes: dict[str, tuple[int, ...]] = {"(B,)": (num,), "(B, V)": (num, views)}
    checks.check_tensor(flags, name, dtype, images_BVHWC.device, shapes)
    if flags.dim() == 1:
        flags = flags[:, None].expand(num, views)
    return flags.reshape(-1)


def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    flip_B: Tensor | None = None,
    grey_B: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Mirror, make grey, normalise, cast and lay out images in one pass over memory.

    Grey is ITU-R 601 luma with Pillow's rounding, (19595 R + 38470 G + 7471 B + 2**15) >> 16, in
    all three channels. Not differentiable. Rows may be strided; images whose pixels are not dense
    are copied first.

    Args:
        images: uint8 (B, H, W, 3) or (B, V, H, W, 3), RGB.
        mean: of R, G, B, in units of 0..1.
        std: of R, G, B, in units of 0..1.
        flip_B: bool (B,), or (B, V) with views; True mirrors left to right.
        grey_B: bool (B,), or (B, V) with views; True makes grey, before normalising.
        dtype: float32, float16 or bfloat16.
        channels_last: write each image's channels next to each other (torch.channels_last).

    Returns:
        (x / 255 - mean) / std as (B, 3, H, W) or (B, V, 3, H, W) on the same device.

    Raises:
        ValueError: if a shape, dtype or device is wrong, or a std is not above 0.
    """
    checks.check_images(images, (4, 5))
    checks.check_float_dtype(dtype)
    mean, std = checks.check_mean_and_std(mean, std)
    op = torch.ops.fastssl.normalize.default
    if images.dim() == 5:
        flip = _flags_of_views(flip_B, "flip_B", images)
        grey = _flags_of_views(grey_B, "grey_B", images)
        out = op(images.flatten(0, 1), flip, grey, mean, std, dtype, channels_last)
        return out.unflatten(0, images.shape[:2])
    for name, flags in (("flip_B", flip_B), ("grey_B", grey_B)):
        if flags is not None:
            shape = {"(B,)": (images.shape[0],)}
            checks.check_tensor(flags, name, torch.bool, images.device, shape)
    return op(images, flip_B, grey_B, mean, std, dtype, channels_last)


def color_jitter(
    images: Tensor,
    brightness_B: Tensor,
    saturation_B: Tensor,
    brightness_first_B: Tensor,
    flip_B: Tensor | None = None,
    grey_B: Tensor | None = None,
    grey: Literal["luma", "mean"] = "luma",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    standardize: bool = False,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Mirror, make grey, change brightness and saturation, scale, cast and lay out in one pass.

    Two passes where ``standardize`` needs each view's mean and deviation first. Brightness is added
    to R, G and B; the saturation is that of HSV, (max - min) / max, and stops at 1; values are
    clipped to 0 .. 255 at the end and rounded nowhere. Not differentiable.

    Args:
        images: uint8 (B, H, W, 3) or (B, V, H, W, 3), RGB; V views of each image.
        brightness_B: float32 (B,), or (B, V) with views, as the four that follow: what is added to
            values of 0 .. 1; 0 leaves them.
        saturation_B: float32, the factor of the saturation; 1 leaves it. Not negative, which is not
            looked for: below 0 the other channels rise above the greatest, on every device alike.
        brightness_first_B: bool; True changes the brightness first, False the saturation.
        flip_B: bool; True mirrors left to right.
        grey_B: bool; True makes grey before all else.
        grey: that grey is the luma (ITU-R 601) or the mean of the channels.
        mean: of R, G, B, in units of 0..1; with ``std``.
        std: of R, G, B, in units of 0..1.
        standardize: instead of the two, give each view zero mean and a deviation of 1 over its
            pixels and channels; a flat one becomes zeros.
        dtype: float32, float16 or bfloat16.
        channels_last: write each view's channels next to each other (torch.channels_last).

    Returns:
        (x / 255 - mean) / std, or standardised, as (B, 3, H, W) or (B, V, 3, H, W) on the same
        device.

    Raises:
        ValueError: if a shape, dtype or device is wrong, or not one of the two scalings is given.
    """
    checks.check_images(images, (4, 5))
    checks.check_float_dtype(dtype)
    if grey not in ("luma", "mean"):
        raise ValueError(f"grey must be 'luma' or 'mean', got {grey!r}")
    if standardize == (mean is not None) or (mean is None) != (std is None):
        raise ValueError(
            "give mean and std together or set standardize=True, got "
            f"mean {mean}, std {std}, standardize {standardize}"
        )
    if mean is not None and std is not None:
        mean, std = checks.check_mean_and_std(mean, std)
    views = images if images.dim() == 5 else images[:, None]

    def flatten(values: Tensor | None, name: str, dtype: torch.dtype) -> Tensor | None:
        return _flags_of_views(values, name, views, dtype)

    out = torch.ops.fastssl.color_jitter.default(
        views.flatten(0, 1),
        flatten(brightness_B, "brightness_B", torch.float32),
        flatten(saturation_B, "saturation_B", torch.float32),
        flatten(brightness_first_B, "brightness_first_B", torch.bool),
        flatten(flip_B, "flip_B", torch.bool),
        flatten(grey_B, "grey_B", torch.bool),
        grey == "mean",
        mean,
        std,
        standardize,
        dtype,
        channels_last,
    )
    return out.unflatten(0, images.shape[:2]) if images.dim() == 5 else out
