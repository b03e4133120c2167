"""Loaders: shards in, batches of uint8 views out, whatever the back end.

A new back end is one file and one line in ``_BACK_ENDS``. Back ends are imported only when they are
chosen, so that a package they need may be absent.
"""

from __future__ import annotations

import importlib

from ..config import LoaderConfig, LoaderName
from ..errors import InputError
from ..views import Views
from .base import Loader, Plan
from .choice import choose_loader, is_installed

__all__ = ["Loader", "LoaderConfig", "Plan", "build_loader", "resolve_loader"]

_BACK_ENDS = {
    "webdataset": (".webdataset", "WebDatasetLoader"),
    "native": (".native", "NativeLoader"),
    "dali": (".dali", "DaliLoader"),
    "ffcv": (".ffcv", "FfcvLoader"),
    "fixed": (".fixed", "FixedLoader"),
}


def resolve_loader(
    config: LoaderConfig, device: str = "cpu", earlier: LoaderName | None = None
) -> tuple[LoaderName, str]:
    """Choose the back end.

    Args:
        config: what to load.
        device: where the images shall lie.
        earlier: what ``auto`` chose when the run began; it is kept where it can be had.

    Returns:
        Its name and the reason, for one line to the user.

    Raises:
        InputError: for a dataset that cannot be opened, where the choice depends on it.
    """
    if config.loader != "auto":
        return config.loader, "asked for"
    if earlier is not None and earlier in _BACK_ENDS and is_installed(earlier):
        return earlier, "as the run began"
    return choose_loader(config, device)


def build_loader(
    config: LoaderConfig,
    views: Views,
    rank: int = 0,
    world_size: int = 1,
    device: str = "cpu",
) -> Loader:
    """Build the loader that a config asks for.

    Args:
        config: what to load, and by which back end.
        views: one ViewSpec or several of equal output size.
        rank: 0 .. world_size - 1.
        world_size: number of ranks.
        device: where the images shall lie.

    Returns:
        A loader that stands at position 0.

    Raises:
        InputError: for a dataset that cannot be opened, a batch that does not fit, a back end
            that this version does not have.
    """
    name, _ = resolve_loader(config, device)
    if name not in _BACK_ENDS:
        raise InputError(
            f"data.loader ('{name}') is not in this version; set --data.loader to "
            f"{' or '.join(sorted(_BACK_ENDS))}"
        )
    module, loader_class = _BACK_ENDS[name]
    build = getattr(importlib.import_module(module, __name__), loader_class)
    return build(config, views, rank, world_size, device)
