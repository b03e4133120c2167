"""What is kept of a remote dataset on this machine, once, for all ranks: its index, and targets.

The cache is keyed by the dataset's digest, which the manifest names and which is fetched anew each
time: a dataset that was replaced has another digest, so nothing in the cache is ever stale.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from ..counts import spell_number
from ..errors import InputError
from ..system.files import READ_TRIES, locked, naming_file, published, retried
from .entry_points import ENTRY_POINTS_NAME
from .index import HEADER_BYTES, INDEX_NAME, IndexHeader, parse_index_header, read_index_header
from .manifest import MANIFEST_NAME, Manifest, check_agreement, parse_manifest
from .remote import NUM_REQUESTS, RemoteStore
from .store import StoreError
from .targets import TargetEntry, check_target
from .web import REDIRECT_VARIABLE

CACHE_VARIABLE = "FASTSSL_CACHE"
"""Environment variable that names another folder for the cache."""

OPEN_RETRY_WAIT_S = 0.5
"""Pause before the second try of a request while opening; each later one is four times as long."""

MAX_MANIFEST_BYTES = 1 << 26
"""A larger manifest is not fetched; a shard takes 150 bytes of one."""

MAX_INDEX_BYTES = 1 << 35
"""A larger index is not fetched: that of a milliard samples."""

_CHUNK_BYTES = 4 << 20

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of the cache: ``FASTSSL_CACHE``, else ``fastssl`` in XDG's cache home."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, the XDG specification says.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "fastssl"


def fetch_description(store: RemoteStore) -> tuple[Manifest, IndexHeader, Path]:
    """Fetch what says what a dataset consists of: its manifest, and its index if need be.

    Args:
        store: the dataset's.

    Returns:
        The manifest, the index's header, and the index in the cache, whole and checked.

    Raises:
        InputError: if there is no dataset of this version, or it cannot be had.
    """
    manifest = _fetch_manifest(store)
    target = cache_folder() / manifest.digest / INDEX_NAME
    header = _find_index(target, manifest)
    if header is None:
        read = functools.partial(_read, store, INDEX_NAME, 0, HEADER_BYTES)
        start = _ask(store, INDEX_NAME, read)
        header = parse_index_header(start, f"{store.place}/{INDEX_NAME}")
        check_agreement(store.place, manifest, header)
        if header.num_bytes > MAX_INDEX_BYTES:
            raise InputError(
                f"{store.place}/{INDEX_NAME}: {header.num_bytes:,} bytes for "
                f"{spell_number(header.count, 'sample')}, at most {MAX_INDEX_BYTES:,} are fetched; "
                "copy the dataset to a folder"
            )
        with _locked(target.parent):
            # Another rank of this machine may have fetched it meanwhile.
            if _find_index(target, manifest) is None:
                size, digest = header.num_bytes, manifest.begin_digest()
                _fetch(store, INDEX_NAME, target, size, digest, manifest.digest, header.pack())
    return manifest, header, target


def fetch_target(store: RemoteStore, manifest: Manifest, entry: TargetEntry) -> Path:
    """Fetch a target, if it is not in the cache; its SHA-256 is checked on the way.

    Args:
        store: the dataset's.
        manifest: of the dataset.
        entry: which of its targets.

    Returns:
        The file in the cache.

    Raises:
        InputError: if it cannot be had, or is not what the manifest lists.
    """
    target = cache_folder() / manifest.digest / entry.file_name
    if not _is_cached(target, entry):
        with _locked(target.parent):
            # Another rank of this machine may have fetched it meanwhile.
            if not _is_cached(target, entry):
                size, digest = entry.num_bytes, hashlib.sha256()
                _fetch(store, entry.file_name, target, size, digest, entry.sha256)
    return target


def fetch_entry_points(store: RemoteStore, manifest: Manifest, folder: Path | None) -> Path | None:
    """Fetch the entry points, if they are not there; their SHA-256 is checked on the way.

    Args:
        store: the dataset's.
        manifest: of the dataset, which names them.
        folder: to keep them in, the dataset's own; None fetches nothing.

    Returns:
        The file, or None.

    Raises:
        InputError: if they cannot be had, or are not what the manifest lists.
    """
    entry = manifest.entry_points
    if folder is None or entry is None:
        return None
    target = folder / ENTRY_POINTS_NAME

    def is_there() -> bool:
        return target.exists() and target.stat().st_size == entry.bytes

    if not is_there():
        with _locked(folder):
            # Another rank of this machine may have fetched it meanwhile.
            if not is_there():
                size, digest = entry.bytes, hashlib.sha256()
                _fetch(store, ENTRY_POINTS_NAME, target, size, digest, entry.sha256)
    return target


def _is_cached(path: Path, entry: TargetEntry) -> bool:
    if not path.exists():
        return False
    try:
        check_target(path, entry)
    except InputError as error:
        _log.warning("%s; it is fetched again", error)
        return False
    return True


def _find_index(path: Path, manifest: Manifest) -> IndexHeader | None:
    """Return the header of an index in the cache; None if it is not there whole."""
    if not path.exists():
        return None
    try:
        header = read_index_header(path)
    except InputError as error:
        _log.warning("%s; it is fetched again", error)
        return None
    fits = header.digest == manifest.digest and header.count == manifest.num_samples
    return header if fits else None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache; ranks wait here for the one that fetches."""
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(locked(folder / ".lock", busy="", patience_s=math.inf))
        except OSError as error:
            raise InputError(
                f"{folder}: what is fetched of a remote dataset is kept here, but "
                f"{error.strerror}; set {CACHE_VARIABLE} to a folder that can be written"
            ) from None
        yield


def _fetch_manifest(store: RemoteStore) -> Manifest:
    read = functools.partial(store.read_file, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    content = _ask(store, MANIFEST_NAME, read)
    where = f"{store.place}/{MANIFEST_NAME}"
    manifest = parse_manifest(content, where)
    # It names a folder of the cache: see that it cannot name any other.
    if not re.fullmatch("[0-9a-f]{64}", manifest.digest):
        raise InputError(
            f"{where}: the digest is {manifest.digest[:80]!r}, wanted 64 hex digits; make the "
            "dataset again"
        )
    return manifest


def _fetch(
    store: RemoteStore,
    name: str,
    target: Path,
    size: int,
    digest: hashlib._Hash,
    wanted: str,
    header: bytes = b"",
) -> None:
    """Fetch a file by range requests behind its header, and see that the rest gives its digest."""
    room = shutil.disk_usage(target.parent).free
    if size > room:
        raise InputError(
            f"{store.place}/{name} takes {size:,} bytes, {target.parent} has room for {room:,}; "
            f"free some, or set {CACHE_VARIABLE} to a folder elsewhere"
        )
    _log.info("fetching %s of %s: %.1f MB into %s", name, store.place, size / 1e6, target.parent)
    with published(target) as file, naming_file(target):
        file.write(header)
        for chunk in _read_chunks(store, name, len(header), size):
            file.write(chunk)
            digest.update(chunk)
        if digest.hexdigest() != wanted:
            raise InputError(
                f"{store.place}/{name}: what it holds gives the digest {digest.hexdigest()[:12]}, "
                f"wanted {wanted[:12]}; it is damaged, or was replaced while it was fetched: start "
                "again, or upload the dataset again"
            )


def _read_chunks(store: RemoteStore, name: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield a stretch of a file in order, several requests under way."""
    under_way: deque[Future[bytes]] = deque()
    offset = start
    while under_way or offset < stop:
        while offset < stop and len(under_way) < NUM_REQUESTS:
            length = min(_CHUNK_BYTES, stop - offset)
            read = functools.partial(_read, store, name, offset, length)
            under_way += store.run_ahead([functools.partial(_ask, store, name, read)])
            offset += length
        yield under_way.popleft().result()


def _read(store: RemoteStore, name: str, offset: int, length: int) -> bytes:
    content = store.read_range(name, offset, length)
    if len(content) < length:
        raise StoreError(f"{len(content)} of {length} bytes at {offset}, then it ends")
    return content


def _ask(store: RemoteStore, name: str, read: Callable[[], bytes]) -> bytes:
    """Read while opening a dataset; what fails is the user's to know at once."""
    for _ in retried(OPEN_RETRY_WAIT_S):
        try:
            return read()
        except StoreError as error:
            failure = error
        if failure.kind != "failed":
            break
    raise InputError(f"{store.place}/{name}: {failure}; {_remedy(store.place, failure.kind)}")


def _remedy(address: str, kind: str) -> str:
    if kind == "missing":
        return (
            "see that the address is that of a dataset's folder, or make one (fastssl make-shards "
            "SOURCE OUT) and upload it whole"
        )
    if kind == "denied" and address.startswith("s3"):
        return (
            "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public "
            """bucket set FSSPEC_S3='{"anon": true}'"""
        )
    if kind == "denied":
        return "give this account the right to read it"
    if kind == "no-ranges":
        return (
            "serve the dataset by a server that knows Range requests (nginx, Apache, an object "
            "store; not python -m http.server), or copy it to a folder of this machine"
        )
    if kind == "redirect":
        return (
            "give the address that it leads to, or, if you trust it, set "
            f"{REDIRECT_VARIABLE} to its host"
        )
    if kind == "encoded":
        return "have the server send files as they are (no gzip, no br)"
    if kind == "too-long":
        return "it is no file of a dataset, or the server does not send what it is asked for"
    if kind == "slow":
        return "see that the store can be reached from here and answers, then start again"
    return f"it was tried {READ_TRIES} times: see that the store can be reached from here"
