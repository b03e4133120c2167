"""Operators on patches of images.

Shape legend: B images, P patches of each, C = 3 channels, H W pixels, S patch side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, library  # noqa: F401 - library registers the operators


def _output_dtype(dtype: torch.dtype | None, is_float: bool) -> torch.dtype:
    """Return the dtype of the result, checked against what is done to the pixels."""
    if is_float:
        dtype = torch.float32 if dtype is None else dtype
        checks.check_float_dtype(dtype)
        return dtype
    if dtype not in (None, torch.uint8):
        raise ValueError(
            f"dtype must be uint8 where nothing normalises, got {dtype}; give mean and std, or "
            "standardize=True"
        )
    return torch.uint8


def _check_tensors(
    images_BHWC: Tensor,
    corners_BP2: Tensor,
    flip_B: Tensor | None,
    grey: Tensor | None,
    order_BP: Tensor | None,
) -> None:
    """Raise for a wrong shape, dtype or device."""
    checks.check_images(images_BHWC, (4,))
    device, num = images_BHWC.device, images_BHWC.shape[0]
    patches = corners_BP2.shape[1] if corners_BP2.dim() == 3 else -1
    corners_shape = {"(B, P, 2)": (num, patches, 2)}
    checks.check_tensor(corners_BP2, "corners_BP2", torch.int32, device, corners_shape)
    if flip_B is not None:
        checks.check_tensor(flip_B, "flip_B", torch.bool, device, {"(B,)": (num,)})
    if grey is not None:
        shapes: dict[str, tuple[int, ...]] = {"(B,)": (num,), "(B, P)": (num, patches)}
        checks.check_tensor(grey, "grey", torch.bool, device, shapes)
    if order_BP is not None:
        order_shape = {"(B, P)": (num, patches)}
        checks.check_tensor(order_BP, "order_BP", torch.int64, device, order_shape)


def extract_patches(
    images_BHWC: Tensor,
    corners_BP2: Tensor,
    size: int,
    *,
    flip_B: Tensor | None = None,
    grey: Tensor | None = None,
    order_BP: Tensor | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    standardize: bool = False,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> Tensor:
    """Cut P square patches out of every image and make them ready for a trunk, in one pass.

    In this order: mirror the image, cut, make grey, normalise or standardise, permute, cast, lay
    out. Grey is ITU-R 601 luma with Pillow's rounding, (19595 R + 38470 G + 7471 B + 2**15) >> 16,
    in all three channels. Not differentiable. Rows may be strided; images whose pixels are not
    dense are copied first.

    Args:
        images_BHWC: uint8 RGB, 0..255.
        corners_BP2: int32 top-left corners (y, x) in pixels, inside the image; where an image is
            mirrored they are places in the mirrored image.
        size: patch side S in pixels.
        flip_B: bool (B,), True mirrors the whole image left to right before it is cut.
        grey: bool (B,) for whole images or (B, P) for patches as numbered by ``corners_BP2``.
        order_BP: int64, slot i of the result holds patch ``order_BP[b, i]``; none keeps the order.
        mean: of R, G, B, in units of 0..1; with ``std`` the result is (x / 255 - mean) / std.
        std: of R, G, B, in units of 0..1.
        standardize: give each patch zero mean and unit variance over all its pixels and channels
            (Kolesnikov et al. 2019): (x - mean) / max(std, 1 / sqrt(3 S S)) with x in 0..255, so a
            flat patch becomes zeros. Not together with ``mean`` and ``std``.
        dtype: of the result: uint8 where nothing normalises, else float32 (default), float16 or
            bfloat16.
        channels_last: lay floating patches out so that ``.flatten(0, 1)`` is torch.channels_last.

    Returns:
        uint8 (B, P, S, S, 3) where neither ``mean`` and ``std`` nor ``standardize`` are given, else
        floating (B, P, 3, S, S); on the same device.

    Raises:
        ValueError: if a patch would cross the border, an order points outside 0 .. P-1, a shape,
            dtype or device is wrong, or options contradict each other. The values of corners and
            order are checked on the device: on a GPU a wrong one trips a device-side assertion, as
            an index out of range does in torch, and the next call that waits for the device raises.
    """
    _check_tensors(images_BHWC, corners_BP2, flip_B, grey, order_BP)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together, got {mean} and {std}")
    if mean is not None and std is not None:
        if standardize:
            raise ValueError("standardize must be False where mean and std are given; drop one")
        mean, std = checks.check_mean_and_std(mean, std)
    return torch.ops.fastssl.extract_patches.default(
        images_BHWC,
        corners_BP2,
        size,
        flip_B,
        grey,
        order_BP,
        mean,
        std,
        standardize,
        _output_dtype(dtype, is_float=mean is not None or standardize),
        channels_last,
    )
