"""The end of a conversion: what belongs to the whole dataset, the manifest last.

A new dataset comes into being with its manifest. One that images are added to changes by the rename
of its index: from then on the new manifest counts, which lies ready (``read_current`` finds it) and
takes its name right after. Whenever the power goes, the dataset is the old one or the new one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ...errors import InputError
from ...system.files import publish_bytes, published, sync_folder
from ..index import HEADER_BYTES, INDEX_NAME, IndexHeader
from ..manifest import (
    BUILDING_NAME,
    MANIFEST_NAME,
    NEXT_MANIFEST_NAME,
    SKIPPED_NAME,
    Addition,
    Manifest,
    ShardEntry,
    read_manifest,
)
from .plan import Plan, clear_building, load_plan, remove_building
from .slices import SliceRecord, rows_path

_MAX_NUMBERED_CLASSES = 100_000
_COPY_BYTES = 1 << 22
_NEXT = "next-"


def _choose_class_names(
    plan: Plan, records: list[SliceRecord], base: Manifest | None
) -> tuple[str, ...]:
    """Return the names of the labels; those of tars without any are their numbers."""
    if base is not None and base.num_labelled and not base.class_names:
        return ()
    num_classes = max(record.max_label for record in records) + 1
    if len(plan.class_names) >= num_classes or num_classes > _MAX_NUMBERED_CLASSES:
        return plan.class_names
    return tuple(str(label) for label in range(num_classes))


def _count_skipped(records: list[SliceRecord]) -> dict[str, int]:
    counts = Counter(entry["reason"] for record in records for entry in record.skipped)
    return dict(sorted(counts.items()))


def _copy(path: Path, target: BinaryIO | _DigestingFile, start: int = 0) -> None:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_COPY_BYTES):
            target.write(chunk)


def _write_skipped(target: Path, building: Path, old: Path | None, new: list[SliceRecord]) -> None:
    with published(target, building) as file:
        if old is not None and old.exists():
            _copy(old, file)
        for record in new:
            for entry in record.skipped:
                line = json.dumps({name: entry[name] for name in ("source", "reason", "detail")})
                file.write(line.encode("ascii") + b"\n")


class _DigestingFile:
    """Adds what is written to a digest too."""

    def __init__(self, file: BinaryIO, manifest: Manifest):
        self._file = file
        self.digest = manifest.begin_digest()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.digest.update(content)


def _write_index(
    target: Path, building: Path, old: Path | None, records: list[SliceRecord], manifest: Manifest
) -> str:
    """Put all rows together, those of an older index first; return the dataset's digest."""
    with published(target, building) as file:
        file.write(bytes(HEADER_BYTES))
        rows = _DigestingFile(file, manifest)
        if old is not None:
            _copy(old, rows, HEADER_BYTES)
        for number, record in enumerate(records):
            if record.samples:
                _copy(rows_path(building, number), rows)
        file.seek(0)
        file.write(IndexHeader(manifest.num_samples, rows.digest.hexdigest()).pack())
    return rows.digest.hexdigest()


def _list_shards(plan: Plan, records: list[SliceRecord]) -> tuple[ShardEntry, ...]:
    return tuple(
        ShardEntry(plan.shard_name(number), record.samples, record.bytes, record.sha256)
        for number, record in enumerate(records)
        if record.samples
    )


def _draft_new(plan: Plan, records: list[SliceRecord]) -> Manifest:
    return Manifest(
        num_samples=sum(record.samples for record in records),
        digest="",
        encoding=plan.encoding,
        encoding_options=plan.encoding_options,
        shuffle_seed=plan.shuffle_seed,
        samples_per_shard=plan.samples_per_shard,
        class_names=_choose_class_names(plan, records, None),
        num_labelled=sum(record.num_labelled for record in records),
        num_read=plan.num_entries,
        bytes_in=sum(record.bytes_in for record in records),
        skipped=_count_skipped(records),
        listing_sha256=plan.listing_sha256,
        shards=_list_shards(plan, records),
    )


def _draft_larger(plan: Plan, records: list[SliceRecord], base: Manifest) -> Manifest:
    new = _draft_new(plan, records)
    addition = Addition(
        listing_sha256=plan.listing_sha256,
        num_read=new.num_read,
        num_samples=new.num_samples,
        num_shards=len(new.shards),
        bytes_in=new.bytes_in,
        skipped=new.skipped,
    )
    skipped = Counter(base.skipped) + Counter(new.skipped)
    return replace(
        base,
        num_samples=base.num_samples + new.num_samples,
        class_names=_choose_class_names(plan, records, base),
        num_labelled=base.num_labelled + new.num_labelled,
        num_read=base.num_read + new.num_read,
        bytes_in=base.bytes_in + new.bytes_in,
        skipped=dict(sorted(skipped.items())),
        shards=base.shards + new.shards,
        additions=(*base.additions, addition),
    )


def publish_addition(out: Path) -> bool:
    """Give the files of an addition that is ready their names, and tidy up behind it.

    Args:
        out: the dataset; the caller holds the lock of its ``.building``.

    Returns:
        Whether there was one: ready, or published and not tidied up.
    """
    building = out / BUILDING_NAME
    is_ready = (out / NEXT_MANIFEST_NAME).exists()
    # The manifest goes last: as long as it is there, this is done again.
    for name in (INDEX_NAME, SKIPPED_NAME, MANIFEST_NAME) if is_ready else ():
        ready = building / (_NEXT + name)
        if ready.exists():
            ready.replace(out / name)
            sync_folder(out)
    plan = load_plan(building)
    if plan is None or not plan.base_digest:
        return False
    manifest = read_manifest(out)
    last = manifest.additions[-1].listing_sha256 if manifest.additions else None
    if manifest.digest == plan.base_digest or last != plan.listing_sha256:
        return False
    clear_building(building)
    return True


def finish(
    source: Path, out: Path, plan: Plan, records: list[SliceRecord], base: Manifest | None
) -> Manifest:
    """Write what belongs to the whole dataset.

    Args:
        source: what the user named.
        out: the target.
        plan: the plan, all slices of which are done.
        records: what became of them.
        base: manifest of the dataset that is added to; None makes a new one.

    Returns:
        The manifest.

    Raises:
        InputError: if no entry became a sample; a dataset that was to be added to stays as it was.
    """
    building = out / BUILDING_NAME
    if not any(record.samples for record in records):
        first = next(entry for record in records for entry in record.skipped)
        counts = ", ".join(f"{reason} {n}" for reason, n in _count_skipped(records).items())
        remove_building(building)
        raise InputError(
            f"{source}: none of its {plan.num_entries:,} files is a readable image "
            f"({counts}; the first: {first['source']}: {first['detail']}); name a source of images"
        )
    if base is None:
        draft, prefix, folder = _draft_new(plan, records), "", out
    else:
        draft, prefix, folder = _draft_larger(plan, records, base), _NEXT, building
    old_skipped = None if base is None else out / SKIPPED_NAME
    old_index = None if base is None else out / INDEX_NAME
    _write_skipped(folder / (prefix + SKIPPED_NAME), building, old_skipped, records)
    index = folder / (prefix + INDEX_NAME)
    manifest = replace(draft, digest=_write_index(index, building, old_index, records, draft))
    text = manifest.to_json().encode("ascii")
    publish_bytes(folder / (prefix + MANIFEST_NAME), text, building)
    publish_addition(out)
    remove_building(building)
    sync_folder(out)
    return manifest
