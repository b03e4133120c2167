"""Operators on whole views.

Shape legend: B samples, V views of each, C = 3 channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, library  # noqa: F401 - library registers the operators


def _flags_of_views(flags: Tensor | None, name: str, images_BVHWC: Tensor) -> Tensor | None:
    """Give every view its flag: (B,) or (B, V) becomes (B * V,)."""
    if flags is None:
        return None
    num, views = images_BVHWC.shape[:2]
    shapes: dict[str, tuple[int, ...]] = {"(B,)": (num,), "(B, V)": (num, views)}
    checks.check_tensor(flags, name, torch.bool, images_BVHWC.device, shapes)
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
