"""What the tasks on patches share: a crop in cells, a patch at a random place of each.

Patches are numbered row by row.

Shape legend: B images, P = grid x grid patches, S patch side, C = 3 channels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import InputError
from ..randomness import Stream, draw_words, to_below
from ..views import ViewSpec

VIEWS = {
    "resize_crop": ViewSpec.resize_crop,
    "center": ViewSpec.center,
    "squash_crop": ViewSpec.squash_crop,
}
"""How the crop is taken: at a random place or in the centre of the resized image, or of the
squashed one."""


class Cells(Protocol):
    """What of a task's config says where patches lie."""

    @property
    def crop(self) -> int:
        """Side of the crop in pixels."""

    @property
    def grid(self) -> int:
        """Cells a side."""

    @property
    def patch(self) -> int:
        """Patch side in pixels."""

    @property
    def jitter(self) -> int:
        """Places a patch may take in its cell along each axis: offsets 0 .. jitter-1 pixels."""


def check_cells(config: Cells) -> None:
    """Refuse patches that do not fit their cells.

    Raises:
        InputError: names the field, and the largest value that fits.
    """
    cell = config.crop // config.grid
    if cell < config.patch:
        raise InputError(
            f"task.patch ({config.patch}) must fit a cell of {cell} px ({config.grid} cells "
            f"of crop {config.crop}); set --task.patch to {cell} or less"
        )
    if cell < config.patch + config.jitter - 1:
        raise InputError(
            f"task.patch ({config.patch}) with task.jitter ({config.jitter}) needs a cell of "
            f"{config.patch + config.jitter - 1} px, but {config.grid} cells of crop {config.crop} "
            f"are {cell} px; lower the jitter to {cell - config.patch + 1}"
        )


def draw_corners(config: Cells, batch: Batch, seed: int) -> Tensor:
    """Draw where the patches lie, from sample ids and epochs (law 2), on the CPU.

    Args:
        config: cells, patches and jitter.
        batch: from the loader.
        seed: the run's seed.

    Returns:
        int32 (B, P, 2), (y, x) of the patches in the crop.
    """
    num_patches = config.grid * config.grid
    epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()
    words = draw_words(seed, epochs, ids, Stream.PATCH_OFFSET, 2 * num_patches)
    offsets = to_below(words, config.jitter).reshape(-1, num_patches, 2)
    rows, columns = np.divmod(np.arange(num_patches), config.grid)
    cells_P2 = np.stack([rows, columns], axis=-1) * (config.crop // config.grid)
    return torch.from_numpy((cells_P2 + offsets).astype(np.int32))
