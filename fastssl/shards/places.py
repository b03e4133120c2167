"""The shards of a dataset over tars that stay where they are: one store over all their places.

Tars change without their index knowing. Size and ETag are asked for when a dataset is opened, what
is read is held against its CRC-32.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from ..address import hide_credentials, parse_place
from ..errors import InputError
from ..system.files import open_regular, refusing_unreadable
from .manifest import Manifest, TarEntry
from .store import FileState, LocalStore, Result, Store, StoreError

if TYPE_CHECKING:
    from .remote import RemoteStore

PROTOCOLS = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs")
"""Of addresses that a manifest may name."""
_REMEDY = "put it back, or index the tars again: fastssl index-tars TAR... OUT"


def split_address(address: str) -> tuple[Path | str, str]:
    """Return the folder of a tar, a Path or an address, and the tar's name in it.

    Args:
        address: absolute path or ``protocol://...``.

    Raises:
        InputError: for a relative path, another protocol, or an address with a password in it,
            which would stand in the dataset's manifest.
    """
    place = parse_place(address)
    if isinstance(place, Path):
        if not place.is_absolute():
            raise InputError(f"{address}: a tar's path must be absolute")
        return place.parent, place.name
    if place.partition(":")[0] not in PROTOCOLS:
        raise InputError(
            f"{hide_credentials(address)}: tars are read from files and by {', '.join(PROTOCOLS)}"
        )
    if hide_credentials(place) != place:
        raise InputError(
            f"{hide_credentials(address)}: leave user, password and what stands behind '?' out; "
            "the address stands in the manifest. Give them by the environment (.netrc, AWS_...)"
        )
    folder, _, name = place.rpartition("/")
    return folder, name


class PlacedStore(Store):
    """The tars of one dataset, wherever each lies."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Open nothing yet.

        Args:
            store: where the manifest lies.
            manifest: names the tars.

        Raises:
            InputError: for a place that is none, or one on this machine that a manifest in an
                object store names.
        """
        self.place: Path | str = store.place
        self.address: Path | str = store.address
        self._own = store
        self._stores: dict[Path | str, Store] = {}
        self._places: dict[str, tuple[Store, str]] = {}
        for shard, tar in zip(manifest.shards, manifest.tars, strict=True):
            folder, name = split_address(tar.address)
            if isinstance(folder, Path) and store.is_remote:
                raise InputError(
                    f"{self.place}: its manifest names {tar.address}, a file of this machine; copy "
                    "the dataset to a folder if that is meant"
                )
            self._places[shard.name] = self._open(folder), name
        self.is_remote = any(one.is_remote for one in self._stores.values())
        self.patience = max(one.patience for one in self._stores.values())

    def _open(self, folder: Path | str) -> Store:
        if folder not in self._stores:
            if isinstance(folder, Path):
                self._stores[folder] = LocalStore(folder)
            else:
                from .remote import RemoteStore

                self._stores[folder] = RemoteStore(folder)
        return self._stores[folder]

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a tar, by the name of its shard."""
        store, there = self._places[name]
        return store.read_range(there, offset, length)

    def size(self, name: str) -> int:
        """Return the size of a tar in bytes."""
        store, there = self._places[name]
        return store.size(there)

    def forget(self, name: str) -> None:
        """Let go of a tar's descriptor."""
        store, there = self._places[name]
        store.forget(there)

    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:
        """Run reads side by side where some tar is remote."""
        remote = next((one for one in self._stores.values() if one.is_remote), None)
        return [] if remote is None else remote.run_ahead(jobs)

    def close(self) -> None:
        """Let go of every tar, and of what the manifest came from."""
        for store in (self._own, *self._stores.values()):
            store.close()


def look_at(folder: Path | str, name: str) -> FileState:
    """Return size and ETag of a tar as it stands there now.

    Args:
        folder: a Path, or an address.
        name: of the tar in it.

    Raises:
        InputError: if it is no regular file, or cannot be had.
    """
    if isinstance(folder, Path):
        with refusing_unreadable(folder / name, _REMEDY):
            try:
                descriptor = open_regular(folder / name)
            except FileNotFoundError:
                raise InputError(f"{folder / name}: no such tar; {_REMEDY}") from None
        try:
            return FileState(os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
    from .remote import RemoteStore

    return _ask(RemoteStore(folder), name)


def _ask(store: RemoteStore, name: str) -> FileState:
    try:
        return store.state(name)
    except StoreError as error:
        raise InputError(f"{store.place}/{name}: {error}; {_REMEDY}") from None


def check_places(manifest: Manifest) -> None:
    """See that every tar has the size, and of a store the ETag, that it was indexed with.

    Args:
        manifest: of a dataset over tars.

    Raises:
        InputError: names the first that is gone or has changed.
    """
    remote: dict[str, list[TarEntry]] = {}
    for tar in manifest.tars:
        folder, name = split_address(tar.address)
        if isinstance(folder, Path):
            _compare(tar, look_at(folder, name))
        else:
            remote.setdefault(folder, []).append(tar)
    for folder, tars in remote.items():
        _check_remote(folder, tars)


def _check_remote(folder: str, tars: list[TarEntry]) -> None:
    from .remote import RemoteStore

    store = RemoteStore(folder)
    try:
        names = [split_address(tar.address)[1] for tar in tars]
        asked = store.run_ahead([functools.partial(_ask, store, name) for name in names])
        for tar, answer in zip(tars, asked, strict=True):
            _compare(tar, answer.result())
    finally:
        store.close()


def _compare(tar: TarEntry, found: FileState) -> None:
    if found.size not in (tar.bytes, None):
        raise InputError(
            f"{tar.address}: {found.size:,} bytes, {tar.bytes:,} when it was indexed; {_REMEDY}"
        )
    if None not in (tar.etag, found.etag) and tar.etag != found.etag:
        raise InputError(
            f"{tar.address}: its store calls it {found.etag} now, {tar.etag} when it was indexed: "
            f"it has changed; {_REMEDY}"
        )
