"""Convert one slice of the plan into one shard; runs in a worker process."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...address import parse_place
from ...errors import RunFailed
from ...system.files import publish_bytes, published
from ...system.limited import Ended, run_limited
from ...system.workers import Report
from ..entry_points import EntryPointsPart
from ..index import ROW, Payload
from ..manifest import BUILDING_NAME
from ..picture import PictureError
from .duplicates import BLANK_RANGE, look_at
from .encode import EncodedPicture, Encoding, encode_picture
from .entries import Entry, LeftOut, SourceSample, describe_end
from .entry_points import find_entry_points
from .objects import find_objects, place_objects
from .plan import ConversionPlan, PlannedEntries
from .sources import EntryReader
from .writer import ShardWriter, dali_index_name, shard_name


@dataclass
class SliceRecord:
    """What became of a slice. Its file is published last: the slice is done if it is there."""

    samples: int = 0
    """Samples in the shard; with 0 there is no shard."""
    bytes: int = 0
    """Size of the tar."""
    sha256: str = ""
    """SHA-256 of the tar."""
    bytes_in: int = 0
    """Bytes of the entries that could be read."""
    num_labelled: int = 0
    """Samples with a label."""
    max_label: int = -1
    """Largest label."""
    tiling: dict[str, int] = field(default_factory=dict)
    """``tiled``: JPEGs that were; ``bytes_before`` and ``bytes_after`` of these; and by reason how
    many were kept as they are. Empty unless tiles were asked for."""
    objects: dict[str, int] = field(default_factory=dict)
    """What ``place_objects`` counted."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """Entries that were left out: source, reason, detail, and their position in the plan."""


def _count(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number


def _record_path(building: Path, number: int) -> Path:
    return building / f"slice-{number:06d}.json"


def rows_path(building: Path, number: int) -> Path:
    """Return where the index rows of a finished slice lie."""
    return building / f"slice-{number:06d}.rows"


def objects_path(building: Path, number: int) -> Path:
    """Return where the rows of target ``objects`` of a finished slice lie."""
    return building / f"slice-{number:06d}.objects"


def prints_path(building: Path, number: int) -> Path:
    """Return where the prints of the samples of a finished slice lie."""
    return building / f"slice-{number:06d}.prints"


def entries_path(building: Path, number: int) -> Path:
    """Return where the entry points of a finished slice lie."""
    return building / f"slice-{number:06d}.entries"


def finds_duplicates(plan: ConversionPlan) -> bool:
    """Return whether prints are taken."""
    return not {"duplicates", "near-duplicates"}.isdisjoint(plan.drop)


def load_record(out: Path, number: int) -> SliceRecord | None:
    """Read the record of a slice; None if the slice has to be converted.

    Args:
        out: the target.
        number: of the slice.
    """
    building = out / BUILDING_NAME
    try:
        said = json.loads(_record_path(building, number).read_text("ascii"))
        said.pop("num_recoded", None)  # of a conversion that the version before began
        record = SliceRecord(**said)
        rows = rows_path(building, number).stat().st_size
        size = (out / shard_name(number)).stat().st_size if record.samples else 0
    except FileNotFoundError:
        return None
    is_whole = size == record.bytes and rows == record.samples * ROW.itemsize
    return record if is_whole else None


@dataclass(frozen=True)
class _Sample:
    """What an entry became: a picture, or nothing, for a reason."""

    source: str
    bytes_in: int = 0
    picture: EncodedPicture | None = None
    label: int = -1
    metadata: dict[str, Any] = field(default_factory=dict)
    objects: NDArray[np.float32] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    taken_print: bytes = b""
    reason: str = ""
    detail: str = ""
    entry_points: bytes = b""


class _Maker:
    """Makes samples of the entries of a slice in turn; works in a child of the worker process."""

    def __init__(self, stop: int, building: Path, plan: ConversionPlan) -> None:
        self._stop = stop
        self._plan = plan
        self._entries = PlannedEntries(building)
        self._reader = EntryReader(parse_place(plan.root))
        self._begun: deque[tuple[Entry, Callable[[], SourceSample]]] = deque()
        self._next = 0

    def __call__(self, position: int) -> _Sample:
        """Read and encode the entry at a position, behind the one before."""
        self._next = max(self._next, position)
        ahead = min(position + self._reader.num_ahead, self._stop)
        for entry in self._entries.read(self._next, ahead):
            self._begun.append((entry, self._reader.begin(entry)))
        self._next = max(self._next, ahead)
        return _make_sample(position, *self._begun.popleft(), self._entries, self._plan)


def _make_sample(
    position: int,
    entry: Entry,
    read: Callable[[], SourceSample],
    entries: PlannedEntries,
    plan: ConversionPlan,
) -> _Sample:
    """Encode an entry that was begun."""
    encoding = Encoding(plan.encoding, **plan.encoding_options)
    num_bytes = 0
    try:
        sample = read()
        num_bytes = len(sample.data)
        picture = encode_picture(sample.data, encoding, plan.limits)
        look = look_at(sample.data, plan.limits) if plan.drop else None
        if look is not None and look.is_blank and "blank" in plan.drop:
            raise LeftOut("blank", f"all pixels within {BLANK_RANGE} levels of 255")
    except (LeftOut, PictureError) as error:
        return _Sample(entry.name, num_bytes, reason=error.reason, detail=error.detail)
    except MemoryError:
        raise RunFailed(
            f"{entry.name}: memory ran out; use fewer workers, or a smaller --max-pixels, and go "
            "on with --resume"
        ) from None
    has_entries = plan.entry_points and picture.flags.payload == Payload.JPEG
    record = find_entry_points(picture.payload) if has_entries else b""
    metadata = {
        "source": entry.name,
        **sample.metadata,  # of a tar that has its own: "source" stays the first one
        "orientation": picture.flags.orientation,
    }
    objects: NDArray[np.float32] | None = None
    counts: dict[str, int] = {}
    spec = find_objects(plan.targets)
    if spec is not None:
        said = entry.columns.get("boxes_size")
        annotated = entries.read_target(position, spec)
        objects, counts = place_objects(annotated, said and (said[0], said[1]), picture)
    return _Sample(
        entry.name,
        num_bytes,
        picture,
        sample.label,
        metadata,
        objects,
        counts,
        b"" if look is None else look.print,
        entry_points=record,
    )


def _make_samples(
    start: int, stop: int, building: Path, plan: ConversionPlan
) -> Iterator[tuple[int, _Sample]]:
    """Yield what becomes of the entries of a slice; a hostile one ends no other."""
    entries = PlannedEntries(building)
    make = _Maker(stop, building, plan)
    positions = range(start, stop)
    samples = run_limited(make, positions, plan.max_seconds)
    for position, sample in zip(positions, samples, strict=True):
        if isinstance(sample, Ended):
            (entry,) = entries.read(position, position + 1)
            why = describe_end(sample, plan.max_seconds)
            sample = _Sample(entry.name, reason=why.reason, detail=why.detail)
        yield position, sample


def _add_sample(writer: ShardWriter, position: int, sample: _Sample, record: SliceRecord) -> None:
    record.bytes_in += sample.bytes_in
    picture = sample.picture
    if picture is None:
        record.skipped.append(
            {
                "source": sample.source,
                "reason": sample.reason,
                "detail": sample.detail,
                "position": position,
            }
        )
        return
    writer.add(position, picture, sample.label, sample.metadata)
    record.samples += 1
    record.num_labelled += sample.label >= 0
    record.max_label = max(record.max_label, sample.label)
    for name, count in sample.counts.items():
        _count(record.objects, name, count)
    if picture.tiling is not None:
        _count(record.tiling, picture.tiling, 1)
    if picture.tiling == "tiled":
        _count(record.tiling, "bytes_before", sample.bytes_in)
        _count(record.tiling, "bytes_after", len(picture.payload))


def convert_slice(number: int, report: Report, out: Path, plan: ConversionPlan) -> SliceRecord:
    """Convert one slice and publish its shard, its indexes, and at last its record.

    Args:
        number: of the slice.
        report: called with 1 for each entry.
        out: the target.
        plan: the plan.

    Returns:
        What became of it.
    """
    building = out / BUILDING_NAME
    start, stop = plan.slice_bounds(number)
    record, objects, prints, entries = SliceRecord(), [], [], EntryPointsPart()
    tar = building / f"slice-{number:06d}.tar"
    with published(tar, building) as file:
        writer = ShardWriter(file)
        for position, sample in _make_samples(start, stop, building, plan):
            _add_sample(writer, position, sample, record)
            if sample.picture is not None:
                entries.add(sample.entry_points)
            if sample.objects is not None:
                objects.append(sample.objects.tobytes())
            prints.append(sample.taken_print)
            report(1)
        record.bytes, record.sha256 = writer.finish()
    target = out / shard_name(number)
    if record.samples:
        tar.replace(target)
        # This also syncs the folder, and with it the name of the tar.
        publish_bytes(out / dali_index_name(target.name), writer.dali_index, building)
    else:
        tar.unlink()
        record.bytes, record.sha256 = 0, ""
    publish_bytes(rows_path(building, number), writer.rows.tobytes())
    if find_objects(plan.targets) is not None:
        publish_bytes(objects_path(building, number), b"".join(objects))
    if finds_duplicates(plan):
        publish_bytes(prints_path(building, number), b"".join(prints))
    if plan.entry_points:
        publish_bytes(entries_path(building, number), entries.pack())
    text = json.dumps(asdict(record), sort_keys=True)
    publish_bytes(_record_path(building, number), text.encode("ascii"))
    return record
