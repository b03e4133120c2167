"""The public operators in plain PyTorch: what the kernels are tested against.

They also run where there is no kernel: without the extension, and on a device that has none.

Shape legend: B images, P patches of each, C = 3 channels, H W pixels, S patch side, Q colour
bins, K neighbours; of ``augment_views`` K copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .color_grid import WHITE, XYZ_OF_RGB

# What R, G and B count in a grey that is not rounded: ITU-R 601 as Pillow has it, and the mean.
_LUMA_WEIGHTS = (19595 / 65536, 38470 / 65536, 7471 / 65536)
_MEAN_WEIGHTS = (1 / 3, 1 / 3, 1 / 3)


def luma(images: Tensor) -> Tensor:
    """Return ITU-R 601 luma with Pillow's rounding.

    Args:
        images: uint8 (..., 3).

    Returns:
        uint8 (...): (19595 R + 38470 G + 7471 B + 2**15) >> 16.
    """
    red, green, blue = images.int().unbind(-1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)


def weigh_grey(values: Tensor, mean_grey: bool) -> Tensor:
    """Return the mean of R, G and B, or their luma, not rounded: floating (..., 3) to (..., 1)."""
    weights = values.new_tensor(_MEAN_WEIGHTS if mean_grey else _LUMA_WEIGHTS)
    return (values * weights).sum(-1, keepdim=True)


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


def scale(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 (x / 255 - mean) / std of values 0 .. 255, (..., 3)."""
    mean_C = torch.tensor(mean, dtype=torch.float32, device=images.device)
    std_C = torch.tensor(std, dtype=torch.float32, device=images.device)
    return (images.float() / 255 - mean_C) / std_C


def standardize_patches(patches_BPSSC: Tensor) -> Tensor:
    """Give each patch zero mean and unit variance over its pixels and channels.

    Args:
        patches_BPSSC: uint8 or floating, 0 .. 255.

    Returns:
        float32 (x - mean) / max(std, 1 / sqrt(3 S S)).
    """
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
        values = standardize_patches(patches_BPSSC)
    else:
        assert mean is not None
        assert std is not None
        values = scale(patches_BPSSC, mean, std)
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
    return _channels_first(scale(images_BHWC, mean, std), dtype, channels_last)


def paint(
    images_BHWC: Tensor,
    brightness_B: Tensor,
    saturation_B: Tensor,
    brightness_first_B: Tensor,
    flip_B: Tensor | None,
    grey_B: Tensor | None,
    mean_grey: bool,
) -> Tensor:
    """Mirror images and change their colours, as ``fastssl.ops.color_jitter`` does before scaling.

    Args:
        images_BHWC: uint8 RGB; more leading dimensions are taken where all tensors have them.
        brightness_B: float32, added to values of 0 .. 1.
        saturation_B: float32, the saturation's factor.
        brightness_first_B: bool; else the saturation changes first.
        flip_B: bool; True mirrors left to right.
        grey_B: bool; True makes grey first.
        mean_grey: grey is the mean of the channels, else their luma; not rounded.

    Returns:
        float32, the shape of the images, 0 .. 255, not rounded.
    """

    def spread(of_images: Tensor) -> Tensor:
        return of_images[..., None, None, None]

    values = images_BHWC
    if flip_B is not None:
        values = torch.where(spread(flip_B), values.flip(-2), values)
    values = values.float()
    if grey_B is not None:
        values = torch.where(spread(grey_B), weigh_grey(values, mean_grey), values)
    shift, is_first = spread(brightness_B * 255), spread(brightness_first_B)
    values = saturate(values + torch.where(is_first, shift, 0.0), spread(saturation_B))
    return (values + torch.where(is_first, 0.0, shift)).clamp(0, 255)


def saturate(values_HWC: Tensor, factor: Tensor) -> Tensor:
    """Scale the saturation of HSV, and leave hue and value as they are.

    Value is max(R, G, B), saturation (max - min) / max: each channel keeps its share of the way
    from the maximum down, so that there is no need to go to HSV and back.

    Args:
        values_HWC: floating RGB, channels last; of a pixel without a positive value nothing that
            clips to more than 0 is made.
        factor: not negative, broadcast to the values; the saturation stays within 0 .. 1.

    Returns:
        The same shape and range.
    """
    value = values_HWC.amax(-1, keepdim=True)
    depth = value - values_HWC.amin(-1, keepdim=True)
    # S * factor stops at 1, where the least of the channels is 0.
    ratio = torch.minimum(factor, value.clamp(min=0) / depth.clamp(min=1e-6))
    return value - (value - values_HWC) * ratio


def color_jitter(
    images_BHWC: Tensor,
    brightness_B: Tensor,
    saturation_B: Tensor,
    brightness_first_B: Tensor,
    flip_B: Tensor | None,
    grey_B: Tensor | None,
    mean_grey: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    standardize: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Do what ``fastssl.ops.color_jitter`` does, one PyTorch operation after the other."""
    colours = (brightness_B, saturation_B, brightness_first_B)
    values = paint(images_BHWC, *colours, flip_B, grey_B, mean_grey)
    if standardize:
        values = standardize_patches(values[:, None])[:, 0]
    else:
        assert mean is not None
        assert std is not None
        values = scale(values, mean, std)
    return _channels_first(values, dtype, channels_last)


def rgb_to_lab(images_BHWC: Tensor, eight_bit: bool) -> Tensor:
    """Do what ``fastssl.ops.rgb_to_lab`` does, one PyTorch operation after the other."""
    values = images_BHWC.float() / 255
    linear = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    matrix = torch.tensor(XYZ_OF_RGB, device=images_BHWC.device).T
    xyz = linear @ matrix / torch.tensor(WHITE, device=images_BHWC.device)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(-1)
    lab = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
    if eight_bit:
        scale = torch.tensor([2.55, 1.0, 1.0], device=lab.device)[:, None, None]
        lab = (lab * scale).round() / scale
    return lab


def split_lab(
    images_BHWC: Tensor,
    flip_B: Tensor | None,
    stride: int,
    mean: bool,
    eight_bit: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Do what ``fastssl.ops.split_lab`` does, one PyTorch operation after the other."""
    lab = rgb_to_lab(_mirror(images_BHWC, flip_B), eight_bit)
    lightness, ab = lab[:, :1] - 50, lab[:, 1:]
    if mean:
        ab = ab.unflatten(2, (-1, stride)).unflatten(4, (-1, stride)).mean((3, 5))
    else:
        ab = ab[:, :, ::stride, ::stride].contiguous()
    return lightness.to(dtype), ab


def move_pixels(values_BKHWC: Tensor, flip_BK: Tensor | None, offset_BK2: Tensor | None) -> Tensor:
    """Mirror images and then shift them, with zeros where nothing of the image is.

    Args:
        values_BKHWC: of any type.
        flip_BK: bool; True mirrors left to right; None mirrors none.
        offset_BK2: int32 (y, x): the row and column of the mirrored image that comes to the corner,
            outside of it too; None shifts none.

    Returns:
        The same shape and type.
    """
    if flip_BK is not None:
        flags = flip_BK[..., None, None, None]
        values_BKHWC = torch.where(flags, values_BKHWC.flip(3), values_BKHWC)
    if offset_BK2 is None:
        return values_BKHWC
    num, copies, height, width, _ = values_BKHWC.shape
    device = values_BKHWC.device
    rows_BKH1 = (offset_BK2[..., :1] + torch.arange(height, device=device))[..., None]
    columns_BK1W = (offset_BK2[..., 1:] + torch.arange(width, device=device))[..., None, :]
    inside_BKHW = (rows_BKH1 >= 0) & (rows_BKH1 < height)
    inside_BKHW = inside_BKHW & (columns_BK1W >= 0) & (columns_BK1W < width)
    moved = values_BKHWC[
        torch.arange(num, device=device)[:, None, None, None],
        torch.arange(copies, device=device)[:, None, None],
        rows_BKH1.clamp(0, max(height - 1, 0)),
        columns_BK1W.clamp(0, max(width - 1, 0)),
    ]
    return torch.where(inside_BKHW[..., None], moved, torch.zeros_like(moved))


def augment_views(
    images_BHWC: Tensor,
    gain_BK3: Tensor | None,
    shift_BK3: Tensor | None,
    grey_BK: Tensor | None,
    flip_BK: Tensor | None,
    offset_BK2: Tensor | None,
    corner_BK2: Tensor | None,
    copies: int,
    cutout: int,
    is_lab: bool,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Do what ``fastssl.ops.augment_views`` does, one PyTorch operation after the other."""
    height, width = images_BHWC.shape[1:3]
    device = images_BHWC.device
    if is_lab:
        lab_BHWC = rgb_to_lab(images_BHWC, False).movedim(1, -1)
        mean_C, std_C = (torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std))
        values_BHWC = (lab_BHWC - mean_C) / std_C
    else:
        values_BHWC = scale(images_BHWC, mean, std)
    values = values_BHWC[:, None].expand(-1, copies, -1, -1, -1)
    if gain_BK3 is not None and shift_BK3 is not None:
        values = values * gain_BK3[:, :, None, None] + shift_BK3[:, :, None, None]
    if grey_BK is not None:
        flags = grey_BK[..., None, None, None]
        values = torch.where(flags, values.mean(-1, keepdim=True), values)
    values = move_pixels(values, flip_BK, offset_BK2)
    if corner_BK2 is not None and cutout:
        ranges = (torch.arange(size, device=device) for size in (height, width))
        is_cut = [
            (place >= corner_BK2[..., axis, None]) & (place < corner_BK2[..., axis, None] + cutout)
            for axis, place in enumerate(ranges)
        ]
        is_cut_BKHW = is_cut[0][..., :, None] & is_cut[1][..., None, :]
        values = values.masked_fill(is_cut_BKHW[..., None], 0)
    return _channels_first(values, dtype, channels_last)


def encode_colors(
    ab_B2HW: Tensor, bins_Q2: Tensor, num_neighbors: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Return each pixel's K nearest bins, the nearest first, and their shares.

    Ties go to the bin of lower number.

    Args:
        ab_B2HW: float32.
        bins_Q2: float32.
        num_neighbors: K.
        sigma: of the weights, in units of a and b.

    Returns:
        int64 bins and float32 shares, (B, H, W, K); a pixel's shares sum to 1.
    """
    a_BHW1, b_BHW1 = ab_B2HW[..., None].unbind(1)
    squares_BHWQ = (a_BHW1 - bins_Q2[:, 0]) ** 2 + (b_BHW1 - bins_Q2[:, 1]) ** 2
    near, index = squares_BHWQ.sort(dim=-1, stable=True)
    shares = (-near[..., :num_neighbors] / (2 * sigma**2)).softmax(-1)
    return index[..., :num_neighbors], shares


def dense_logits(logits_BQHW: Tensor) -> Tensor:
    """Return the logits in channels_last order where they lie so, else contiguous."""
    if logits_BQHW.is_contiguous(memory_format=torch.channels_last):
        return logits_BQHW
    return logits_BQHW.contiguous()


def _weigh_pixels(
    index_BHWK: Tensor, weights_Q: Tensor | None, counted_B: Tensor | None
) -> Tensor | float:
    """Return what the pixels count, (B, H, W) or what broadcasts to it."""
    scales: Tensor | float = 1.0 if weights_Q is None else weights_Q[index_BHWK[..., 0]]
    return scales if counted_B is None else scales * counted_B[:, None, None]


def color_loss(
    logits_BQHW: Tensor,
    ab_B2HW: Tensor,
    bins_Q2: Tensor,
    offsets: Tensor,  # noqa: ARG001 - for kernels
    candidates: Tensor,  # noqa: ARG001
    weights_Q: Tensor | None,
    counted_B: Tensor | None,
    num_neighbors: int,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Do what ``fastssl.ops.ColorLoss`` does, one PyTorch operation after the other.

    Returns:
        The losses and the logarithms of the sums of exponentials, float32 (B, H, W).
    """
    index, shares = encode_colors(ab_B2HW, bins_Q2, num_neighbors, sigma)
    logits = logits_BQHW.float()
    log_sums = logits.logsumexp(1)
    picked = logits.movedim(1, -1).gather(-1, index)
    losses = (shares * (log_sums[..., None] - picked)).sum(-1)
    return losses * _weigh_pixels(index, weights_Q, counted_B), log_sums


def color_loss_backward(
    grads_BHW: Tensor,
    log_sums_BHW: Tensor,
    logits_BQHW: Tensor,
    ab_B2HW: Tensor,
    bins_Q2: Tensor,
    offsets: Tensor,  # noqa: ARG001 - for kernels
    candidates: Tensor,  # noqa: ARG001
    weights_Q: Tensor | None,
    counted_B: Tensor | None,
    num_neighbors: int,
    sigma: float,
) -> Tensor:
    """Return the gradient of ``color_loss`` in the logits, in their dtype and memory order."""
    index, shares = encode_colors(ab_B2HW, bins_Q2, num_neighbors, sigma)
    scales = grads_BHW * _weigh_pixels(index, weights_Q, counted_B)
    grad = scales[:, None] * (logits_BQHW.float() - log_sums_BHW[:, None]).exp()
    grad.scatter_add_(1, index.movedim(-1, 1), -(scales[..., None] * shares).movedim(-1, 1))
    like = dense_logits(logits_BQHW)
    return torch.empty_like(like).copy_(grad)
