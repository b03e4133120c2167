"""The public operators in plain PyTorch: what the kernels are tested against.

They also run where there is no kernel: without the extension, and on a device that has none.

Shape legend: B images, P patches of each, C = 3 channels, H W pixels, S patch side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def luma(images: Tensor) -> Tensor:
    """Return ITU-R 601 luma with Pillow's rounding.

    Args:
        images: uint8 (..., 3).

    Returns:
        uint8 (...): (19595 R + 38470 G + 7471 B + 2**15) >> 16.
    """
    red, green, blue = images.int().unbind(-1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)


def _make_grey(images: Tensor, grey: Tensor | None) -> Tensor:
    """Replace R, G and B by luma where a flag of the leading dimensions says so."""
    if grey is None:
        return images
    flags = grey.reshape(*grey.shape, *[1] * (images.dim() - grey.dim()))
    return torch.where(flags, luma(images)[..., None], images)


def _mirror(images_BHWC: Tensor, flip_B: Tensor | None) -> Tensor:
    """Mirror the images that are flagged, left to right."""
    if flip_B is None:
        return images_BHWC
    return torch.where(flip_B[:, None, None, None], images_BHWC.flip(2), images_BHWC)


def _scale(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 (x / 255 - mean) / std of uint8 (..., 3)."""
    mean_C = torch.tensor(mean, dtype=torch.float32, device=images.device)
    std_C = torch.tensor(std, dtype=torch.float32, device=images.device)
    return (images.float() / 255 - mean_C) / std_C


def _standardize(patches_BPSSC: Tensor) -> Tensor:
    """Give each patch zero mean and unit variance over its pixels and channels."""
    values = patches_BPSSC.float()
    count = values[0, 0].numel() if values.numel() else 1
    centred = values - values.mean((2, 3, 4), keepdim=True)
    std = centred.square().mean((2, 3, 4), keepdim=True).sqrt()
    return centred / std.clamp(min=count**-0.5)


def _channels_first(values: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Move the channels before the pixels, in name only where channels_last is asked for."""
    values = values.to(dtype).movedim(-1, -3)
    if channels_last:
        return values
    return values.contiguous()


def _check_values(images_BHWC: Tensor, corners_BP2: Tensor, size: int, order_BP: Tensor | None):
    """Raise ValueError for the first patch that crosses the border or is out of the order."""
    height, width = images_BHWC.shape[1:3]
    limits = torch.tensor([height - size, width - size], device=corners_BP2.device)
    outside_BP = ((corners_BP2 < 0) | (corners_BP2 > limits)).any(-1)
    if outside_BP.any():
        image, patch = outside_BP.nonzero()[0].tolist()
        y, x = corners_BP2[image, patch].tolist()
        raise ValueError(
            f"patch {patch} of image {image} at (y, x) = ({y}, {x}) with side {size} crosses the "
            f"border of the {height} x {width} image; corners must lie in 0 .. {height - size} "
            f"and 0 .. {width - size}"
        )
    if order_BP is None:
        return
    num = corners_BP2.shape[1]
    outside_BP = (order_BP < 0) | (order_BP >= num)
    if outside_BP.any():
        image, slot = outside_BP.nonzero()[0].tolist()
        raise ValueError(
            f"order[{image}, {slot}] must lie in 0 .. {num - 1}, got {order_BP[image, slot]}"
        )


def extract_patches(
    images_BHWC: Tensor,
    corners_BP2: Tensor,
    size: int,
    flip_B: Tensor | None,
    grey: Tensor | None,
    order_BP: Tensor | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    standardize: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Do what ``fastssl.ops.extract_patches`` does, one PyTorch operation after the other."""
    _check_values(images_BHWC, corners_BP2, size, order_BP)
    return compose_patches(
        images_BHWC,
        corners_BP2,
        size,
        flip_B,
        grey,
        order_BP,
        mean,
        std,
        standardize,
        dtype,
        channels_last,
    )


def compose_patches(
    images_BHWC: Tensor,
    corners_BP2: Tensor,
    size: int,
    flip_B: Tensor | None,
    grey: Tensor | None,
    order_BP: Tensor | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    standardize: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Do the same without looking at values, which would make the host wait for a device."""
    device = images_BHWC.device
    image_B = torch.arange(len(images_BHWC), device=device)
    side_S = torch.arange(size, device=device)
    rows_BPS1 = (corners_BP2[..., 0, None].long() + side_S)[..., :, None]
    columns_BP1S = (corners_BP2[..., 1, None].long() + side_S)[..., None, :]
    images_BHWC = _mirror(images_BHWC, flip_B)
    patches_BPSSC = images_BHWC[image_B[:, None, None, None], rows_BPS1, columns_BP1S]
    patches_BPSSC = _make_grey(patches_BPSSC, grey)
    if order_BP is not None:
        patches_BPSSC = patches_BPSSC[image_B[:, None], order_BP]
    if dtype == torch.uint8:
        return patches_BPSSC
    if standardize:
        values = _standardize(patches_BPSSC)
    else:
        assert mean is not None
        assert std is not None
        values = _scale(patches_BPSSC, mean, std)
    return _channels_first(values, dtype, channels_last)


def normalize(
    images_BHWC: Tensor,
    flip_B: Tensor | None,
    grey_B: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Do what ``fastssl.ops.normalize`` does, one PyTorch operation after the other."""
    images_BHWC = _make_grey(_mirror(images_BHWC, flip_B), grey_B)
    return _channels_first(_scale(images_BHWC, mean, std), dtype, channels_last)
