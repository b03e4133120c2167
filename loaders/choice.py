"""How ``auto`` chooses a back end: a rule, not a measurement.

``tools/bench_loaders.py --recommend`` measures.
"""

from __future__ import annotations

import importlib.util
from contextlib import closing

import torch

from ..config import LoaderConfig, LoaderName
from ..shards import open_dataset

_PACKAGES = {"dali": "nvidia.dali", "ffcv": "ffcv"}


def is_installed(name: str) -> bool:
    """Return whether the package that a back end needs is there; it is not imported."""
    package = _PACKAGES.get(name)
    if package is None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def choose_loader(config: LoaderConfig, device: str) -> tuple[LoaderName, str]:
    """Choose by what is installed, where the images go, and how they are stored.

    Args:
        config: what to load.
        device: where the images shall lie.

    Returns:
        The name of the back end and the reason.

    Raises:
        InputError: for a dataset that cannot be opened.
    """
    if torch.device(device).type != "cuda":
        return "webdataset", "training on the CPU is slower than any loader; exact pixels"
    with closing(open_dataset(config.path)) as dataset:
        encoding = dataset.encoding
    if encoding == "raw":
        return "webdataset", "raw pixels need no decoder"
    if is_installed("dali"):
        return "dali", "nvidia-dali is installed and decodes on the GPU"
    return "webdataset", 'decodes on the CPU; pip install "fastssl[dali]" for decoding on the GPU'
