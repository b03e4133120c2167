"""Check the entry points of a dataset: the file by its SHA-256, each record by the JPEG itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ...system.files import sha256_of
from ..entry_points import ENTRY_POINTS_NAME
from ..entry_reader import open_entry_points
from ..making.entry_points import are_entry_points
from ..reader import BadSample, ShardDataset, open_dataset


def describe_wrong_file(path: Path) -> str | None:
    """Say what is wrong with the file of entry points; None if it is the one that was written.

    Args:
        path: the dataset's folder.
    """
    try:
        dataset = open_dataset(path)
    except InputError:
        return None  # the manifest, the index or a shard is wrong, which others report
    entry = dataset.manifest.entry_points
    try:
        open_entry_points(dataset)
        is_changed = entry is not None and sha256_of(path / ENTRY_POINTS_NAME) != entry.sha256
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not is_changed:
        return None
    remedy = f"make them again: fastssl entry-points {path}"
    return f"changed: its SHA-256 is not the one in the manifest; {remedy}"


def _samples_of(dataset: ShardDataset, shard: int) -> range:
    start = dataset.shard_start(shard)
    return range(start, start + dataset.manifest.shards[shard].samples)


def find_lies(path: Path, shard: int) -> Iterator[str]:
    """Find the entry points of a shard's images again.

    Args:
        path: the dataset's folder.
        shard: place of the shard in the manifest.

    Yields:
        What is wrong, of each sample whose own say something else. Samples whose bytes are bad, and
        files that are damaged, are others' to report.

    Raises:
        InputError: if the extension is missing.
    """
    try:
        dataset = open_dataset(path)
        entry_points = open_entry_points(dataset)
    except InputError:
        return
    if entry_points is None:
        return
    for sample_id in _samples_of(dataset, shard):
        try:
            payload = dataset.read_payload(sample_id)
        except BadSample:
            continue
        record = entry_points.read(sample_id, len(payload))
        if record and not are_entry_points(payload, record):
            yield f"sample {sample_id}: its entry points are not those of its image"
    dataset.close()
