"""Open a dataset and read its samples by pread; only the index is mapped."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checksum import crc32
from ..errors import InputError
from .index import INDEX_NAME, map_index
from .manifest import MANIFEST_NAME, Manifest, read_current
from .tar import BLOCK, TarError, padding, parse_header

READ_TRIES = 3
"""How often a read is tried before its sample counts as bad."""

RETRY_WAIT_S = 0.05
"""Pause before the second try; each later one is four times as long."""

MAX_OPEN_SHARDS = 128
"""Shards that one process holds open."""


class BadSample(Exception):
    """A sample whose bytes cannot be had, or are not those that were written."""

    def __init__(self, sample_id: int, reason: str):
        """Keep the sample id and the reason."""
        super().__init__(sample_id, reason)
        self.sample_id = sample_id
        self.reason = reason

    def __str__(self) -> str:
        """Return both in one line."""
        return f"sample {self.sample_id}: {self.reason}"


class _OpenFile:
    """A descriptor that lives as long as somebody reads from it."""

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _pread_all(file: _OpenFile, length: int, offset: int) -> bytes:
    """Read until all is there or the file ends: one pread may return less.

    Takes the file, not its descriptor: another thread may close the shard meanwhile, and the
    number would then belong to the next file that is opened.
    """
    content = os.pread(file.descriptor, length, offset)
    while len(content) < length:
        more = os.pread(file.descriptor, length - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


class ShardDataset:
    """A dataset: N samples with ids 0 .. N-1, read at random.

    Cheap to open at any size. May be used by several threads, lives through fork, and pickles as
    its path: the other process opens the files again.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Open a dataset; ``open_dataset`` says what is checked.

        Args:
            path: the dataset's folder.
        """
        self.path = Path(path).absolute()
        manifest, header = read_current(self.path)
        self.manifest: Manifest = manifest
        if header.digest != self.manifest.digest:
            raise InputError(
                f"{self.path}: digest {header.digest[:12]} in {INDEX_NAME}, "
                f"{self.manifest.digest[:12]} in {MANIFEST_NAME}; the files are of two datasets: "
                "restore them, or make the dataset again"
            )
        counts = np.array([shard.samples for shard in self.manifest.shards], np.int64)
        if not header.count == self.manifest.num_samples == counts.sum():
            raise InputError(
                f"{self.path}: {header.count} samples in {INDEX_NAME}, "
                f"{self.manifest.num_samples} in {MANIFEST_NAME}, {counts.sum()} in its shards; "
                "restore the files, or make the dataset again"
            )
        self._ends = np.cumsum(counts)
        self._check_shards()
        # Images that were added this very moment are behind the rows that were looked for.
        self.index: np.ndarray = map_index(self.path / INDEX_NAME)[: header.count]
        """Rows of ``fastssl.shards.index.ROW``, one a sample, memory-mapped."""
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def _check_shards(self) -> None:
        for shard in self.manifest.shards:
            path = self.path / shard.name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise InputError(
                    f"{path}: the shard is missing; restore it, or make the dataset again"
                ) from None
            if size != shard.bytes:
                raise InputError(
                    f"{path}: {size} bytes, {shard.bytes} were written; the shard is truncated or "
                    "changed: restore it, or make the dataset again"
                )

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
        shards, offsets, lengths = self.locate_many([sample_id])
        return int(shards[0]), int(offsets[0]), int(lengths[0])

    def shard_start(self, shard: int) -> int:
        """Return the id of the first sample of a shard."""
        return int(self._ends[shard]) - self.manifest.shards[shard].samples

    def _open(self, shard: int) -> _OpenFile:
        with self._lock:
            file = self._files.get(shard)
            if file is None:
                file = _OpenFile(self.path / self.manifest.shards[shard].name)
                self._files[shard] = file
                if len(self._files) > MAX_OPEN_SHARDS:
                    # A thread that reads from it keeps it alive; it is closed when that is done.
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(shard)
            return file

    def _forget(self, shard: int) -> None:
        with self._lock:
            self._files.pop(shard, None)

    def _read(self, sample_id: int, shard: int, offset: int, length: int) -> bytes:
        """Read bytes of a shard; an I/O error or a short read is tried again."""
        wait = RETRY_WAIT_S
        for attempt in range(READ_TRIES):
            if attempt:
                time.sleep(wait)
                wait *= 4
            try:
                content = _pread_all(self._open(shard), length, offset)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                if len(content) == length:
                    return content
                reason = f"{len(content)} of {length} bytes at {offset}, then the shard ends"
            self._forget(shard)  # a stale handle of a network file system is opened anew
        raise BadSample(sample_id, f"{self.manifest.shards[shard].name}: {reason}")

    def read_payload(self, sample_id: int) -> bytes:
        """Read the image of a sample and check its CRC-32.

        Args:
            sample_id: 0 .. N-1.

        Returns:
            The bytes of the image file.

        Raises:
            BadSample: if the bytes cannot be had after ``READ_TRIES`` tries, or have changed.
            IndexError: if the id is out of range.
        """
        payload = self.fetch_payload(sample_id)
        self.check_payload(sample_id, payload)
        return payload

    def fetch_payload(self, sample_id: int) -> bytes:
        """Read the image of a sample, unchecked; otherwise as ``read_payload``."""
        return self._read(int(sample_id), *self.locate(sample_id))

    def check_payload(self, sample_id: int, payload: bytes) -> None:
        """See that bytes are those that were written.

        Raises:
            BadSample: if their CRC-32 is another.
        """
        found, wanted = crc32(payload), int(self.index["crc32"][sample_id])
        if found != wanted:
            shard, offset, length = self.locate(sample_id)
            raise BadSample(
                int(sample_id),
                f"{self.manifest.shards[shard].name}: CRC-32 {found:08x} of {length} bytes at "
                f"{offset}, wanted {wanted:08x}",
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
        _, offset, _ = self.locate(sample_id)
        return self._read_members(sample_id, offset - BLOCK)

    def _read_members(self, sample_id: int, start: int) -> dict[str, bytes]:
        """Read the members of a sample from a place in its tar on, where a header begins."""
        shard, offset, _ = self.locate(sample_id)
        end = offset - BLOCK + int(self.index["span"][sample_id])
        if start >= end:
            return {}
        content = self._read(int(sample_id), shard, start, end - start)
        members: dict[str, bytes] = {}
        position = 0
        while position < len(content):
            try:
                member = parse_header(content[position : position + BLOCK], position)
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
        """
        _, offset, length = self.locate(sample_id)
        members = self._read_members(sample_id, offset + length + padding(length))
        return json.loads(members.get("json", b"{}"))

    def close(self) -> None:
        """Close the shards and let go of the index. A closed dataset reads nothing more."""
        with self._lock:
            self._files.clear()
        self.index = self.index[:0].copy()

    def __getstate__(self) -> dict:
        """Pickle as the path and the digest."""
        return {"path": self.path, "digest": self.digest}

    def __setstate__(self, state: dict) -> None:
        """Open the same dataset again."""
        self.__init__(state["path"])  # type: ignore[misc] # nobody derives from it
        if self.digest != state["digest"]:
            raise InputError(
                f"{self.path}: digest {self.digest[:12]}, {state['digest'][:12]} when it was first "
                "opened; the dataset was replaced meanwhile: start again"
            )


def open_dataset(path: str | os.PathLike[str]) -> ShardDataset:
    """Open a dataset.

    Versions, sizes of all files and the digest of the index's header are checked, which takes no
    reading of shards; ``tools/check_shards.py`` checks their bytes.

    Args:
        path: the dataset's folder.

    Returns:
        The dataset.

    Raises:
        InputError: if it is not a whole dataset of this version; the message says what to do.
    """
    return ShardDataset(path)
