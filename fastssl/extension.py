"""The compiled extension ``fastssl._C``: is it there, and what was it built with."""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch

REBUILD = "pip install --no-build-isolation -e . (or FASTSSL_BUILD_EXT=0 for pure Python)"


@functools.cache
def load_extension() -> bool:
    """Load the extension, which registers its operators with torch.

    Returns:
        True if it is loaded, False if it was not built.

    Raises:
        ImportError: if it was built but does not load, as after a change of torch.
    """
    if importlib.util.find_spec("fastssl._C") is None:
        return False
    try:
        importlib.import_module("fastssl._C")
    except ImportError as error:
        raise ImportError(
            f"fastssl._C was built but does not load with torch {torch.__version__} ({error}); "
            f"build it again: {REBUILD}"
        ) from error
    return True


@functools.cache
def read_build() -> dict[str, str]:
    """Return what the extension was built with: ``torch``, ``cuda_archs``, ``jpeg``.

    Raises:
        ImportError: as in ``load_extension``.
    """
    if not load_extension():
        return {}
    pairs = torch.ops.fastssl.build_info.default().split(";")
    return dict(pair.split("=", 1) for pair in pairs)
