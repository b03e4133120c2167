"""Open a dataset and read its samples by pread; only the index is mapped."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..address import CachePlace
from ..errors import InputError
from ..system.files import check_mapped, retried
from .agreement import decode_as_said
from .checksum import crc32
from .index import SampleFlags, map_index
from .opening import find_parts
from .picture import PictureError, open_picture
from .places import PlacedStore
from .rows import BadSample, describe_fault, describe_short_read, find_faults
from .store import Store
from .tar import BLOCK, TarError, padding, parse_member, split_members
from .targets import Targets

if TYPE_CHECKING:
    from .cached import CachedStore

RETRY_WAIT_S = 0.05
"""Pause before the second try of a read from a disk; each later one is four times as long, and
those of a remote store 20 times."""


class ShardDataset:
    """A dataset: N samples with ids 0 .. N-1, read at random.

    Cheap to open at any size. May be used by several threads, lives through fork, and pickles as
    its path: the other process opens the files again.
    """

    def __init__(self, path: str | os.PathLike[str], cache: CachePlace | None = None):
        """Open a dataset; ``open_dataset`` says what is checked.

        Args:
            path: the dataset's folder, or its address in an object store.
            cache: where shards in object stores are kept, if anywhere.
        """
        self._open(path, cache)
        if isinstance(self._origin, PlacedStore):
            # Of our own shards a short read tells: a request for each may take minutes.
            self._origin.check()

    def _open(self, path: str | os.PathLike[str], cache: CachePlace | None) -> None:
        parts = find_parts(path)
        self._origin, self.manifest = parts.store, parts.manifest
        self._find_entry_points = parts.find_entry_points
        self._index: np.ndarray = map_index(parts.index_path)
        self._cache_place = cache
        self.cache: CachedStore | None = None
        """What keeps shards of object stores on this machine, if anything does."""
        if cache is not None:
            from .cached import open_cache

            self.cache = open_cache(self._origin, self.manifest, cache, self._index)
        self._store: Store = self.cache or self._origin
        shards = self.manifest.shards
        self._ends = np.cumsum([shard.samples for shard in shards], dtype=np.int64)
        self._shard_bytes = np.array([shard.bytes for shard in shards], np.int64)
        self.targets = Targets(self.manifest.targets, parts.find_target)
        """What else is known of every sample: (N, ...) by name, memory-mapped when asked for."""

    @property
    def path(self) -> Path | str:
        """The dataset's folder, or its address without a password in it."""
        return self._store.place

    @property
    def address(self) -> Path | str:
        """What opens it again: the folder, or the address with the password that it was given."""
        return self._store.address

    @property
    def folder(self) -> Path:
        """The dataset's folder.

        Raises:
            InputError: if it lies in an object store.
        """
        if isinstance(self.path, Path):
            return self.path
        raise InputError(
            f"{self.path}: this needs a dataset in a folder of this machine; copy it to one first"
        )

    def list_paths(self) -> list[Path]:
        """Return where the shards lie on this machine, in their order; of some perhaps a part.

        Raises:
            InputError: if one of them lies elsewhere, and is not kept in a cache either.
        """
        paths = []
        for number, shard in enumerate(self.manifest.shards):
            path = self._store.find_file(shard.name)
            if path is None and self.manifest.tars:
                raise InputError(
                    f"{self.manifest.tars[number].address}: this needs tars on this machine; copy "
                    "them to it, and index them there (fastssl index-tars)"
                )
            paths.append(path or self.folder / shard.name)
        return paths

    def find_entry_points(self) -> Path | None:
        """Return the file of the entry points on this machine, fetched if there is a cache.

        Returns:
            None if there is none, or it lies in an object store and nothing keeps it.
        """
        if self.manifest.entry_points is None:
            return None
        return self._find_entry_points(None if self.cache is None else self.cache.folder)

    @property
    def index(self) -> np.ndarray:
        """Rows of ``fastssl.shards.index.ROW``, one a sample, memory-mapped.

        They may say anything: ``find_faults`` tells which can be used.

        Raises:
            RunFailed: if the file was cut since it was opened: a look at what is gone is SIGBUS.
        """
        check_mapped(self._index)
        return self._index

    def look_up(self, sample_ids: ArrayLike) -> tuple[np.ndarray, NDArray[np.uint8]]:
        """Return rows of the index, and which of them cannot be used, whatever the shards hold.

        Args:
            sample_ids: (B,) ids in 0 .. N-1.

        Returns:
            A copy of the rows, (B,), and uint8 (B,) of ``fastssl.shards.rows.RowFault``; 0 where a
            row is good.
        """
        ids = np.asarray(sample_ids, np.int64)
        rows = self.index[ids]
        shard_bytes = self._shard_bytes[np.searchsorted(self._ends, ids, side="right")]
        return rows, find_faults(rows, shard_bytes, len(self.class_names), not self.manifest.tars)

    def find_faults(self, sample_ids: ArrayLike) -> NDArray[np.uint8]:
        """Say which rows of the index cannot be used; see ``look_up``."""
        return self.look_up(sample_ids)[1]

    def rows_of(self, shard: int) -> np.ndarray:
        """Return the rows of a shard's samples."""
        start = self.shard_start(shard)
        return self.index[start : start + self.manifest.shards[shard].samples]

    def check_rows(self) -> None:
        """See that every row can be used, for who has no substitute where one is bad.

        Raises:
            InputError: if one cannot.
        """
        start = 0
        for shard in self.manifest.shards:
            bad = np.flatnonzero(self.find_faults(np.arange(start, start + shard.samples)))
            if len(bad):
                first = start + int(bad[0])
                raise InputError(
                    f"{self.path}: sample {first}: {self.describe_fault(first)}; see what else is "
                    "wrong (fastssl check-shards), then make the dataset again"
                )
            start += shard.samples

    def describe_fault(self, sample_id: int) -> str:
        """Say in one line what ``find_faults`` has found at a sample's row."""
        (row,), (fault,) = self.look_up([sample_id])
        shard = self.manifest.shards[bisect_right(self._ends, sample_id)]
        return describe_fault(row, int(fault), shard.name, shard.bytes)

    @property
    def num_samples(self) -> int:
        """N, the number of samples."""
        return self.manifest.num_samples

    @property
    def digest(self) -> str:
        """64 hex digits that stand for what the dataset holds."""
        return self.manifest.digest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label; empty without labels."""
        return self.manifest.class_names

    @property
    def encoding(self) -> str:
        """How payloads were made: ``keep``, ``resized``, ``raw`` or ``mixed``."""
        return self.manifest.encoding

    @property
    def has_labels(self) -> bool:
        """Whether any sample has a label."""
        return self.manifest.num_labelled > 0

    def __len__(self) -> int:
        """Return N."""
        return self.num_samples

    def locate_many(
        self, sample_ids: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Say where the payloads of samples lie.

        Args:
            sample_ids: (B,) ids in 0 .. N-1.

        Returns:
            int64 (B,) each: number of the shard (its place in the manifest), offset of the payload
            in it, length of the payload in bytes.

        Raises:
            IndexError: if an id is out of range.
        """
        ids = np.asarray(sample_ids, np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.num_samples):
            raise IndexError(
                f"sample ids {ids.min()} .. {ids.max()} must lie in 0 .. {self.num_samples - 1}"
            )
        rows = self.index[ids]
        shards = np.searchsorted(self._ends, ids, side="right")
        return shards, rows["offset"].astype(np.int64), rows["length"].astype(np.int64)

    def locate(self, sample_id: int) -> tuple[int, int, int]:
        """Say where the payload of a sample lies.

        Args:
            sample_id: 0 .. N-1.

        Returns:
            Number of the shard, offset of the payload in it, length of the payload.

        Raises:
            IndexError: if the id is out of range.
        """
        # Not by locate_many: for one sample NumPy takes five times as long.
        sample_id = int(sample_id)
        if not 0 <= sample_id < self.num_samples:
            raise IndexError(f"sample id {sample_id} must lie in 0 .. {self.num_samples - 1}")
        row = self.index[sample_id]
        shard = bisect_right(self._ends, sample_id)
        return shard, int(row["offset"]), int(row["length"])

    def shard_start(self, shard: int) -> int:
        """Return the id of the first sample of a shard."""
        return int(self._ends[shard]) - self.manifest.shards[shard].samples

    def _read(self, store: Store, sample_id: int, shard: int, offset: int, length: int) -> bytes:
        """Read bytes of a shard; an I/O error or a short read is tried again."""
        name = self.manifest.shards[shard].name
        for _ in retried(RETRY_WAIT_S * store.patience):
            try:
                content = store.read_range(name, offset, length)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                if len(content) == length:
                    return content
                reason = describe_short_read(len(content), offset, length)
            store.forget(name)
        raise BadSample(sample_id, f"{name}: {reason}")

    def read_payload(self, sample_id: int) -> bytes:
        """Read the image of a sample and check its CRC-32.

        Args:
            sample_id: 0 .. N-1.

        Returns:
            The bytes of the image file.

        Raises:
            BadSample: if the bytes cannot be had after three tries, or have changed.
            IndexError: if the id is out of range.
        """
        return self.mend(sample_id, self.fetch_payload(sample_id))

    def fetch_payload(self, sample_id: int) -> bytes:
        """Read the image of a sample, unchecked; otherwise as ``read_payload``."""
        return self._read(self._store, int(sample_id), *self.locate(sample_id))

    def fetch_ahead(self, sample_ids: ArrayLike) -> dict[int, Future[bytes]]:
        """Ask for the images of several samples at once, where that hides a store's latency.

        Args:
            sample_ids: (B,) ids in 0 .. N-1.

        Returns:
            What ``fetch_payload`` gives or raises by place in ``sample_ids``, a future a sample;
            none of those that lie, or will soon lie, on this machine.
        """
        ids = np.asarray(sample_ids, np.int64)
        if not self._store.is_remote:
            return {}
        far = np.arange(len(ids))
        if self.cache is not None:
            far = np.flatnonzero(~self.cache.is_kept(*self.locate_many(ids)))
        reads = self._store.run_ahead([partial(self.fetch_payload, i) for i in ids[far].tolist()])
        return dict(zip(far.tolist(), reads, strict=False))

    def mend(self, sample_id: int, payload: bytes) -> bytes:
        """Return the bytes that were written: these, or the store's where a cache gave others.

        Args:
            sample_id: 0 .. N-1.
            payload: what ``fetch_payload`` gave.

        Raises:
            BadSample: if the store's are others too.
        """
        try:
            self.check_payload(sample_id, payload)
        except BadSample:
            if self.cache is None:
                raise
            payload = self.fetch_anew(sample_id)
        return payload

    def fetch_anew(self, sample_id: int) -> bytes:
        """Do as ``read_payload``, but past the cache, which drops what it has of the sample."""
        place = self.locate(sample_id)
        if self.cache is not None:
            self.cache.drop(*place)
        payload = self._read(self._origin, int(sample_id), *place)
        self.check_payload(sample_id, payload)
        return payload

    def check_payload(self, sample_id: int, payload: bytes) -> None:
        """See that bytes are those that were written.

        Raises:
            BadSample: if their CRC-32 is another.
        """
        found = crc32(payload)
        if found != self.index["crc32"][sample_id]:
            raise BadSample(int(sample_id), self.describe_wrong_crc(sample_id, found))

    def decode(
        self,
        sample_id: int,
        payload: bytes,
        open_payload: Callable[[bytes], Image.Image] = open_picture,
    ) -> Image.Image:
        """Decode the image of a sample by the reference decoder.

        Args:
            sample_id: 0 .. N-1.
            payload: what ``read_payload`` gave.
            open_payload: opens it.

        Returns:
            The picture, RGB and upright.

        Raises:
            BadSample: if the bytes are no picture, or one of another size than its row says.
        """
        row = self.index[sample_id]
        try:
            return decode_as_said(payload, int(row["width"]), int(row["height"]), open_payload)
        except PictureError as error:
            shard = self.manifest.shards[self.locate(sample_id)[0]]
            raise BadSample(int(sample_id), f"{shard.name}: no picture: {error}") from None

    def describe_wrong_crc(self, sample_id: int, found: int) -> str:
        """Say which bytes are not those that were written.

        Args:
            sample_id: 0 .. N-1.
            found: CRC-32 of the bytes that are there.
        """
        shard, offset, length = self.locate(sample_id)
        return (
            f"{self.manifest.shards[shard].name}: CRC-32 {found:08x} of {length} bytes at "
            f"{offset}, wanted {self.index['crc32'][sample_id]:08x}"
        )

    def read_members(self, sample_id: int) -> dict[str, bytes]:
        """Read all members of a sample by one pread.

        Args:
            sample_id: 0 .. N-1.

        Returns:
            The members' bytes by extension, such as ``jpg``, ``cls`` and ``json``.

        Raises:
            BadSample: if the bytes cannot be had or are no whole tar members.
            IndexError: if the id is out of range.
        """
        _, offset, length = self.locate(sample_id)
        if not self.manifest.tars:
            return self._read_members(sample_id, offset - BLOCK)
        # Of others' tars the header before the image may hold but a part of its name.
        kind = SampleFlags.unpack(self.index["flags"][sample_id]).payload
        behind = self._read_members(sample_id, offset + length + padding(length))
        return {kind.name.lower().replace("jpeg", "jpg"): self.fetch_payload(sample_id), **behind}

    def _read_members(self, sample_id: int, start: int) -> dict[str, bytes]:
        """Read the members of a sample from a place in its tar on, where a header begins."""
        if self.find_faults([sample_id])[0]:
            raise BadSample(int(sample_id), self.describe_fault(sample_id))
        shard, offset, _ = self.locate(sample_id)
        end = offset - BLOCK + int(self.index["span"][sample_id])
        if start >= end:
            return {}
        # Past a cache, whose bytes are as good as their CRC-32: these have none.
        content = self._read(self._origin, int(sample_id), shard, start, end - start)
        if self.manifest.tars:
            return split_members(content)
        members: dict[str, bytes] = {}
        position = 0
        while position < len(content):
            try:
                member = parse_member(content[position : position + BLOCK], position)
            except TarError as error:
                name = self.manifest.shards[shard].name
                raise BadSample(int(sample_id), f"{name}: {error}") from None
            extension = member.name.partition(".")[2]
            members[extension] = content[member.offset : member.offset + member.size]
            position = member.offset + member.size + padding(member.size)
        return members

    def read_metadata(self, sample_id: int) -> dict:
        """Read the JSON of a sample: ``source``, ``orientation`` and whatever came along.

        The image itself is not read.

        Raises:
            BadSample: if the bytes cannot be had, or are none.
            IndexError: if the id is out of range.
        """
        shard, offset, length = self.locate(sample_id)
        members = self._read_members(sample_id, offset + length + padding(length))
        try:
            metadata = json.loads(members.get("json", b"{}"))
        except (ValueError, RecursionError):
            metadata = None
        if not isinstance(metadata, dict):
            name = self.manifest.shards[shard].name
            raise BadSample(int(sample_id), f"{name}: its .json is no object of JSON")
        return metadata

    def close(self) -> None:
        """Close the shards and let go of the index. A closed dataset reads nothing more."""
        self._store.close()
        self._index = self._index[:0].copy()
        self.targets.close()

    def __getstate__(self) -> dict:
        """Pickle as the path and the digest."""
        return {"path": self.address, "digest": self.digest, "cache": self._cache_place}

    def __setstate__(self, state: dict) -> None:
        """Open the same dataset again; tars in other places were looked at when it was first."""
        self._open(state["path"], state["cache"])
        if self.digest != state["digest"]:
            raise InputError(
                f"{self.path}: digest {self.digest[:12]}, {state['digest'][:12]} when it was first "
                "opened; the dataset was replaced meanwhile: start again"
            )


def open_dataset(path: str | os.PathLike[str], cache: CachePlace | None = None) -> ShardDataset:
    """Open a dataset.

    Versions, sizes of all files and the digest of the index's header are checked, which takes no
    reading of shards; ``fastssl check-shards`` checks their bytes. Of a dataset in an object store
    the index is fetched into a cache on this machine, once, and checked whole; its shards' sizes
    are not asked for.

    Args:
        path: the dataset's folder, or its address, such as ``s3://bucket/folder``.
        cache: where its shards are kept as they are read, if they lie in an object store; None
            keeps nothing of them.

    Returns:
        The dataset.

    Raises:
        InputError: if it is not a whole dataset of this version; the message says what to do.
    """
    return ShardDataset(path, cache)
