"""Check a dataset against everything that it says about itself."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...counts import spell_number
from ...errors import InputError
from ...system.cpus import available_cpus
from ...system.files import open_regular, read_regular, sha256_of
from ...system.workers import Progress, Report, run_jobs, say_nothing
from ..checksum import crc32
from ..entry_points import ENTRY_POINTS_NAME
from ..index import INDEX_NAME, Payload, SampleFlags, map_index, read_index_header
from ..jpeg import JpegError, parse_jpeg
from ..links import check_files, find_shard, list_shards
from ..making.encode import describe_payload
from ..making.entry_points import settle_entry_points
from ..making.writer import dali_index, dali_index_name
from ..manifest import Manifest, ShardEntry, read_manifest
from ..picture import PictureError
from ..places import split_address
from ..rows import describe_fault, find_faults
from ..tar import BLOCK, Member, TarError, parse_member, walk_tar
from ..targets import check_target
from .verify_entries import describe_wrong_file, find_lies

_ROWS_AT_ONCE = 1 << 18
_LABEL_BYTES = 16  # of the longest `.cls`, and more
_KEY = re.compile(r"[0-9]{9}")
_EXTENSIONS = {int(Payload.JPEG): "jpg", int(Payload.PNG): "png", int(Payload.NPY): "npy"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    shard: str
    """File that it was found in: a shard, ``index.bin``, or a target."""
    key: str | None
    """Key of the sample; None if it is not about one sample."""
    reason: str
    """What is wrong."""


@dataclass(frozen=True)
class CheckReport:
    """What was found."""

    samples: int
    """Samples that the manifest speaks of."""
    errors: tuple[Fault, ...]
    """What is wrong, in the order of the shards."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def to_json(self) -> str:
        """Return the contract's report: ok, samples, errors."""
        errors = [asdict(fault) for fault in self.errors]
        report = {"ok": self.ok, "samples": self.samples, "errors": errors}
        return json.dumps(report, indent=1) + "\n"


def _check_index(path: Path, manifest: Manifest) -> Iterator[Fault]:
    """Check the index by itself: its header, its size, and the digest over its rows."""
    try:
        header = read_index_header(path / INDEX_NAME)
    except InputError as error:
        yield Fault(INDEX_NAME, None, str(error))
        return
    if header.count != manifest.num_samples:
        yield Fault(
            INDEX_NAME,
            None,
            f"{spell_number(header.count, 'sample')}, {manifest.num_samples} in the manifest",
        )
    if header.digest != manifest.digest:
        yield Fault(INDEX_NAME, None, f"digest {header.digest}, {manifest.digest} in the manifest")
    digest = manifest.begin_digest()
    if header.count:
        rows = map_index(path / INDEX_NAME)
        for start in range(0, header.count, _ROWS_AT_ONCE):
            digest.update(rows[start : start + _ROWS_AT_ONCE].tobytes())
    if digest.hexdigest() != manifest.digest:
        yield Fault(
            INDEX_NAME,
            None,
            f"what it and the manifest say gives the digest {digest.hexdigest()}, wanted "
            f"{manifest.digest}",
        )
    samples = sum(shard.samples for shard in manifest.shards)
    if samples != manifest.num_samples:
        yield Fault(
            INDEX_NAME,
            None,
            f"the shards hold {spell_number(samples, 'sample')}, wanted {manifest.num_samples}",
        )


def _check_targets(path: Path, manifest: Manifest) -> Iterator[Fault]:
    """Check that each target is the array that was written."""
    for entry in manifest.targets:
        try:
            check_files(path, [entry.file_name])
            check_target(path / entry.file_name, entry)
            digest = sha256_of(path / entry.file_name)
        except InputError as error:
            yield Fault(entry.file_name, None, str(error))
        except OSError as error:
            yield Fault(entry.file_name, None, f"cannot be read: {error.strerror}")
        else:
            if digest != entry.sha256:
                reason = "changed: its SHA-256 is not the one in the manifest"
                yield Fault(entry.file_name, None, reason)


def _check_entry_points(path: Path, manifest: Manifest) -> Iterator[Fault]:
    """Check that the file of entry points is the one that was written."""
    if manifest.entry_points is not None and (reason := describe_wrong_file(path)) is not None:
        yield Fault(ENTRY_POINTS_NAME, None, reason)


class _ShardCheck:
    """Checks one shard; collects what is wrong in ``faults``."""

    def __init__(
        self,
        path: Path,
        shard: ShardEntry,
        label_map: tuple[int, ...] | None,
        rows: np.ndarray | None,
        num_classes: int,
        deep: bool,
        is_placed: bool = False,
    ):
        self._path = path
        self._is_placed = is_placed
        self._shard = shard
        self._label_map = label_map
        self._rows = rows
        self._num_classes = num_classes
        self._deep = deep
        self._num_behind_end = 0
        self.faults: list[Fault] = []

    def _add(self, key: str | None, reason: str) -> None:
        self.faults.append(Fault(self._shard.name, key, reason))

    def run(self, report: Report) -> None:
        try:
            if not self._is_placed:
                find_shard(self._path.parent, self._shard, list_shards)
            descriptor = open_regular(self._path)
        except (InputError, OSError) as error:
            self._add(None, f"cannot be opened: {error}")
            report(self._shard.samples)
            return
        try:
            self._check_opened(descriptor, report)
        except OSError as error:
            self._add(None, f"cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _check_opened(self, descriptor: int, report: Report) -> None:
        size = os.fstat(descriptor).st_size
        if size != self._shard.bytes:
            what = "truncated" if size < self._shard.bytes else "longer than it was"
            self._add(None, f"{what}: {size} bytes, {self._shard.bytes} were written")
        if sha256_of(self._path) != self._shard.sha256:
            self._add(None, "changed: its SHA-256 is not the one in the manifest")
        if self._is_placed:
            self._check_rows(descriptor, report)
            return
        samples, is_whole = self._walk(descriptor)
        if is_whole and len(samples) != self._shard.num_stored:
            self._add(
                None,
                f"{spell_number(len(samples), 'sample')}, {self._shard.num_stored} in the manifest",
            )
        if is_whole:
            self._check_dali_index(samples)
        if self._rows is None:
            report(self._shard.samples)
            return
        if (np.diff(self._rows["offset"].astype(np.int64)) <= 0).any():
            self._add(None, "the index does not name its samples once each and in order")
        faults = find_faults(self._rows, np.array([self._shard.bytes]), self._num_classes).tolist()
        for members, row, fault in zip(self._match(samples), self._rows, faults, strict=True):
            if members is not None:
                self._check_place(descriptor, members, row)
            elif is_whole:
                self._add(None, f"none of its images begins at {row['offset']}, as the index says")
            if fault:
                key = None if members is None else members[0].name.partition(".")[0]
                self._add(key, describe_fault(row, fault, self._shard.name, self._shard.bytes))
            else:
                self._check_payload(descriptor, row)
            report(1)
        if self._num_behind_end:
            self._add(None, f"{spell_number(self._num_behind_end, 'sample')} behind its end")

    def _check_rows(self, descriptor: int, report: Report) -> None:
        """Check the images of a tar or zip that others wrote, whose structure is theirs."""
        if self._rows is None:
            report(self._shard.samples)
            return
        size = np.array([self._shard.bytes])
        faults = find_faults(self._rows, size, self._num_classes, is_ours=False).tolist()
        for row, fault in zip(self._rows, faults, strict=True):
            if fault:
                self._add(None, describe_fault(row, fault, self._shard.name, self._shard.bytes))
            else:
                self._check_payload(descriptor, row)
            report(1)
        if self._num_behind_end:
            self._add(None, f"{spell_number(self._num_behind_end, 'sample')} behind its end")

    def _walk(self, descriptor: int) -> tuple[list[list[Member]], bool]:
        """Return the members of each sample, and whether the whole tar could be walked."""
        samples: list[list[Member]] = []
        last = ""
        try:
            for member in walk_tar(descriptor):
                key = member.name.partition(".")[0]
                if key != last:
                    if not _KEY.fullmatch(key) or key < last:
                        self._add(key, "its key is not a nine-digit number above the one before")
                    samples.append([])
                    last = key
                samples[-1].append(member)
        except TarError as error:
            self._add(None, f"damaged: {error}")
            return samples, False
        return samples, True

    def _match(self, samples: list[list[Member]]) -> Iterator[list[Member] | None]:
        """Yield the members in the tar for each row; None where there is no such sample."""
        assert self._rows is not None
        if self._shard.num_stored == self._shard.samples:  # all of them, so by their place
            for number in range(len(self._rows)):
                yield samples[number] if number < len(samples) else None
            return
        by_offset = {members[0].offset: members for members in samples}
        for offset in self._rows["offset"].tolist():
            yield by_offset.get(offset)

    def _check_dali_index(self, samples: list[list[Member]]) -> None:
        name = dali_index_name(self._shard.name)
        wanted = dali_index(
            [[(m.name.partition(".")[2], m.offset, m.size, m.name) for m in s] for s in samples]
        )
        try:
            found = read_regular(self._path.with_name(name), len(wanted))
        except OSError as error:
            self._add(None, f"{name} cannot be read: {error.strerror}")
            return
        except InputError as error:
            self._add(None, str(error))
            return
        if found != wanted:
            self._add(None, f"{name} does not say where the members lie")

    def _check_place(self, descriptor: int, members: list[Member], row: np.void) -> None:
        """Compare a sample in the tar with its row of the index."""
        image, last = members[0], members[-1]
        key, _, extension = image.name.partition(".")
        if (image.offset, image.size) != (row["offset"], row["length"]):
            self._add(
                key,
                f"its image is {image.size} bytes at {image.offset}, the index says "
                f"{row['length']} at {row['offset']}",
            )
        kind = int(row["flags"]) >> 5 & 7
        if _EXTENSIONS.get(kind) != extension:
            self._add(key, f"its image is a .{extension}, the index says kind {kind}")
        span = last.offset + last.size - image.start
        if span != row["span"]:
            self._add(key, f"its members span {span} bytes, the index says {row['span']}")
        label = b"-1"
        for member in members:
            if member.name.endswith(".cls"):
                label = os.pread(descriptor, min(member.size, _LABEL_BYTES), member.offset)
        if self._map_label(label) != b"%d" % row["label"]:
            meaning = "" if self._label_map is None else f" ({self._map_label(label)!r} here)"
            self._add(key, f"its label is {label!r}{meaning}, the index says {row['label']}")

    def _map_label(self, label: bytes) -> bytes:
        """Return what the index has to say for a ``.cls``."""
        if self._label_map is None or not label.isdigit():
            return label
        number = int(label[:10])
        return b"%d" % self._label_map[number] if number < len(self._label_map) else b"?"

    def _check_payload(self, descriptor: int, row: np.void) -> None:
        """Compare the bytes of an image with their CRC-32, and if deep their picture."""
        offset, length = int(row["offset"]), int(row["length"])
        before = min(BLOCK, offset)
        content = os.pread(descriptor, length + before, offset - before)
        try:
            key = parse_member(content[:before], offset - before).name.partition(".")[0]
        except TarError:
            key = None
        payload = content[before:]
        if not content:
            self._num_behind_end += 1
        elif len(payload) < length:
            self._add(key, f"truncated: {len(payload)} of {length} bytes")
        elif crc32(payload) != row["crc32"]:
            self._add(key, "changed: the CRC-32 of its image is not the one in the index")
        elif self._deep:
            self._check_picture(key, payload, row)
        else:
            self._check_interval(key, payload, row)

    def _check_interval(self, key: str | None, payload: bytes, row: np.void) -> None:
        """Compare the restart interval of a JPEG, by which loaders find their way in it."""
        wanted = SampleFlags.unpack(row["flags"])
        if wanted.payload != Payload.JPEG:
            return
        try:
            found = parse_jpeg(payload).restart_interval
        except JpegError:
            found = 0  # such a file is the reference decoder's, and the index says no more of it
        if found != wanted.restart_interval:
            self._add(key, f"restart interval {found}, the index says {wanted.restart_interval}")

    def _check_picture(self, key: str | None, payload: bytes, row: np.void) -> None:
        try:
            width, height, flags = describe_payload(payload)
        except PictureError as error:
            self._add(key, f"cannot be decoded: {error}")
            return
        if (width, height) != (row["width"], row["height"]):
            self._add(
                key, f"{width} x {height} px, the index says {row['width']} x {row['height']}"
            )
        if flags.pack() != row["flags"]:
            self._add(key, f"{flags}, the index says {SampleFlags.unpack(row['flags'])}")


def check_shard(
    number: int, report: Report, path: Path, deep: bool, with_entry_points: bool = False
) -> list[Fault]:
    """Check one shard; runs in a worker process.

    Args:
        number: place of the shard in the manifest.
        report: called with the number of samples done.
        path: the dataset's folder.
        deep: whether to decode every image.
        with_entry_points: whether to find the entry points of every image again.

    Returns:
        What is wrong with it.
    """
    manifest = read_manifest(path)
    shard = manifest.shards[number]
    start = sum(s.samples for s in manifest.shards[:number])
    try:
        read_index_header(path / INDEX_NAME)
        rows = map_index(path / INDEX_NAME)[start : start + shard.samples]
    except InputError:
        rows = None  # reported once, by the check of the index
    label_map = None if shard.label_map is None else manifest.label_maps[shard.label_map]
    place, is_placed = path / shard.name, bool(manifest.tars)
    if is_placed:
        folder, name = split_address(manifest.tars[number].address)
        place = Path(folder, name)
    check = _ShardCheck(place, shard, label_map, rows, len(manifest.class_names), deep, is_placed)
    check.run(report)
    lies = find_lies(path, number) if with_entry_points else ()
    return [*check.faults, *(Fault(ENTRY_POINTS_NAME, None, reason) for reason in lies)]


def verify_dataset(
    path: Path,
    deep: bool = False,
    workers: int | None = None,
    on_progress: Progress = say_nothing,
) -> CheckReport:
    """Check the files of a dataset: sizes, digests, tar structure, indexes, every payload's CRC-32.

    Args:
        path: the dataset's folder.
        deep: decode every image too, and compare its size and kind with the index; find its entry
            points again.
        workers: worker processes; None takes the CPUs that this process may use.
        on_progress: told of samples.

    Returns:
        What is wrong.

    Raises:
        InputError: if the folder is not a dataset at all.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers ({workers}) must be at least 1")
    manifest = read_manifest(path)
    for tar in manifest.tars:
        if not isinstance(split_address(tar.address)[0], Path):
            raise InputError(
                f"{path}: {tar.address} lies in a store, and every byte is read; check a copy on a "
                "machine beside it (loaders check each image as they read)"
            )
    on_progress(0, manifest.num_samples)
    faults = [*_check_index(path, manifest), *_check_targets(path, manifest)]
    faults += _check_entry_points(path, manifest)
    finds_again = settle_entry_points(deep and manifest.entry_points is not None)
    found = run_jobs(
        functools.partial(check_shard, path=path, deep=deep, with_entry_points=finds_again),
        range(len(manifest.shards)),
        workers or available_cpus(),
        on_progress=lambda count: on_progress(count, manifest.num_samples),
        describe=lambda number: manifest.shards[number].name,
    )
    faults += itertools.chain.from_iterable(found)
    return CheckReport(manifest.num_samples, tuple(faults))
