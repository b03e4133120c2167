"""The shards of a dataset over tars that stay where they are: one store over all their places.

Tars change without their index knowing. Size and ETag are asked for when a dataset is opened, what
is read is held against its CRC-32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

from ..address import hide_credentials, parse_place
from ..errors import InputError
from .manifest import Manifest, TarEntry
from .store import FileState, LocalStore, Result, Store
from .web import names_link_local

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


def open_places(addresses: Iterable[str], is_guarded: bool = False) -> list[tuple[Store, str]]:
    """Return the store that each tar lies in, one a folder, and the tar's name there.

    Args:
        addresses: as ``split_address`` takes them.
        is_guarded: as ``RemoteStore`` takes it.

    Raises:
        InputError: for a place that is none.
    """
    stores: dict[Path | str, Store] = {}
    places = []
    for address in addresses:
        folder, name = split_address(address)
        if folder not in stores:
            stores[folder] = open_store(folder, is_guarded)
        places.append((stores[folder], name))
    return places


def open_store(folder: Path | str, is_guarded: bool = False) -> Store:
    """Return the store of a folder, or of an address.

    Args:
        folder: or the address.
        is_guarded: as ``RemoteStore`` takes it.

    Raises:
        InputError: for an address that cannot be read from.
    """
    if isinstance(folder, Path):
        return LocalStore(folder)
    from .remote import RemoteStore

    return RemoteStore(folder, is_guarded)


def look_at(places: Iterable[tuple[Store, str]]) -> list[FileState]:
    """Return size and ETag of tars as they stand now; stores are asked for several at once.

    Args:
        places: from ``open_places``.

    Raises:
        InputError: if one is no regular file, or cannot be had.
    """
    waiting = [store.begin(functools.partial(_ask, store, name)) for store, name in places]
    return [wait() for wait in waiting]


def _ask(store: Store, name: str) -> FileState:
    try:
        return store.state(name)
    except OSError as error:
        what = error.strerror or error
        raise InputError(f"{store.place}/{name}: {what}; {_REMEDY}") from None


class PlacedStore(Store):
    """The tars of one dataset, wherever each lies, by the names of its shards."""

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
        self._tars = manifest.tars
        for tar in manifest.tars:
            if names_link_local(tar.address):
                raise InputError(
                    f"{self.place}: its manifest names {tar.address}, a link-local address, where "
                    "clouds answer with a machine's credentials; index the tars elsewhere"
                )
        places = open_places((tar.address for tar in manifest.tars), is_guarded=True)
        names = [shard.name for shard in manifest.shards]
        self._places = dict(zip(names, places, strict=True))
        self._stores = {store, *(one for one, _ in places)}
        for tar, (one, _) in zip(manifest.tars, places, strict=True):
            if store.is_remote and not one.is_remote:
                raise InputError(
                    f"{self.place}: its manifest names {tar.address}, a file of this machine; copy "
                    "the dataset to a folder if that is meant"
                )
        self.is_remote = any(one.is_remote for one in self._stores)
        self.patience = max(one.patience for one in self._stores)

    def check(self) -> None:
        """See that every tar has the size, and of a store the ETag, that it was indexed with.

        Raises:
            InputError: names the first that is gone or has changed.
        """
        for tar, found in zip(self._tars, look_at(self._places.values()), strict=True):
            _compare(tar, found)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a tar."""
        store, there = self._places[name]
        return store.read_range(there, offset, length)

    def is_far(self, name: str) -> bool:
        """Tell whether a tar lies in an object store."""
        return self._places[name][0].is_remote

    def find_file(self, name: str) -> Path | None:
        """Return the path of a tar on this machine."""
        store, there = self._places[name]
        return store.find_file(there)

    def state(self, name: str) -> FileState:
        """Return what is known of a tar."""
        store, there = self._places[name]
        return store.state(there)

    def forget(self, name: str) -> None:
        """Let go of a tar's descriptor."""
        store, there = self._places[name]
        store.forget(there)

    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:
        """Run reads side by side where some tar is remote."""
        remote = next((one for one in self._stores if one.is_remote), None)
        return [] if remote is None else remote.run_ahead(jobs)

    def close(self) -> None:
        """Let go of every tar, and of what the manifest came from."""
        for store in self._stores:
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
