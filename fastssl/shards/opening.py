"""Find what a dataset consists of, in a folder or an object store; see that it fits together."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..address import parse_place
from .entry_points import ENTRY_POINTS_NAME
from .index import INDEX_NAME, read_index_header
from .links import check_files, check_shards
from .manifest import MANIFEST_NAME, Manifest, check_agreement, read_manifest
from .places import PlacedStore
from .store import LocalStore, Store
from .targets import TargetEntry, check_target


class Parts(NamedTuple):
    """What a dataset consists of."""

    store: Store
    """Where its shards are read from."""
    manifest: Manifest
    index_path: Path
    """Its index, on this machine."""
    find_target: Callable[[TargetEntry], Path]
    """Gives the file of a target on this machine; of an object store this fetches it."""
    find_entry_points: Callable[[Path | None], Path | None]
    """Gives their file on this machine; of an object store this fetches it into the folder given,
    None without one."""


def find_parts(path: str | os.PathLike[str]) -> Parts:
    """Find the parts of a dataset; ``open_dataset`` says what is checked.

    Args:
        path: the dataset's folder, or its address in an object store.
    """
    place = parse_place(path)
    store: Store
    find_entry_points: Callable[[Path | None], Path | None]
    if isinstance(place, Path):
        folder = place.absolute()
        store = LocalStore(folder)
        check_files(folder, [MANIFEST_NAME, INDEX_NAME])
        manifest = read_manifest(folder)
        index_path = folder / INDEX_NAME
        header = read_index_header(index_path)
        find_target = partial(_find_target, folder)
        find_entry_points = partial(_find_entry_points, folder)
    else:
        from .cache import fetch_description, fetch_entry_points, fetch_target
        from .remote import RemoteStore

        store = remote = RemoteStore(place)
        manifest, header, index_path = fetch_description(remote)
        find_target = partial(fetch_target, remote, manifest)
        find_entry_points = partial(fetch_entry_points, remote, manifest)
    check_agreement(store.place, manifest, header)
    if isinstance(store.place, Path):
        if not manifest.tars:
            check_shards(store.place, manifest)
        check_files(store.place, [entry.file_name for entry in manifest.targets])
        for entry in manifest.targets:
            check_target(find_target(entry), entry)
    if manifest.tars:
        store = PlacedStore(store, manifest)
    return Parts(store, manifest, index_path, find_target, find_entry_points)


def _find_target(folder: Path, entry: TargetEntry) -> Path:
    return folder / entry.file_name


def _find_entry_points(folder: Path, _: Path | None) -> Path:
    check_files(folder, [ENTRY_POINTS_NAME])
    return folder / ENTRY_POINTS_NAME
