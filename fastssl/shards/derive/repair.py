"""Make damaged shards of a dataset again from its source: the same bytes, or none are replaced."""

from __future__ import annotations

import functools
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ...counts import spell_number
from ...errors import InputError
from ...system.cpus import available_cpus
from ...system.files import sha256_of, sync_folder
from ...system.signals import stopping_on_signals
from ...system.workers import Progress, Report, run_jobs, say_nothing
from ..making.convert import ConvertConfig
from ..making.encode import EncodingName
from ..making.plan import ConversionPlan, make_plan
from ..making.slices import SliceRecord, convert_slice
from ..making.writer import dali_index_name, shard_name
from ..manifest import BUILDING_NAME, Manifest, ShardEntry, read_manifest


def find_damaged(dataset: Path, manifest: Manifest, workers: int | None = None) -> list[int]:
    """Return the numbers of shards that are missing, or not the bytes that were written.

    Args:
        dataset: its folder.
        manifest: its manifest.
        workers: worker processes; None takes the CPUs that this process may use.
    """
    checked = run_jobs(
        functools.partial(_is_damaged, dataset=dataset),
        manifest.shards,
        workers or available_cpus(),
        say_nothing,
        lambda shard: shard.name,
    )
    damaged = zip(manifest.shards, checked, strict=True)
    return [number_of(shard) for shard, is_damaged in damaged if is_damaged]


def _is_damaged(shard: ShardEntry, report: Report, dataset: Path) -> bool:
    path = dataset / shard.name
    try:
        has_index = (dataset / dali_index_name(shard.name)).is_file()
        is_whole = path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    except FileNotFoundError:
        return True
    report(shard.samples)
    return not (is_whole and has_index)


def number_of(shard: ShardEntry) -> int:
    """Return the number in a shard's name, which is that of its slice of the source."""
    return int(shard.name.removesuffix(".tar").rpartition("-")[2])


def _choose(
    dataset: Path, manifest: Manifest, wanted: Sequence[int], workers: int | None
) -> list[int]:
    """Return the numbers of the shards to make."""
    known = {number_of(shard) for shard in manifest.shards}
    for number in wanted:
        if number not in known:
            raise InputError(
                f"--shard ({number}): {dataset} has no {shard_name(number)}; its shards are "
                f"{min(known)} .. {max(known)}"
            )
    return sorted({*wanted}) or find_damaged(dataset, manifest, workers)


def _make_plan(config: ConvertConfig, manifest: Manifest, building: Path) -> ConversionPlan:
    """Plan the conversion that made the dataset once more."""
    made_by = replace(
        config,
        encode=cast(EncodingName, manifest.encoding),
        **manifest.encoding_options,  # type: ignore[arg-type]
    )
    plan = make_plan(
        config.source,
        made_by.open_source(),
        made_by.encoding,
        manifest.shuffle_seed,
        manifest.samples_per_shard,
        made_by.limits,
        made_by.max_seconds,
        building,
    )
    if plan.listing_sha256 != manifest.listing_sha256:
        raise InputError(
            f"{config.source}: {spell_number(plan.num_entries, 'entry', 'entries')}, {config.out} "
            f"was made of {manifest.num_read:,}, and their names, labels or targets differ; name "
            "the source as it was then, with the same options"
        )
    return plan


def _check_same(dataset: Path, shard: ShardEntry, record: SliceRecord) -> None:
    made = (record.samples, record.bytes, record.sha256)
    if made == (shard.num_stored, shard.bytes, shard.sha256):
        return
    raise InputError(
        f"{dataset / shard.name}: made again it has {spell_number(record.samples, 'sample')} and "
        f"{record.bytes:,} bytes of SHA-256 {record.sha256[:12]}, wanted {shard.num_stored:,}, "
        f"{shard.bytes:,} and {shard.sha256[:12]}; nothing was replaced: the source's files have "
        "changed, the options are others, or another version of fastssl or Pillow made it"
    )


def repair(
    config: ConvertConfig, shards: Sequence[int] = (), on_progress: Progress = say_nothing
) -> list[str]:
    """Make shards of a finished dataset again, and put them in the place of damaged ones.

    Args:
        config: source and dataset (``out``), and the options of the source as they were; how
            payloads are made, and in which order, stands in the dataset.
        shards: numbers in the shards' names; empty finds those that are damaged.
        on_progress: told of entries.

    Returns:
        The names of the shards that were replaced.

    Raises:
        InputError: if it is not the dataset's source, or a shard would not be the same bytes.
        StoppedBySignal: on SIGTERM or SIGINT; nothing was replaced then.
    """
    manifest = read_manifest(config.out)
    if manifest.tars:
        raise InputError(
            f"{config.out}: a dataset over tars that stay where they are; restore those instead"
        )
    if manifest.encoding == "mixed":
        raise InputError(
            f"{config.out}: combined from datasets of several encodings; repair those, and combine "
            "them again"
        )
    numbers = _choose(config.out, manifest, shards, config.workers)
    if not numbers:
        return []
    entries = {number_of(shard): shard for shard in manifest.shards}
    scratch = config.out / f".repair-{uuid.uuid4().hex[:12]}"
    building = scratch / BUILDING_NAME
    with stopping_on_signals("nothing was replaced; start the same command again"):
        try:
            building.mkdir(parents=True)
            plan = _make_plan(config, manifest, building)
            sizes = [stop - start for start, stop in map(plan.slice_bounds, numbers)]
            on_progress(0, sum(sizes))
            made = run_jobs(
                functools.partial(convert_slice, out=scratch, plan=plan),
                numbers,
                config.workers or available_cpus(),
                lambda count: on_progress(count, sum(sizes)),
                shard_name,
            )
            for number, record in zip(numbers, list(made), strict=True):
                _check_same(config.out, entries[number], record)
            for number in numbers:
                for name in (shard_name(number), dali_index_name(shard_name(number))):
                    (scratch / name).replace(config.out / name)
            sync_folder(config.out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return [shard_name(number) for number in numbers]
