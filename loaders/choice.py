"""How ``auto`` chooses a back end: a rule, not a measurement.

``fastssl bench-loaders --recommend`` measures.
"""

from __future__ import annotations

import importlib.util

import torch

from ..config import LoaderName
from ..jpeg_extension import BUILD_JPEG
from ..ops.jpeg import has_jpeg

_PACKAGES = {"dali": "nvidia.dali", "ffcv": "ffcv"}


def is_installed(name: str) -> bool:
    """Return whether what a back end needs is there; packages are not imported."""
    if name == "native":
        return has_jpeg()
    package = _PACKAGES.get(name)
    if package is None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def prefer_loader(
    device: str, is_local: bool = True, encoding: str = "keep"
) -> tuple[LoaderName, str]:
    """Choose by what is installed, where the images go, and how they are stored.

    Args:
        device: where the images shall lie.
        is_local: whether the dataset is in a folder.
        encoding: how its pictures are stored.

    Returns:
        The name of the back end and the reason.
    """
    if torch.device(device).type == "cuda" and encoding != "raw" and is_installed("dali"):
        return "dali", "nvidia-dali is installed and decodes on the GPU"
    if not is_local:
        return "webdataset", "it reads from object stores"
    if is_installed("native"):
        return "native", "the fastest without decoding on a GPU; exact pixels"
    return "webdataset", f"exact pixels; for the faster native loader {BUILD_JPEG}"
