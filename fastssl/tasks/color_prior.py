"""How often each colour bin is met in a dataset: what colorization is rebalanced by.

Shape legend: B images, H W pixels, Q bins.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..counts import spell_number
from ..errors import InputError
from ..ops import color_bins, rgb_to_lab
from ..system.files import publish_bytes

PRIOR_REMEDY = "count again with fastssl color-prior"
"""What to do where there is no good file."""
SHIPPED_PRIOR = Path(__file__).with_name("prior_imagenet.json")
"""Numbers that ship with the package: fastssl color-prior on 300 photographs of ImageNet-1k, 300
classes, as they came."""
SHIPPED_GRID = 10
"""Step of its bins."""
_HALF = 128
"""a and b of sRGB, rounded, lie in -128 .. 127."""


@functools.cache
def _list_nearest(grid: int) -> np.ndarray:
    """Return the nearest bin of every whole a and b, int64 (256 * 256,); ties to the lower one."""
    values = np.arange(-_HALF, _HALF, dtype=np.float64)
    bins = color_bins(grid).astype(np.float64)
    rows = [((a - bins[:, 0]) ** 2 + (values[:, None] - bins[:, 1]) ** 2).argmin(1) for a in values]
    return np.concatenate(rows)


def count_colors(images_BHWC: Tensor, grid: int = 10) -> np.ndarray:
    """Count the pixels nearest to each bin, a and b rounded as if stored in 8 bits.

    Args:
        images_BHWC: uint8, sRGB, on the CPU.
        grid: step of the bins.

    Returns:
        int64 (Q,).
    """
    a, b = rgb_to_lab(images_BHWC, eight_bit=True)[:, 1:].to(torch.int64).unbind(1)
    places = ((a + _HALF) * 2 * _HALF + b + _HALF).flatten().numpy()
    seen = np.bincount(places, minlength=4 * _HALF * _HALF)
    counts = np.bincount(_list_nearest(grid), weights=seen, minlength=len(color_bins(grid)))
    return counts.astype(np.int64)


def write_prior(path: Path, counts_Q: np.ndarray, grid: int, dataset: str, images: int) -> None:
    """Write a prior as JSON.

    Args:
        path: of the file.
        counts_Q: pixels of each bin.
        grid: step of the bins.
        dataset: digest of the dataset that they were counted in.
        images: that were looked at.
    """
    content = {
        "grid": grid,
        "dataset": dataset,
        "images": images,
        "counts": [int(count) for count in counts_Q],
    }
    publish_bytes(path, (json.dumps(content) + "\n").encode("ascii"))


def read_prior(path: str | Path, grid: int = 10) -> np.ndarray:
    """Read a prior for ``ColorLoss``.

    Args:
        path: a file by ``write_prior``.
        grid: step of the bins that it shall be of.

    Returns:
        float64 (Q,): the counts.

    Raises:
        InputError: if the file is missing, damaged or of another set of bins.
    """
    path, remedy = Path(path), PRIOR_REMEDY
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"prior {path} is not a file; {remedy}") from None
    try:
        content = json.loads(data.decode("ascii"))
        counts = np.array(content["counts"], dtype=np.float64)
        found = int(content["grid"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"prior {path} is damaged ({error!r}); {remedy}") from None
    wanted = len(color_bins(grid))
    if found != grid or counts.shape != (wanted,):
        raise InputError(
            f"prior {path} is of {spell_number(counts.size, 'bin')} of step {found}, wanted "
            f"{wanted} of step {grid}; {remedy} --grid {grid}"
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise InputError(f"prior {path} must hold counts, one of them above 0; {remedy}")
    return counts
