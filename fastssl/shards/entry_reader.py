"""Read the entry points of a dataset: where each record lies, and its bytes.

Shape legend: N samples of the dataset, B samples of a batch.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..system.files import check_mapped, open_regular, refusing_unreadable
from .entry_points import (
    HEADER_BYTES,
    MAX_SHARE,
    OFFSET,
    EntryPointsFile,
    pack_header,
)
from .reader import ShardDataset


def open_entry_points(dataset: ShardDataset) -> EntryPoints | None:
    """Open what says from where on the JPEGs of a dataset can be decoded.

    Args:
        dataset: the dataset.

    Returns:
        None where the manifest names nothing of the kind, or the dataset lies in an object store
        and nothing of it is kept on this machine.

    Raises:
        InputError: if the file is missing, or not the one that the manifest names.
    """
    entry, path = dataset.manifest.entry_points, dataset.find_entry_points()
    if entry is None or path is None:
        return None
    return EntryPoints(path, entry, dataset.num_samples, dataset.digest)


class EntryPoints:
    """Where the records of a dataset lie. Only the table of their places is mapped."""

    def __init__(self, path: Path, entry: EntryPointsFile, num_samples: int, digest: str) -> None:
        """Look at the file.

        Args:
            path: the file.
            entry: what the manifest says of it.
            num_samples: N.
            digest: of the dataset.

        Raises:
            InputError: if it is missing, of another size or dataset, or of another version.
        """
        self.path = path
        remedy = f"make them again: fastssl entry-points {path.parent}"
        try:
            with refusing_unreadable(path, remedy):
                self._file = open(open_regular(path), "rb")
                start = self._file.read(HEADER_BYTES)
                self._num_bytes = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            raise InputError(f"{path}: the entry points are missing; {remedy}") from None
        table = (num_samples + 1) * OFFSET.itemsize
        if self._num_bytes != entry.bytes or self._num_bytes < HEADER_BYTES + table:
            raise InputError(
                f"{path}: {self._num_bytes:,} bytes, {entry.bytes:,} in the manifest; {remedy}"
            )
        if start != pack_header(num_samples, digest):
            raise InputError(f"{path}: not the entry points of this dataset; {remedy}")
        self._ends = np.memmap(path, OFFSET, "r", HEADER_BYTES, (num_samples + 1,))

    def locate(
        self, sample_ids: NDArray[np.int64], payload_bytes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Say where the records of samples lie.

        Args:
            sample_ids: (B,) ids in 0 .. N-1.
            payload_bytes: (B,) lengths of their payloads.

        Returns:
            int64 (B,) each: offset in the file, and length, 0 for none. A place that cannot be is
            one byte of the file's header, which no decoder takes for a record.

        Raises:
            RunFailed: if the file was cut since it was opened.
        """
        check_mapped(self._ends)
        begins, ends = self._ends[sample_ids], self._ends[sample_ids + 1]
        # What lies may be any 64 bits: compared before anything is subtracted.
        is_place = (begins <= ends) & (ends <= np.uint64(self._num_bytes))
        lengths = np.where(is_place, ends - begins, 0).astype(np.int64)
        is_place &= lengths <= MAX_SHARE * payload_bytes
        return np.where(is_place, begins, 0).astype(np.int64), np.where(is_place, lengths, 1)

    def read_many(
        self, sample_ids: NDArray[np.int64], payload_bytes: NDArray[np.int64]
    ) -> list[bytes]:
        """Read the records of samples, as ``locate`` says where they lie; empty for none."""
        offsets, lengths = self.locate(sample_ids, payload_bytes)
        places = zip(offsets.tolist(), lengths.tolist(), strict=True)
        return [os.pread(self._file.fileno(), length, offset) for offset, length in places]

    def read(self, sample_id: int, payload_bytes: int) -> bytes:
        """Read the record of one sample; empty if it has none."""
        return self.read_many(np.array([sample_id]), np.array([payload_bytes]))[0]
