"""A dataset over tars and zips that stay where they are: read once, indexed, not a byte rewritten.

Each is a job for a worker process, whose rows and record are published when it is done; so a
run that was stopped goes on at the first tar that has none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ...counts import spell_number
from ...errors import InputError
from ...fields import Checked, NumWorkers, Range
from ...system.cpus import available_cpus
from ...system.files import locked, make_folder, publish_bytes, sync_folder
from ...system.limited import Ended, run_limited
from ...system.signals import stopping_on_signals
from ...system.workers import Progress, Report, run_jobs, say_nothing
from ..checksum import crc32
from ..entry_points import ENTRY_POINTS_NAME, EntryPointsPart, write_entry_points
from ..index import INDEX_NAME, ROW, Payload
from ..manifest import (
    BUILDING_NAME,
    MANIFEST_NAME,
    SKIPPED_NAME,
    Manifest,
    ShardEntry,
    TarEntry,
)
from ..picture import MAX_PIXELS, MAX_SCANS, DecodeLimits, PictureError, open_picture
from ..places import open_places
from .encode import EncodedPicture, Encoding, encode_picture
from .entries import MAX_FILE_BYTES, LeftOut, describe_end
from .entry_points import find_entry_points, settle_entry_points
from .finish import number_classes, write_index
from .plan import MAX_SECONDS
from .tar_list import PlacedTar, list_tars, look_at_tars, name_shards
from .tar_source import parse_label
from .tar_stream import TarSample, TarStream, read_samples
from .zip_source import is_zip
from .zip_stream import read_zip_samples

_PLAN_NAME = "tars.json"
_LOCK_NAME = ".lock"
_BATCH = 64
_BATCH_BYTES = 1 << 28
_KEEP = Encoding("keep")


@dataclass(frozen=True)
class IndexTarsConfig(Checked):
    """Make a dataset over tars that stay where they are."""

    tars: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TAR [TAR ...]")]
    """WebDataset tars, or zips whose images are stored without compression: paths, folders of them,
    or addresses (https://, s3://); braces count, as in s3://bucket/{000000..000041}.tar."""
    out: Path
    """Folder of the dataset; new or empty, with --resume an unfinished one."""
    workers: NumWorkers = None
    """Worker processes, a tar each; None: the CPUs that this process may use."""
    max_scans: Annotated[int, Range(1, 1_000_000)] = MAX_SCANS
    """Scans of a JPEG; one that has more is left out as too-many-scans."""
    max_seconds: Annotated[int, Range(1, 86_400)] = MAX_SECONDS
    """Seconds of the CPU that an image may take; one that takes more is left out as too-slow."""
    entry_points: bool = True
    """Note from where on each JPEG can be decoded, so that the native loader does so no more than a
    crop needs; at most 1.5 % of the images' bytes."""
    resume: bool = False
    """Go on with what was stopped."""


@dataclass(frozen=True)
class IndexReport:
    """What was found in the tars."""

    read: int
    """Samples of the tars."""
    written: int
    """Samples of the dataset."""
    skipped: dict[str, int]
    """Samples that were left out, by reason."""
    bytes_in: int
    """Bytes of the tars."""
    bytes_out: int
    """Bytes of the dataset's own files."""
    seconds: float
    """Wall time of this call."""
    num_tars: int
    """Tars with samples in use."""
    num_labelled: int
    """Samples with a label."""


@dataclass
class _Record:
    """What was found in a tar; published last."""

    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    num_labelled: int = 0
    max_label: int = -1
    skipped: list[dict[str, str]] | None = None


# --- One tar --------------------------------------------------------------------------------------


def _rows_path(building: Path, number: int) -> Path:
    return building / f"tar-{number:06d}.rows"


def _entries_path(building: Path, number: int) -> Path:
    return building / f"tar-{number:06d}.entries"


def _record_path(building: Path, number: int) -> Path:
    return building / f"tar-{number:06d}.json"


def _load_record(building: Path, number: int) -> _Record | None:
    try:
        record = _Record(**json.loads(_record_path(building, number).read_bytes()))
        is_whole = _rows_path(building, number).stat().st_size == record.samples * ROW.itemsize
    except FileNotFoundError:
        return None
    return record if is_whole else None


@contextlib.contextmanager
def _opened(tar: PlacedTar) -> Iterator[tuple[TarStream, Iterator[TarSample]]]:
    """Open a tar, or a zip; what passes, and the samples in it."""
    ((store, name),) = open_places([tar.address])
    with contextlib.closing(store), TarStream(store, name, tar.size) as stream:
        if is_zip(name):
            yield stream, read_zip_samples(stream, store, name)
        else:
            yield stream, read_samples(stream, tar.address)


def _look_into(
    sample: TarSample, limits: DecodeLimits, has_entries: bool
) -> tuple[EncodedPicture, int, bytes] | LeftOut:
    """Decode a sample's image; return what the index says of it, its label and entry points."""
    try:
        if sample.doubled:
            raise LeftOut("doubled", f"two members .{sample.doubled} under one key")
        if sample.problem is not None:
            raise sample.problem
        if not sample.extension:
            raise LeftOut("non-image", "the sample has no member with the extension of an image")
        if sample.size > MAX_FILE_BYTES:
            raise LeftOut("too-large", f"{sample.size:,} bytes; up to {MAX_FILE_BYTES:,} are read")
        if sample.span >= 1 << 32:
            raise LeftOut("too-large", f"members of {sample.span:,} bytes, at most 2**32 - 1")
        picture = encode_picture(sample.image, _KEEP, limits)
        if picture.payload != sample.image:
            raise LeftOut(
                "not-in-place",
                f".{sample.extension}: loaders read JPEG, PNG and RGB in .npy where they stand; "
                "convert it by fastssl make-shards",
            )
        label = -1 if sample.label is None else parse_label(sample.label)
        is_jpeg = has_entries and picture.flags.payload == Payload.JPEG
        record = find_entry_points(sample.image) if is_jpeg else b""
        return replace(picture, payload=b""), label, record
    except (LeftOut, PictureError) as error:
        return LeftOut(error.reason, error.detail)


def _in_batches(samples: Iterator[TarSample]) -> Iterator[list[TarSample]]:
    batch: list[TarSample] = []
    num_bytes = 0
    for sample in samples:
        batch.append(sample)
        num_bytes += len(sample.image)
        if len(batch) == _BATCH or num_bytes > _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def index_tar(
    job: tuple[int, PlacedTar],
    report: Report,
    building: Path,
    limits: DecodeLimits,
    max_seconds: int,
    has_entries: bool = False,
) -> _Record:
    """Read one tar, and publish its rows of the index and at last its record.

    Args:
        job: number and place of the tar.
        report: called with the bytes that have passed.
        building: folder of what is not finished.
        limits: how much work an image may make.
        max_seconds: of the CPU that one may take.
        has_entries: whether entry points are found too.

    Returns:
        What was found.

    Raises:
        InputError: if it cannot be read as a tar or zip.
        RunFailed: if a store does not give it, or it has become shorter.
    """
    number, tar = job
    record, rows, entries = _Record(skipped=[]), [], EntryPointsPart()
    keys: set[str] = set()
    told = 0
    with _opened(tar) as (stream, samples):
        look = functools.partial(_look_into, limits=limits, has_entries=has_entries)
        with contextlib.suppress(PictureError):
            open_picture(b"")  # finds Pillow's formats, which every child would do anew
        for batch in _in_batches(samples):
            for sample, found in zip(batch, run_limited(look, batch, max_seconds), strict=True):
                if sample.key in keys:
                    found = LeftOut("doubled", "another sample before it has the same key")
                keys.add(sample.key)
                if isinstance(found, Ended):
                    found = describe_end(found, max_seconds)
                if isinstance(found, LeftOut):
                    _note(record, tar, sample, found)
                    continue
                picture, label, points = found
                rows.append(_make_row(sample, picture, label))
                entries.add(points)
                record.num_labelled += label >= 0
                record.max_label = max(record.max_label, label)
            report(stream.tell() - told)
            told = stream.tell()
        record.bytes, record.sha256 = stream.finish()
    report(record.bytes - told)
    record.samples = len(rows)
    publish_bytes(_rows_path(building, number), np.array(rows, ROW).tobytes())
    if has_entries:
        publish_bytes(_entries_path(building, number), entries.pack())
    publish_bytes(_record_path(building, number), json.dumps(asdict(record)).encode())
    return record


def _note(record: _Record, tar: PlacedTar, sample: TarSample, why: LeftOut) -> None:
    assert record.skipped is not None
    suffix = f".{sample.extension}" if sample.extension else ""
    source = f"{tar.address}/{sample.key}{suffix}"
    record.skipped.append({"source": source, "reason": why.reason, "detail": why.detail})


def _make_row(sample: TarSample, picture: EncodedPicture, label: int) -> tuple[Any, ...]:
    crc, flags = crc32(sample.image), picture.flags.pack()
    size = picture.width, picture.height
    return (sample.offset, sample.size, crc, *size, flags, label, sample.span)


# --- The whole ------------------------------------------------------------------------------------


def _check_out(config: IndexTarsConfig) -> None:
    out = config.out
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: not a folder; choose a new folder for the dataset")
    if (out / MANIFEST_NAME).exists():
        raise InputError(f"{out}: holds a finished dataset; choose a new folder, or remove it")
    if (out / BUILDING_NAME / _PLAN_NAME).exists():
        if not config.resume:
            raise InputError(
                f"{out}: holds an unfinished dataset; add --resume to go on with it, or remove it"
            )
    elif any(entry.name != BUILDING_NAME for entry in out.iterdir()):
        raise InputError(f"{out}: not empty, and nothing of ours; choose a new folder")


def _settle_tars(config: IndexTarsConfig, building: Path, tars: list[PlacedTar]) -> None:
    """Write down which tars are indexed, or see that they are those of the beginning."""
    plan = {
        "tars": [asdict(tar) for tar in tars],
        "max_scans": config.max_scans,
        "max_seconds": config.max_seconds,
        "entry_points": config.entry_points,
    }
    path = building / _PLAN_NAME
    if not path.exists():
        publish_bytes(path, json.dumps(plan).encode())
        return
    before = {"entry_points": False, **json.loads(path.read_bytes())}
    names = [key for key in plan if before.get(key) != plan[key]]
    if names:
        what = ", ".join("the tars, or what they are" if n == "tars" else n for n in names)
        raise InputError(
            f"{config.out}: was begun with other options ({what}); repeat the first ones, or "
            "choose a new folder"
        )


def _finish(
    out: Path, tars: list[PlacedTar], records: list[_Record], has_entries: bool
) -> Manifest:
    building = out / BUILDING_NAME
    skipped = [line for record in records for line in record.skipped or ()]
    counts = dict(sorted(Counter(line["reason"] for line in skipped).items()))
    num_samples = sum(record.samples for record in records)
    if not num_samples and not skipped:
        raise InputError(f"{tars[0].address}: no file lies in it; name what holds images")
    if not num_samples:
        told = ", ".join(f"{reason} {n}" for reason, n in counts.items())
        raise InputError(
            f"{tars[0].address}: none of {spell_number(len(skipped), 'sample')} is an image that "
            f"loaders read in place ({told}); convert them: fastssl make-shards SOURCE OUT"
        )
    used = [number for number, record in enumerate(records) if record.samples]
    names = name_shards([tars[number].address for number in used])
    shards, places = [], []
    for name, number in zip(names, used, strict=True):
        tar, record = tars[number], records[number]
        stored = record.samples + len(record.skipped or ())
        more = stored if stored != record.samples else None
        shards.append(ShardEntry(name, record.samples, record.bytes, record.sha256, more))
        places.append(TarEntry(tar.address, record.bytes, record.sha256, tar.etag))
    listing = hashlib.sha256("\n".join(record.sha256 for record in records).encode())
    draft = Manifest(
        num_samples=num_samples,
        digest="",
        encoding="keep",
        encoding_options={},
        shuffle_seed=None,
        samples_per_shard=max(record.samples for record in records),
        class_names=number_classes(max(record.max_label for record in records)),
        num_labelled=sum(record.num_labelled for record in records),
        num_read=num_samples + len(skipped),
        bytes_in=sum(record.bytes for record in records),
        skipped=counts,
        listing_sha256=listing.hexdigest(),
        shards=tuple(shards),
        tars=tuple(places),
    )
    lines = "".join(json.dumps(line) + "\n" for line in skipped)
    publish_bytes(out / SKIPPED_NAME, lines.encode(), building)
    rows = (_rows_path(building, number).read_bytes() for number in used)
    manifest = replace(draft, digest=write_index(out / INDEX_NAME, draft, rows, building))
    if has_entries:
        parts = [_entries_path(building, number) for number in used]
        place = out / ENTRY_POINTS_NAME
        found = write_entry_points(place, manifest.digest, num_samples, parts, building)
        manifest = replace(manifest, entry_points=found)
    publish_bytes(out / MANIFEST_NAME, manifest.to_json().encode("ascii"), building)
    shutil.rmtree(building)
    sync_folder(out)
    return manifest


def index_tars(config: IndexTarsConfig, on_progress: Progress = say_nothing) -> IndexReport:
    """Make a dataset over tars that stay where they are.

    Args:
        config: what, where to and how.
        on_progress: told of bytes.

    Returns:
        What was found.

    Raises:
        InputError: if a tar, the target or an option is wrong.
        RunFailed: if a store does not give a tar; ``resume`` goes on.
        StoppedBySignal: on SIGTERM or SIGINT; ``resume`` goes on.
    """
    begin = time.monotonic()
    if not config.tars:
        raise InputError("no tar is named: fastssl index-tars TAR [TAR ...] OUT")
    _check_out(config)
    config = replace(config, entry_points=settle_entry_points(config.entry_points))
    tars = look_at_tars(list_tars(config.tars))
    building = config.out / BUILDING_NAME
    with stopping_on_signals("tars that are done are kept; go on by the same command, --resume"):
        make_folder(building, "OUT", config.out)
        busy = f"{config.out}: another fastssl index-tars is at work in it; wait for it or stop it"
        with locked(building / _LOCK_NAME, busy):
            _settle_tars(config, building, tars)
            records = _index_all(config, tars, on_progress)
            manifest = _finish(config.out, tars, records, config.entry_points)
    own = [INDEX_NAME, MANIFEST_NAME, SKIPPED_NAME]
    own += [ENTRY_POINTS_NAME] if manifest.entry_points else []
    return IndexReport(
        read=manifest.num_read,
        written=manifest.num_samples,
        skipped=manifest.skipped,
        bytes_in=manifest.bytes_in,
        bytes_out=sum((config.out / name).stat().st_size for name in own),
        seconds=round(time.monotonic() - begin, 3),
        num_tars=len(manifest.shards),
        num_labelled=manifest.num_labelled,
    )


def _index_all(
    config: IndexTarsConfig, tars: list[PlacedTar], on_progress: Progress
) -> list[_Record]:
    building = config.out / BUILDING_NAME
    records = {
        number: record
        for number in range(len(tars))
        if (record := _load_record(building, number)) is not None
    }
    waiting = [number for number in range(len(tars)) if number not in records]
    total = sum(tar.size for tar in tars)
    done = total - sum(tars[number].size for number in waiting)
    on_progress(done, total)
    limits = DecodeLimits(MAX_PIXELS, config.max_scans)
    index = functools.partial(
        index_tar,
        building=building,
        limits=limits,
        max_seconds=config.max_seconds,
        has_entries=config.entry_points,
    )
    jobs = run_jobs(
        index,
        [(number, tars[number]) for number in waiting],
        config.workers or available_cpus(),
        on_progress=lambda count: on_progress(count, total),
        describe=lambda job: job[1].address,
    )
    records.update(zip(waiting, list(jobs), strict=True))
    return [records[number] for number in range(len(tars))]
