"""Loaders: shards in, batches of uint8 views out, whatever the back end.

A new back end is one file and one line in ``_BACK_ENDS``. Back ends are imported only when they are
chosen, so that a package they need may be absent.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

from ..config import LoaderConfig, LoaderName
from ..errors import InputError
from ..shards import ShardDataset, open_dataset
from ..views import Views
from .base import Loader, check_count, count_ids, count_samples
from .choice import is_installed, prefer_loader
from .plan import BatchPlan

__all__ = [
    "BatchPlan",
    "Loader",
    "LoaderConfig",
    "build_loader",
    "check_count",
    "count_ids",
    "count_samples",
    "resolve_loader",
]

_BACK_ENDS = {
    "webdataset": (".webdataset", "WebDatasetLoader"),
    "native": (".native", "NativeLoader"),
    "dali": (".dali", "DaliLoader"),
    "ffcv": (".ffcv", "FfcvLoader"),
    "fixed": (".fixed", "FixedLoader"),
}
_READ_FILES = ("native", "ffcv")
"""Those that read files of this machine alone."""


def resolve_loader(
    config: LoaderConfig,
    dataset: ShardDataset,
    device: str = "cpu",
    earlier: LoaderName | None = None,
) -> tuple[LoaderName, str]:
    """Choose the back end.

    Args:
        config: what to load.
        dataset: the one at ``config.path``, opened.
        device: where the images shall lie.
        earlier: what ``auto`` chose when the run began; it is kept where it can be had.

    Returns:
        Its name and the reason, for one line to the user.
    """
    if config.loader != "auto":
        return config.loader, "asked for"
    is_local = isinstance(dataset.path, Path) or dataset.cache is not None
    can_read = is_local or earlier not in _READ_FILES
    if earlier is not None and earlier in _BACK_ENDS and is_installed(earlier) and can_read:
        return earlier, "as the run began"
    return prefer_loader(device, is_local, dataset.encoding)


def build_loader(
    config: LoaderConfig,
    views: Views,
    rank: int = 0,
    world_size: int = 1,
    device: str = "cpu",
    *,
    dataset: ShardDataset | None = None,
) -> Loader:
    """Build the loader that a config asks for.

    Args:
        config: what to load, and by which back end.
        views: one ViewSpec or several of equal output size.
        rank: 0 .. world_size - 1.
        world_size: number of ranks.
        device: where the images shall lie.
        dataset: the one at ``config.path``, for who has opened it already, and closes it after the
            loader; without it the loader opens and closes one of its own.

    Returns:
        A loader that stands at position 0.

    Raises:
        InputError: for a dataset that cannot be opened, a batch that does not fit, a back end
            that this version does not have.
    """
    with contextlib.ExitStack() as on_failure:
        opened = dataset
        if opened is None:
            opened = on_failure.enter_context(
                contextlib.closing(open_dataset(config.path, config.cache))
            )
        name, _ = resolve_loader(config, opened, device)
        if name not in _BACK_ENDS:
            raise InputError(
                f"data.loader ('{name}') is not in this version; set --data.loader to "
                f"{' or '.join(sorted(_BACK_ENDS))}"
            )
        module, loader_class = _BACK_ENDS[name]
        build = getattr(importlib.import_module(module, __name__), loader_class)
        loader = build(opened, config, views, rank, world_size, device)
        on_failure.pop_all()
    loader.owns_dataset = dataset is None
    return loader
