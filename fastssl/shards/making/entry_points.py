"""Find the entry points of JPEGs, by the extension: while they are converted, or afterwards."""

from __future__ import annotations

import functools
import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...jpeg_extension import STATUSES
from ...system.cpus import available_cpus
from ...system.files import check_own_folder, locked, publish_bytes, sync_folder
from ...system.signals import stopping_on_signals
from ...system.workers import Progress, Report, run_jobs, say_nothing
from ..entry_points import ENTRY_POINTS_NAME, MAX_SHARE, EntryPointsPart, write_entry_points
from ..manifest import MANIFEST_NAME
from ..reader import open_dataset
from ..rows import BadSample
from .tiled import require_transcoder

BYTES_APART = 512
"""Of a payload between two entries, about: docs/performance.md has sizes and speeds."""

_LEAST_ENTRIES = 8
"""A file with fewer is decoded in no time."""

_FOLDER_NAME = ".entry-points"


def find_entry_points(
    payload: bytes, bytes_apart: int = BYTES_APART, max_share: float = MAX_SHARE
) -> bytes:
    """Find the places from which a JPEG can be decoded.

    Args:
        payload: the bytes of an image.
        bytes_apart: of the payload between two of them, about; more where the record would be too
            long.
        max_share: of the payload's bytes that the record may take.

    Returns:
        The record; empty for what is no baseline JPEG of one scan, for small ones, and where
        restart markers lie as close.

    Raises:
        InputError: if the extension is missing.
    """
    if bytes_apart < 1:
        raise InputError(f"bytes_apart ({bytes_apart}) must be at least 1")
    module = require_transcoder("finding entry points")
    if len(payload) < _LEAST_ENTRIES * bytes_apart:
        return b""
    most = int(max_share * len(payload))
    status, record = module.find_entry_points(payload, bytes_apart, most)
    if STATUSES[status] == "no_memory":
        raise MemoryError("no memory to find the entry points of a JPEG")
    return record


def are_entry_points(payload: bytes, record: bytes) -> bool:
    """Return whether a record says nothing but the truth of a JPEG: they are found again.

    Args:
        payload: the bytes of the JPEG.
        record: what is kept of it; not empty.

    Raises:
        InputError: if the extension is missing.
    """
    status = require_transcoder("checking entry points").check_entry_points(payload, record)
    if STATUSES[status] == "no_memory":
        raise MemoryError("no memory to check the entry points of a JPEG")
    return STATUSES[status] == "ok"


def settle_entry_points(are_wanted: bool) -> bool:
    """Return whether entry points are found; warn where they cannot be.

    Args:
        are_wanted: whether they are asked for, as they are by default.
    """
    try:
        return are_wanted and require_transcoder("finding entry points") is not None
    except InputError as error:
        warnings.warn(f"entry points are left out: {error}", stacklevel=2)
        return False


@dataclass(frozen=True)
class EntryPointsReport:
    """What was found in a dataset."""

    samples: int
    """Samples of the dataset."""
    written: int
    """Samples that have entry points."""
    bytes_in: int
    """Bytes of the images."""
    bytes_out: int
    """Bytes of the file; 0 if no sample has any, and none was written."""
    seconds: float
    """Wall time of this call."""


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.entries"


def find_in_shard(number: int, report: Report, path: Path, folder: Path) -> int:
    """Find the entry points of a shard's images; runs in a worker process.

    Args:
        number: place of the shard in the manifest.
        report: called with 1 for each image.
        path: the dataset's folder.
        folder: of what is not finished.

    Returns:
        Bytes of its images.
    """
    dataset = open_dataset(path)
    part, num_bytes = EntryPointsPart(), 0
    start = dataset.shard_start(number)
    for sample_id in range(start, start + dataset.manifest.shards[number].samples):
        num_bytes += dataset.locate(sample_id)[2]
        try:
            part.add(find_entry_points(dataset.read_payload(sample_id)))
        except BadSample:
            part.add(b"")  # a loader puts another in its place, and check_shards names it
        report(1)
    dataset.close()
    publish_bytes(_part_path(folder, number), part.pack(), folder)
    return num_bytes


def add_entry_points(
    path: Path, workers: int | None = None, on_progress: Progress = say_nothing
) -> EntryPointsReport:
    """Find the entry points of a dataset's JPEGs; its digest stays what it is.

    The file is put beside the index, and last the manifest, which names it, in its place. What is
    there of an earlier one is made again.

    Args:
        path: the dataset's folder.
        workers: worker processes, a shard each; None takes the CPUs that this process may use.
        on_progress: told of samples.

    Returns:
        What was found.

    Raises:
        InputError: if the folder is no dataset, or the extension is missing.
        StoppedBySignal: on SIGTERM or SIGINT; the dataset is what it was.
    """
    begin = time.monotonic()
    require_transcoder("finding entry points")
    dataset = open_dataset(path)
    manifest, folder = dataset.manifest, dataset.folder / _FOLDER_NAME
    dataset.close()
    check_own_folder(folder)
    with stopping_on_signals("the dataset is what it was; run the same command again"):
        folder.mkdir(exist_ok=True)
        busy = f"{path}: another fastssl entry-points is at work in it; wait for it or stop it"
        with locked(folder, busy):
            numbers = range(len(manifest.shards))
            on_progress(0, manifest.num_samples)
            found = run_jobs(
                functools.partial(find_in_shard, path=path, folder=folder),
                numbers,
                workers or available_cpus(),
                on_progress=lambda count: on_progress(count, manifest.num_samples),
                describe=lambda number: manifest.shards[number].name,
            )
            bytes_in = sum(found)
            parts = [_part_path(folder, number) for number in numbers]
            count, target = manifest.num_samples, path / ENTRY_POINTS_NAME
            entry = write_entry_points(target, manifest.digest, count, parts, folder)
            text = replace(manifest, entry_points=entry).to_json()
            publish_bytes(path / MANIFEST_NAME, text.encode("ascii"), folder)
            shutil.rmtree(folder)
        sync_folder(path)
    return EntryPointsReport(
        samples=manifest.num_samples,
        written=0 if entry is None else entry.samples,
        bytes_in=bytes_in,
        bytes_out=0 if entry is None else entry.bytes,
        seconds=round(time.monotonic() - begin, 3),
    )
