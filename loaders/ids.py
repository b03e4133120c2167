"""The samples that a file names: a side of a split, a share of the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..config import LoaderConfig
from ..errors import InputError
from ..system.files import sha256_of


def read_ids(config: LoaderConfig, available: int) -> NDArray[np.int64]:
    """Read the ids of the samples in use.

    Args:
        config: names the file.
        available: samples of the dataset.

    Returns:
        (N,) int64, ascending.

    Raises:
        InputError: if the file is another one than it was, or holds something else than ids.
    """
    path = config.ids_file
    if sha256_of(path) != config.ids_sha256:
        raise InputError(
            f"data.ids_file ({path}) has changed since its samples were chosen; choose another "
            "--output-dir"
        )
    try:
        ids = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"data.ids_file ({path}) is no .npy file: {error}") from None
    is_good = ids.ndim == 1 and ids.dtype == np.int64 and len(ids) > 0
    if not is_good or ids[0] < 0 or ids[-1] >= available or (np.diff(ids) <= 0).any():
        raise InputError(
            f"data.ids_file ({path}) must hold ids 0 .. {available - 1} of samples, int64 and "
            f"ascending, got {ids.dtype} {ids.shape}"
        )
    return ids
