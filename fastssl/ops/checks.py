"""What the public operators ask of their arguments, checked from metadata alone.

Values of tensors (corners inside the image) are checked by the kernels, where looking at them does
not break a compiled graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_tensor(
    tensor: Tensor,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise unless a tensor has the dtype, the device and one of the shapes.

    Args:
        tensor: what was given.
        name: the argument's name.
        dtype: the only one that is taken.
        device: the device of the images.
        shapes: legend such as ``"(B,)"`` to the shape that it stands for.

    Raises:
        ValueError: with name, got and wanted.
    """
    if tensor.dtype != dtype:
        raise ValueError(
            f"{name} must be {dtype}, got {tensor.dtype}; convert it with .to({dtype})"
        )
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device} like images, got {tensor.device}")
    if not any(_is_shape(tensor, shape) for shape in shapes.values()):
        wanted = " or ".join(f"{legend} = {shape}" for legend, shape in shapes.items())
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(tensor.shape)}")


def _is_shape(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    # Side by side: Dynamo of torch 2.13 finds no tuple of symbolic sizes among others.
    return tensor.dim() == len(shape) and all(
        one == other for one, other in zip(tensor.shape, shape, strict=True)
    )


def check_images(images: Tensor, num_dims: Sequence[int]) -> None:
    """Raise unless images are uint8 with channels last and one of the numbers of dimensions.

    Args:
        images: what was given.
        num_dims: 4 for (B, H, W, 3), 5 for (B, V, H, W, 3).

    Raises:
        ValueError: with got and wanted.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, 0 .. 255, got {images.dtype}")
    if images.dim() not in num_dims or images.shape[-1] != 3:
        legends = {4: "(B, H, W, 3)", 5: "(B, V, H, W, 3)"}
        wanted = " or ".join(legends[n] for n in num_dims)
        raise ValueError(f"images must be {wanted}, got shape {tuple(images.shape)}")


def check_float_dtype(dtype: torch.dtype) -> None:
    """Raise unless a dtype is one that operators write.

    Args:
        dtype: what was given.

    Raises:
        ValueError: for anything but float32, float16 and bfloat16.
    """
    if dtype not in FLOAT_DTYPES:
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")


def check_mean_and_std(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return mean and std as lists of three numbers.

    Args:
        mean: one number for each of R, G, B, in units of 0..1.
        std: likewise, above 0.

    Raises:
        ValueError: if there are not three of each or a std is not above 0.
    """
    mean, std = [float(m) for m in mean], [float(s) for s in std]
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must hold 3 numbers (R, G, B), got {mean} and {std}")
    if not all(s > 0 for s in std):
        raise ValueError(f"std must be above 0, in units of 0..1, got {std}")
    return mean, std
