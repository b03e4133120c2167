"""The end of a conversion: what belongs to the whole dataset, the manifest last."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...counts import spell_number
from ...errors import InputError
from ...system.files import publish_bytes, published, sync_folder
from ..entry_points import (
    ENTRY_POINTS_NAME,
    EntryPointsFile,
    EntryPointsPart,
    write_entry_points,
)
from ..index import HEADER_BYTES, INDEX_NAME, ROW, IndexHeader
from ..manifest import BUILDING_NAME, MANIFEST_NAME, SKIPPED_NAME, Manifest, ShardEntry
from ..targets import DTYPES, OBJECTS, TargetEntry, TargetSpec, write_target
from .plan import ConversionPlan, read_targets, remove_building
from .repeated import Kept, drop_repeated
from .slices import SliceRecord, entries_path, objects_path, rows_path
from .writer import dali_index_name, shard_name

_MAX_NUMBERED_CLASSES = 100_000
_SHOWN = 200


def number_classes(max_label: int) -> tuple[str, ...]:
    """Return names for labels that have none: their numbers; of very many none.

    Args:
        max_label: the largest; -1 where there is none.
    """
    return tuple(map(str, range(max_label + 1))) if max_label < _MAX_NUMBERED_CLASSES else ()


def _choose_class_names(plan: ConversionPlan, records: list[SliceRecord]) -> tuple[str, ...]:
    """Return the names of the labels; those of tars without any are their numbers."""
    max_label = max(record.max_label for record in records)
    return (
        plan.class_names
        if len(plan.class_names) > max_label
        else number_classes(max_label) or plan.class_names
    )


def _count_skipped(records: list[SliceRecord]) -> dict[str, int]:
    counts = Counter(entry["reason"] for record in records for entry in record.skipped)
    return dict(sorted(counts.items()))


def _write_skipped(target: Path, building: Path, records: list[SliceRecord]) -> None:
    with published(target, building) as file:
        for record in records:
            for entry in record.skipped:
                line = json.dumps({name: entry[name] for name in ("source", "reason", "detail")})
                file.write(line.encode("ascii") + b"\n")


def write_index(
    target: Path, manifest: Manifest, rows: Iterable[bytes], scratch: Path | None = None
) -> str:
    """Put all rows together.

    Args:
        target: the index.
        manifest: of the dataset, but for its digest.
        rows: in the order of sample ids.
        scratch: folder in which the file grows; None takes the target's.

    Returns:
        The dataset's digest.
    """
    digest = manifest.begin_digest()
    with published(target, scratch) as file:
        file.write(bytes(HEADER_BYTES))
        for part in rows:
            file.write(part)
            digest.update(part)
        file.seek(0)
        file.write(IndexHeader(manifest.num_samples, digest.hexdigest()).pack())
    return digest.hexdigest()


def _write_targets(
    out: Path, building: Path, plan: ConversionPlan, kept: list[Kept]
) -> tuple[TargetEntry, ...]:
    """Put the rows of every target in the order of sample ids."""
    if not plan.targets:
        return ()
    records = [one.record for one in kept]
    num_samples = sum(record.samples for record in records)
    left_out = [[entry["position"] for entry in record.skipped] for record in records]

    def rows_of(spec: TargetSpec) -> Iterator[np.ndarray]:
        if spec.name != OBJECTS:
            return read_targets(building, plan, spec, left_out)
        paths = (objects_path(building, number) for number in range(len(kept)))
        stored = (np.fromfile(p, DTYPES[spec.dtype]).reshape(-1, *spec.row_shape) for p in paths)
        return (one.choose(rows) for one, rows in zip(kept, stored, strict=True))

    return tuple(
        write_target(out, spec, num_samples, rows_of(spec), scratch=building)
        for spec in plan.targets
    )


def _write_entry_points(
    out: Path, building: Path, kept: list[Kept], manifest: Manifest
) -> EntryPointsFile | None:
    """Put the records of all samples that stay in the order of sample ids."""
    parts = []
    for number, one in enumerate(kept):
        path = entries_path(building, number)
        if one.stored:
            part, path = EntryPointsPart.parse(path.read_bytes()), path.with_suffix(".kept")
            publish_bytes(path, part.choose(one.choose(np.arange(len(part)))).pack())
        parts.append(path)
    place, count = out / ENTRY_POINTS_NAME, manifest.num_samples
    return write_entry_points(place, manifest.digest, count, parts, building)


def _draft_manifest(
    plan: ConversionPlan, kept: list[Kept], targets: tuple[TargetEntry, ...]
) -> Manifest:
    """Say what the dataset consists of; the digest is not known yet."""
    records = [one.record for one in kept]
    return Manifest(
        num_samples=sum(record.samples for record in records),
        digest="",
        encoding=plan.encoding,
        encoding_options=plan.encoding_options,
        shuffle_seed=plan.shuffle_seed,
        samples_per_shard=plan.samples_per_shard,
        class_names=_choose_class_names(plan, records),
        num_labelled=sum(record.num_labelled for record in records),
        num_read=plan.num_entries,
        bytes_in=sum(record.bytes_in for record in records),
        skipped=_count_skipped(records),
        listing_sha256=plan.listing_sha256,
        shards=tuple(
            ShardEntry(
                shard_name(number),
                one.record.samples,
                one.record.bytes,
                one.record.sha256,
                one.stored,
            )
            for number, one in enumerate(kept)
            if one.record.samples
        ),
        targets=targets,
    )


def finish(
    source: Path | str, out: Path, plan: ConversionPlan, records: list[SliceRecord]
) -> Manifest:
    """Write what belongs to the whole dataset.

    Args:
        source: what the user named.
        out: the target.
        plan: the plan, all slices of which are done.
        records: what became of them.

    Returns:
        The manifest.

    Raises:
        InputError: if no entry became a sample.
    """
    building = out / BUILDING_NAME
    if not any(record.samples for record in records):
        first = next(entry for record in records for entry in record.skipped)
        counts = ", ".join(f"{reason} {n}" for reason, n in _count_skipped(records).items())
        remove_building(building)
        remedy = "name a source of images"
        if first["reason"] == "missing" and plan.kind in ("list", "table"):
            remedy = f"relative paths in it begin at its own folder, {plan.root}"
        elif first["reason"] == "missing" and plan.kind == "coco":
            remedy = f"its pictures were sought in {plan.root}: say --coco-images FOLDER"
        raise InputError(
            f"{source}: no readable image in its {spell_number(plan.num_entries, 'file')} "
            f"({counts}; the first: {first['source'][:_SHOWN]}: {first['detail']}); {remedy}"
        )
    kept = drop_repeated(building, plan, records)
    targets = _write_targets(out, building, plan, kept)
    draft = _draft_manifest(plan, kept, targets)
    _write_skipped(out / SKIPPED_NAME, building, [one.record for one in kept])
    for number, one in enumerate(kept):
        if one.stored and not one.record.samples:  # a shard of nothing but repetitions
            for name in (shard_name(number), dali_index_name(shard_name(number))):
                (out / name).unlink(missing_ok=True)
    numbers = [number for number, one in enumerate(kept) if one.record.samples]
    rows = (kept[n].choose(np.fromfile(rows_path(building, n), ROW)).tobytes() for n in numbers)
    manifest = replace(draft, digest=write_index(out / INDEX_NAME, draft, rows, building))
    if plan.entry_points:
        found = _write_entry_points(out, building, kept, manifest)
        manifest = replace(manifest, entry_points=found)
    publish_bytes(out / MANIFEST_NAME, manifest.to_json().encode("ascii"), building)
    remove_building(building)
    sync_folder(out)
    return manifest
