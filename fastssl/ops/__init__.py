"""Public operators: CPU and CUDA, ``torch.compile``-safe, uint8 in, float32/float16/bfloat16 out.

The extension brings fused kernels. Without it, or where it was built for another torch or another
GPU, the operators run ``fastssl.ops.reference`` and warn once.
"""

from __future__ import annotations

from typing import TypedDict

import torch

from .. import __version__
from ..extension import load_extension, read_build
from .augmentation import augment_targets, augment_views
from .color import has_color, lab_to_rgb, rgb_to_lab, split_lab
from .color_grid import color_bins, rebalance_bins
from .losses import ColorLoss, decode_colors
from .patches import extract_patches
from .views import color_jitter, normalize

__all__ = [
    "BuildInfo",
    "ColorLoss",
    "augment_targets",
    "augment_views",
    "build_info",
    "color_bins",
    "color_jitter",
    "decode_colors",
    "extract_patches",
    "has_color",
    "lab_to_rgb",
    "normalize",
    "rebalance_bins",
    "rgb_to_lab",
    "split_lab",
]


class BuildInfo(TypedDict):
    """What this installation of fastssl can run at full speed."""

    version: str
    """Of fastssl."""
    cpu: bool
    """Are there compiled kernels for the CPU?"""
    cuda: bool
    """Are there compiled kernels for CUDA?"""
    cuda_archs: list[str]
    """Compute capabilities of the CUDA kernels, such as ``["8.0", "9.0+PTX"]``."""
    jpeg: str | None
    """The JPEG library that the extension was built with."""
    torch: str
    """The torch that the extension was built with, else the one that runs."""


def build_info() -> BuildInfo:
    """Return what was built.

    Returns:
        version, cpu, cuda, cuda_archs, jpeg and torch; see ``BuildInfo``.

    Raises:
        ImportError: if the extension was built but does not load.
    """
    build = read_build()
    archs = [arch for arch in build.get("cuda_archs", "").split(",") if arch]
    return BuildInfo(
        version=__version__,
        cpu=load_extension(),
        cuda=bool(archs),
        cuda_archs=archs,
        jpeg=build.get("jpeg") or None,
        torch=build.get("torch", torch.__version__),
    )
