"""The plan of a conversion: every entry of the source, in the order in which it is written.

It lies in a hidden folder of the target while the conversion is under way, so that workers read
their part of it and a continued conversion can tell whether it is the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...counts import spell_number
from ...errors import InputError
from ...randomness import Stream, draw_words
from ...system.files import locked, publish_bytes, published
from ..picture import LIMITS, DecodeLimits
from ..targets import DTYPES, TargetSpec
from .duplicates import Drop
from .encode import Encoding, EncodingName
from .entries import Entry, Source, absolute_place
from .parquet_table import WINDOW_BYTES
from .writer import MAX_NUMBER

PLAN = "plan.json"
"""Name of the plan's file."""
_ENTRIES = "entries.jsonl"
_ORDER = "order.npy"
_LOCK = "lock"
# What plans had when a dataset could still be added to; a new dataset's says nothing by it.
_OF_APPEND = ("first_shard", "first_number", "label_map", "base_digest")
_DRAWS_AT_ONCE = 1 << 20

MAX_SECONDS = 30
"""Seconds of the CPU that an entry may take, where nothing else is asked for."""

MIN_SAMPLES_PER_SHARD = 256
MAX_SAMPLES_PER_SHARD = 8192
_WANTED_SHARDS = 64


def choose_samples_per_shard(num_entries: int) -> int:
    """Return how many entries go into a shard: about 64 shards of 256 .. 8192 entries."""
    wanted = -(-num_entries // _WANTED_SHARDS)
    return max(MIN_SAMPLES_PER_SHARD, min(wanted, MAX_SAMPLES_PER_SHARD))


@dataclass(frozen=True)
class ConversionPlan:
    """What a conversion does; a continued one must have an equal plan."""

    source: str
    """Absolute path of the source, or its address."""
    root: str
    """Absolute path, or address, that the entries' names are relative to."""
    kind: str
    """``folder``, ``list``, ``table``, ``voc``, ``coco``, ``rendered``, ``tars``,
    ``zips``, ``images`` or ``yfcc``."""
    encoding: EncodingName
    """Name of the encoding."""
    encoding_options: dict[str, int]
    """Its options."""
    shuffle_seed: int | None
    """Seed of the order; None keeps the source's."""
    samples_per_shard: int
    """Entries that go into one shard."""
    num_entries: int
    """Entries of the source."""
    listing_sha256: str
    """SHA-256 over the entries."""
    class_names: tuple[str, ...]
    """Name of each label, as far as the listing knows."""
    targets: tuple[TargetSpec, ...] = ()
    """Targets of which the listing has a row for every entry, sorted by name."""
    source_options: dict[str, str] = field(default_factory=dict)
    """What of the command line shaped the listing."""
    limits: DecodeLimits = LIMITS
    """How much work a picture may make."""
    max_seconds: int = MAX_SECONDS
    """Seconds of the CPU that an entry may take."""
    drop: tuple[Drop, ...] = ()
    """What is left out though it could be had, sorted."""
    entry_points: bool = False
    """Whether the entry points of JPEGs are found."""

    @classmethod
    def parse(cls, text: bytes) -> ConversionPlan:
        """Read a plan's file."""
        fields = json.loads(text)
        for name in _OF_APPEND:
            fields.pop(name, None)
        fields["class_names"] = tuple(fields["class_names"])
        fields["drop"] = tuple(fields.get("drop", ()))
        fields["targets"] = tuple(
            TargetSpec(**{**spec, "row_shape": tuple(spec["row_shape"])})
            for spec in fields.get("targets", ())
        )
        fields["limits"] = DecodeLimits(**fields.get("limits", {}))
        return cls(**fields)

    @property
    def num_slices(self) -> int:
        """Parts of the plan that become a shard each."""
        return -(-self.num_entries // self.samples_per_shard)

    def slice_bounds(self, number: int) -> tuple[int, int]:
        """Return the first position of a slice, and the first behind it."""
        start = number * self.samples_per_shard
        return start, min(start + self.samples_per_shard, self.num_entries)


def order_entries(num_entries: int, seed: int | None) -> np.ndarray:
    """Return the order in which entries are written: int64 (N,), entry at each position.

    Args:
        num_entries: N.
        seed: entries are sorted by 64 bits drawn for each; None keeps the source's order.
    """
    if seed is None:
        return np.arange(num_entries)
    return np.argsort(_draw_keys(num_entries, seed), kind="stable")


def _draw_keys(num_entries: int, seed: int) -> np.ndarray:
    keys = np.empty(num_entries, np.uint64)
    for start in range(0, num_entries, _DRAWS_AT_ONCE):
        ids = np.arange(start, min(start + _DRAWS_AT_ONCE, num_entries))
        words = draw_words(seed, 0, ids, Stream.SHUFFLE, 2).astype(np.uint64)
        keys[start : start + len(ids)] = words[:, 0] << np.uint64(32) | words[:, 1]
    return keys


def order_blocks(
    blocks: Sequence[tuple[int, int]], seed: int | None, samples_per_shard: int
) -> np.ndarray:
    """Return such an order where entries are read in blocks, each of them once or twice.

    Blocks are sorted by the bits of their first entries; then, shard by shard, entries are sorted
    within as many blocks as memory may hold.

    Args:
        blocks: entries and bytes of each, in the source's order.
        seed: as of ``order_entries``.
        samples_per_shard: entries of a shard.
    """
    counts = np.array([count for count, _ in blocks], np.int64)
    num_entries = int(counts.sum())
    if seed is None:
        return np.arange(num_entries)
    keys = _draw_keys(num_entries, seed)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    chosen = filled[np.argsort(keys[starts[filled]], kind="stable")]
    order = np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in chosen])
    bounds = {*range(0, num_entries, samples_per_shard), num_entries}
    position = held = 0
    for number in chosen.tolist():
        count, size = blocks[number]
        if held and held + size > WINDOW_BYTES:
            bounds.add(position)
            held = 0
        position, held = position + count, held + size
    for start, stop in itertools.pairwise(sorted(bounds)):
        part = order[start:stop]
        order[start:stop] = part[np.argsort(keys[part], kind="stable")]
    return order


def _walk(source: Source, digest: hashlib._Hash) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield the line of each entry and its rows of the targets; all of it enters the digest."""
    for entry in source.entries():
        line = entry.to_json().encode("ascii") + b"\n"
        digest.update(line)
        rows = []
        for spec, value in zip(source.targets, entry.targets, strict=True):
            row = np.asarray(value, DTYPES[spec.dtype])
            assert row.shape == spec.row_shape
            rows.append(row.tobytes())
            digest.update(rows[-1])
        yield line, rows
    digest.update(json.dumps(source.class_names).encode("ascii"))
    if source.targets:
        digest.update(json.dumps([asdict(spec) for spec in source.targets]).encode("ascii"))


def _write_entries(source: Source, building: Path) -> tuple[int, str]:
    """Write the listing, where each line of it begins, and the rows of its targets.

    Returns:
        Entries, and their digest.
    """
    digest, count, position = hashlib.sha256(), 0, 0
    with contextlib.ExitStack() as files:
        entries = files.enter_context(published(building / _ENTRIES))
        starts = files.enter_context(published(building / (_ENTRIES + ".starts")))
        for line, rows in _walk(source, digest):
            if count == 0:
                paths = [_rows_path(building, spec) for spec in source.targets]
                targets = [files.enter_context(published(path)) for path in paths]
            starts.write(position.to_bytes(8, "little"))
            entries.write(line)
            for file, row in zip(targets, rows, strict=True):
                file.write(row)
            position += len(line)
            count += 1
    return count, digest.hexdigest()


def _rows_path(building: Path, spec: TargetSpec) -> Path:
    return building / f"{_ENTRIES}.{spec.name}.rows"


def make_plan(
    source_path: Path | str,
    source: Source,
    encoding: Encoding,
    seed: int | None,
    samples_per_shard: int | None,
    limits: DecodeLimits,
    max_seconds: int,
    building: Path,
    drop: Sequence[Drop] = (),
    entry_points: bool = False,
) -> ConversionPlan:
    """List the source and write the plan.

    Args:
        source_path: what the user named.
        source: what it is.
        encoding: how payloads are made.
        seed: of the order; None keeps the source's.
        samples_per_shard: entries a shard; None chooses.
        limits: how much work a picture may make.
        max_seconds: of the CPU that an entry may take.
        building: the folder for it; files of an older plan are replaced.
        drop: what is left out though it could be had.
        entry_points: whether those of JPEGs are found.

    Returns:
        The plan.

    Raises:
        InputError: if the source is empty or too large.
    """
    (building / PLAN).unlink(missing_ok=True)
    count, digest = _write_entries(source, building)
    if count == 0:
        raise InputError(
            f"{source_path}: no files in it (hidden ones do not count); wanted a folder of images, "
            "a list with one path a line, a table with rows, tars or zips"
        )
    if count > MAX_NUMBER + 1:
        raise InputError(
            f"{source_path}: {spell_number(count, 'entry', 'entries')}, a dataset has room for "
            f"{MAX_NUMBER + 1:,}; split it"
        )
    samples_per_shard = samples_per_shard or choose_samples_per_shard(count)
    order = (
        order_blocks(source.blocks, seed, samples_per_shard)
        if source.blocks
        else order_entries(count, seed)
    )
    with published(building / _ORDER) as file:
        np.save(file, order)
    plan = ConversionPlan(
        source=absolute_place(source_path),
        root=source.place,
        kind=source.kind,
        encoding=encoding.name,
        encoding_options=encoding.options,
        shuffle_seed=seed,
        samples_per_shard=samples_per_shard,
        num_entries=count,
        listing_sha256=digest,
        class_names=tuple(source.class_names),
        targets=source.targets,
        source_options=source.options,
        limits=limits,
        max_seconds=max_seconds,
        drop=tuple(sorted({*drop})),
        entry_points=entry_points,
    )
    text = json.dumps(asdict(plan), indent=1, sort_keys=True)
    publish_bytes(building / PLAN, text.encode("ascii"))
    return plan


def load_plan(building: Path) -> ConversionPlan | None:
    """Read the plan of a conversion that is under way; None if it has not been made yet.

    Raises:
        InputError: if it is of an addition that an older fastssl began.
    """
    try:
        text = (building / PLAN).read_bytes()
    except FileNotFoundError:
        return None
    fields = json.loads(text)
    if fields.get("base_digest"):
        raise InputError(
            f"{building.parent}: holds an unfinished --append of {fields['source']}, which this "
            f"fastssl cannot go on with; remove {building}, then convert those images into a "
            "folder of their own (fastssl make-shards) and link both into a new one (fastssl "
            "combine-shards)"
        )
    return ConversionPlan.parse(text)


def list_differences(pairs: dict[str, tuple[object, object]]) -> str:
    """Return a list of options that are not what they were; empty if all are equal."""
    return "; ".join(
        f"{name} was {old}, now {new}" for name, (old, new) in pairs.items() if old != new
    )


def check_same_listing(plan: ConversionPlan, source: Source) -> None:
    """Make sure that a source still lists what the plan was made from.

    Raises:
        InputError: if it does not.
    """
    digest = hashlib.sha256()
    count = sum(1 for _ in _walk(source, digest))
    if digest.hexdigest() != plan.listing_sha256:
        raise InputError(
            f"{plan.source}: {spell_number(count, 'entry', 'entries')} now, {plan.num_entries:,} "
            "when the conversion began, and their names, labels or targets differ; restore the "
            "source, or convert it into a new folder"
        )


class PlannedEntries:
    """The entries of a plan by position, read from disk a few at a time."""

    def __init__(self, building: Path):
        """Open the plan's files."""
        self._order = np.load(building / _ORDER, mmap_mode="r", allow_pickle=False)
        self._starts = np.memmap(building / (_ENTRIES + ".starts"), "<u8", "r")
        self._path = building / _ENTRIES
        self._building = building

    def read(self, start: int, stop: int) -> Iterator[Entry]:
        """Yield the entries at positions start .. stop-1."""
        with self._path.open("rb") as file:
            for number in self._order[start:stop]:
                file.seek(int(self._starts[number]))
                yield Entry.from_json(file.readline())

    def read_target(self, position: int, spec: TargetSpec) -> np.ndarray:
        """Return the row of a target that the listing has for the entry at a position."""
        path, start = _rows_path(self._building, spec), int(self._order[position]) * spec.row_bytes
        row = np.fromfile(path, DTYPES[spec.dtype], math.prod(spec.row_shape), offset=start)
        return row.reshape(spec.row_shape)


def read_targets(
    building: Path, plan: ConversionPlan, spec: TargetSpec, left_out: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """Yield the rows of a target in the order in which samples are written, slice by slice.

    Args:
        building: the plan's folder.
        plan: the plan.
        spec: which of its targets.
        left_out: of each slice the positions that became no sample.

    Yields:
        (n, ...), n samples of a slice.
    """
    order = np.load(building / _ORDER, mmap_mode="r", allow_pickle=False)
    shape = (plan.num_entries, *spec.row_shape)
    rows = np.memmap(_rows_path(building, spec), DTYPES[spec.dtype], "r", shape=shape)
    for number, positions in enumerate(left_out):
        start, stop = plan.slice_bounds(number)
        is_kept = np.ones(stop - start, bool)
        is_kept[np.asarray(positions, np.int64) - start] = False
        yield rows[order[start:stop][is_kept]]


def lock_building(building: Path) -> contextlib.AbstractContextManager[object]:
    """Keep a second conversion out of a target.

    Raises:
        InputError: on entering, if another process holds it.
    """
    busy = (
        f"{building.parent}: another fastssl make-shards is at work in it; wait for it or stop it"
    )
    return locked(building / _LOCK, busy)


def remove_building(building: Path) -> None:
    """Remove the state of a conversion; its lock goes last."""
    for path in building.iterdir():
        if path.name != _LOCK:
            path.unlink()
    shutil.rmtree(building)
