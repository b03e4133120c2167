"""Datasets made of datasets: merged, or a part of one, over the same shards.

No shard is written: the new folder holds links to them, its own index and its own manifest. It
appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...counts import spell_number
from ...errors import InputError
from ...system.files import (
    check_own_folder,
    locked,
    make_folder,
    naming_file,
    open_own,
    publish_bytes,
    published,
    sync_folder,
)
from ...system.signals import stopping_on_signals
from ...system.workers import Progress, say_nothing
from ..entry_points import (
    ENTRY_POINTS_NAME,
    EntryPointsFile,
    EntryPointsPart,
    write_entry_points,
)
from ..entry_reader import open_entry_points
from ..index import INDEX_NAME
from ..making.finish import write_index
from ..making.writer import dali_index_name, shard_name
from ..manifest import MANIFEST_NAME, SKIPPED_NAME, Manifest, ShardEntry, TarEntry
from ..reader import ShardDataset, open_dataset
from ..targets import LABELS, TargetEntry
from .classes import ClassList, compose_maps, unite_classes
from .select import Selection
from .targets import check_targets, count_present, unite_targets, write_targets

NOT_SELECTED = "not-selected"
"""Reason under which the manifest counts what a selection left aside; it is not listed."""

_MAX_SKIPPED_BYTES = 1 << 30
_NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class CombineConfig:
    """Make a dataset out of datasets without writing their shards again."""

    datasets: tuple[Path, ...]
    """DATASETS: one to take a part of, or several to merge; sample ids follow this order."""
    out: Path
    """OUT: folder of the new dataset; must be new or empty."""
    selection: Selection = field(default_factory=Selection)
    """Which samples to keep."""
    merge_classes: bool = False
    """Unite class lists that differ, by name: the first dataset's labels stay, new names follow."""
    drop_empty_classes: bool = False
    """Take classes without a sample out of the class list and number the others anew."""
    drop_targets: tuple[str, ...] = ()
    """Leave these targets behind; any other has to be in all datasets."""
    link: Literal["hard", "symbolic"] = "hard"
    """hard: the shards live as long as any dataset names them; needs one file system. symbolic:
    the datasets have to stay where they are."""


@dataclass(frozen=True)
class CombineReport:
    """What was made."""

    samples: int
    """Samples of the new dataset."""
    num_available: int
    """Samples of all datasets that went in."""
    num_shards: int
    """Shards that it links."""
    num_classes: int
    """Classes."""
    digest: str
    """Its digest."""


@dataclass(frozen=True)
class _Part:
    """A dataset that goes in."""

    dataset: ShardDataset
    start: int
    """Number of its first sample, counted through all parts."""
    label_map: tuple[int, ...] | None
    """New label by old label; None: equal."""

    @property
    def ids(self) -> slice:
        """Its samples, counted through all parts."""
        return slice(self.start, self.start + self.dataset.num_samples)

    def ids_of(self, shard: int) -> slice:
        start = self.start + self.dataset.shard_start(shard)
        return slice(start, start + self.dataset.manifest.shards[shard].samples)


# --- Before anything is written -------------------------------------------------------------------


def _check_target(config: CombineConfig) -> None:
    if not config.datasets:
        raise InputError("no dataset given; name one or more folders made by fastssl make-shards")
    out = config.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: not a folder; choose a new folder for the dataset")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; choose a new folder for the dataset")


def _open_parts(config: CombineConfig) -> tuple[list[_Part], tuple[str, ...]]:
    datasets = [open_dataset(path) for path in config.datasets]
    for dataset in datasets:
        dataset.check_rows()
    lists = [ClassList(str(d.folder), d.class_names, d.has_labels) for d in datasets]
    names, maps = unite_classes(lists, config.merge_classes)
    parts, start = [], 0
    for dataset, label_map in zip(datasets, maps, strict=True):
        parts.append(_Part(dataset, start, label_map))
        start += dataset.num_samples
    return parts, names


def _check_digest(part: _Part) -> None:
    """An index or target that was changed must not get a fresh digest that vouches for it."""
    manifest = part.dataset.manifest
    digest = manifest.begin_digest()
    for shard in range(len(manifest.shards)):
        digest.update(part.dataset.rows_of(shard).tobytes())
    if digest.hexdigest() != manifest.digest:
        raise InputError(
            f"{part.dataset.path}: its index and manifest give the digest "
            f"{digest.hexdigest()[:12]}, wanted {manifest.digest[:12]}; one of them was changed: "
            "see fastssl check-shards, then restore it or make the dataset again"
        )
    check_targets(part.dataset)


def _check_doubled(parts: list[_Part], kept: NDArray[np.bool_]) -> None:
    """Each sample comes once an epoch, so none may be in the dataset twice."""
    times = Counter(s.sha256 for part in parts for s in part.dataset.manifest.shards)
    seen: dict[str, tuple[Path, NDArray[np.uint64]]] = {}
    for part in parts:
        for number, shard in enumerate(part.dataset.manifest.shards):
            if times[shard.sha256] == 1:
                continue
            offsets = part.dataset.rows_of(number)["offset"][kept[part.ids_of(number)]]
            if shard.sha256 in seen and len(offsets):
                where, others = seen[shard.sha256]
                both = np.intersect1d(offsets, others)
                if len(both):
                    raise InputError(
                        f"{where} and {part.dataset.path} share samples ({len(both)} in "
                        f"{shard.name} of the latter), which would come twice an epoch; name "
                        "each dataset once, or select parts that do not overlap"
                    )
                offsets = np.concatenate([others, offsets])
            seen[shard.sha256] = (part.dataset.folder, offsets)


def _count_labels(parts: list[_Part], kept: NDArray[np.bool_], num_classes: int) -> NDArray:
    counts = np.zeros(num_classes, np.int64)
    for part in parts:
        for number in range(len(part.dataset.manifest.shards)):
            rows = part.dataset.rows_of(number)[kept[part.ids_of(number)]]
            labels = _map_labels(rows["label"], part.label_map)
            counts += np.bincount(labels[labels >= 0], minlength=num_classes)
        if LABELS in part.dataset.targets:
            found = count_present(part.dataset, kept[part.ids])
            counts[_map_labels(np.arange(len(found)), part.label_map)] += found
    return counts


def _drop_empty(
    parts: list[_Part], names: tuple[str, ...], kept: NDArray[np.bool_]
) -> tuple[list[_Part], tuple[str, ...]]:
    has_samples = _count_labels(parts, kept, len(names)) > 0
    numbers = np.where(has_samples, np.cumsum(has_samples) - 1, -1)
    compact = tuple(numbers.tolist())
    if compact == tuple(range(len(names))):
        return parts, names
    parts = [replace(p, label_map=compose_maps(p.label_map, compact)) for p in parts]
    return parts, tuple(name for name, has in zip(names, has_samples, strict=True) if has)


# --- Writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a folder beside the target that takes its name when the block has ended well.

    What a killed run left there is removed by the next one.
    """
    out = out.absolute()
    staging = out.with_name(f".{out.name}.combining")
    check_own_folder(staging)
    make_folder(staging, "OUT", out)
    busy = f"{out}: another fastssl combine-shards is at work on it; wait for it or stop it"
    with locked(staging, busy):
        for path in staging.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield staging
            sync_folder(staging)
            staging.rename(out)
        except BaseException:
            shutil.rmtree(staging)
            raise
        sync_folder(out.parent)


def _link(source: Path, target: Path, kind: str) -> None:
    try:
        if stat.S_ISLNK(os.lstat(source).st_mode):
            raise InputError(
                f"{source}: a symbolic link, which may lead anywhere; put the file itself there"
            )
        if kind == "symbolic":
            target.symlink_to(source)
        else:
            os.link(source, target)
    except FileNotFoundError:
        raise InputError(
            f"{source}: missing; restore it, or make the dataset again (fastssl check-shards "
            "says what else is wrong)"
        ) from None
    except OSError as error:
        if kind == "symbolic" or error.errno not in _NO_HARD_LINK:
            raise
        raise InputError(
            f"{source}: cannot be hard-linked into {target.parent.parent} ({error.strerror}); "
            "choose an OUT on the same file system, or --link symbolic"
        ) from None


def _map_labels(labels: NDArray, label_map: tuple[int, ...] | None) -> NDArray:
    if label_map is None:
        return labels
    # One place more: -1, no label, finds it from behind and stays -1.
    return np.array([*label_map, -1], np.int32)[labels]


class _Builder:
    """Links shards and collects their rows, one shard after the other.

    Where some stay where they are, all do: the manifest then says where each lies.
    """

    def __init__(self, folder: Path, link: str, is_placed: bool):
        self._folder = folder
        self._link = link
        self._is_placed = is_placed
        self.shards: list[ShardEntry] = []
        self.tars: list[TarEntry] = []
        self.label_maps: dict[tuple[int, ...], int] = {}
        self.num_labelled = 0
        self._rows = (folder / (INDEX_NAME + ".rows")).open("w+b")

    def add(self, part: _Part, number: int, kept: NDArray[np.bool_]) -> None:
        """Add what is kept of a shard; one of which nothing is kept is not linked."""
        manifest = part.dataset.manifest
        entry = manifest.shards[number]
        rows = part.dataset.rows_of(number)[kept]
        if not len(rows):
            return
        name = shard_name(len(self.shards))
        # A link to a shard was followed when the dataset was opened; its index lies beside it.
        source = (part.dataset.folder / entry.name).resolve()
        if self._is_placed:
            here = TarEntry(str(source), entry.bytes, entry.sha256)
            self.tars.append(manifest.tars[number] if manifest.tars else here)
        else:
            _link(source, self._folder / name, self._link)
            _link(
                source.with_name(dali_index_name(entry.name)),
                self._folder / dali_index_name(name),
                self._link,
            )
        rows["label"] = _map_labels(rows["label"], part.label_map)
        before = None if entry.label_map is None else manifest.label_maps[entry.label_map]
        label_map = compose_maps(before, part.label_map)
        if label_map is not None:
            label_map_number = self.label_maps.setdefault(label_map, len(self.label_maps))
        self.shards.append(
            ShardEntry(
                name,
                len(rows),
                entry.bytes,
                entry.sha256,
                stored=None if entry.num_stored == len(rows) else entry.num_stored,
                label_map=None if label_map is None else label_map_number,
            )
        )
        self.num_labelled += int((rows["label"] >= 0).sum())
        self._rows.write(rows.tobytes())

    def write_index(self, draft: Manifest) -> str:
        """Put header and rows together; return the digest."""
        self._rows.seek(0)
        digest = write_index(
            self._folder / INDEX_NAME, draft, iter(lambda: self._rows.read(1 << 22), b"")
        )
        self._rows.close()
        (self._folder / (INDEX_NAME + ".rows")).unlink()
        return digest


def _unite_manifests(
    parts: list[_Part],
    names: tuple[str, ...],
    builder: _Builder,
    targets: tuple[TargetEntry, ...],
) -> Manifest:
    """Say what the parts say together; the digest is not known yet."""
    manifests = [part.dataset.manifest for part in parts]
    first = manifests[0]
    encodings = {(m.encoding, tuple(sorted(m.encoding_options.items()))) for m in manifests}
    is_one = len(encodings) == 1
    seeds = {m.shuffle_seed for m in manifests}
    skipped: Counter[str] = Counter()
    for manifest in manifests:
        skipped.update(manifest.skipped)
    num_samples = sum(shard.samples for shard in builder.shards)
    num_aside = sum(m.num_samples for m in manifests) - num_samples
    if num_aside:
        skipped[NOT_SELECTED] += num_aside
    listings = "\n".join(m.listing_sha256 for m in manifests).encode("ascii")
    return Manifest(
        num_samples=num_samples,
        digest="",
        encoding=first.encoding if is_one else "mixed",
        encoding_options=first.encoding_options if is_one else {},
        shuffle_seed=seeds.pop() if len(seeds) == 1 else None,
        samples_per_shard=max(m.samples_per_shard for m in manifests),
        class_names=names,
        num_labelled=builder.num_labelled,
        num_read=sum(m.num_read for m in manifests),
        bytes_in=sum(m.bytes_in for m in manifests),
        skipped=dict(sorted(skipped.items())),
        listing_sha256=(
            first.listing_sha256 if len(parts) == 1 else hashlib.sha256(listings).hexdigest()
        ),
        shards=tuple(builder.shards),
        label_maps=tuple(builder.label_maps),
        targets=targets,
        tars=tuple(builder.tars),
    )


def _unite_entry_points(
    folder: Path, parts: list[_Part], kept: NDArray[np.bool_], digest: str
) -> EntryPointsFile | None:
    """Take along what is known of the samples that are kept; where nothing is, none is sought."""
    scratch = folder / (ENTRY_POINTS_NAME + ".parts")
    scratch.mkdir()
    paths: list[Path] = []
    for part in parts:
        entry_points = open_entry_points(part.dataset)
        for number in range(len(part.dataset.manifest.shards)):
            ids = np.flatnonzero(kept[part.ids_of(number)]) + part.dataset.shard_start(number)
            found = EntryPointsPart()
            if entry_points is None:
                found.add_none(len(ids))
            else:
                found.add(*entry_points.read_many(ids, part.dataset.locate_many(ids)[2]))
            paths.append(scratch / str(len(paths)))
            paths[-1].write_bytes(found.pack())
    count, target = int(np.count_nonzero(kept)), folder / ENTRY_POINTS_NAME
    entry = write_entry_points(target, digest, count, paths)
    shutil.rmtree(scratch)
    return entry


def _unite_skipped(parts: list[_Part], target: Path) -> None:
    with published(target) as file:
        for part in parts:
            with (
                contextlib.suppress(FileNotFoundError),  # a report: nothing rests on it
                open_own(part.dataset.folder / SKIPPED_NAME) as lines,
            ):
                if (size := os.fstat(lines.fileno()).st_size) > _MAX_SKIPPED_BYTES:
                    raise InputError(
                        f"{part.dataset.folder / SKIPPED_NAME}: {size:,} bytes, wanted at most "
                        f"{_MAX_SKIPPED_BYTES:,}; restore it, or remove it"
                    )
                shutil.copyfileobj(lines, file)


def combine(config: CombineConfig, on_progress: Progress = say_nothing) -> CombineReport:
    """Make a dataset out of datasets; their shards are linked, not copied.

    Args:
        config: of which, where to, what to keep.
        on_progress: told of samples.

    Returns:
        What was made.

    Raises:
        InputError: if a dataset is damaged, class lists differ, a sample would be there twice,
            nothing would be left, or the target is not new.
        StoppedBySignal: on SIGTERM or SIGINT; nothing is left behind.
    """
    _check_target(config)
    parts, names = _open_parts(config)
    message = "nothing was written; run the same command again"
    with stopping_on_signals(message), naming_file(config.out):
        for part in parts:
            _check_digest(part)
        total = sum(part.dataset.num_samples for part in parts)
        kept = config.selection.find([part.dataset for part in parts], names)
        if not kept.any():
            raise InputError(
                f"nothing is left of {spell_number(total, 'sample')}: "
                f"{config.selection.describe()} keep none of them; choose others"
            )
        _check_doubled(parts, kept)
        if config.drop_empty_classes and names:
            parts, names = _drop_empty(parts, names, kept)
        datasets = [part.dataset for part in parts]
        specs = unite_targets(datasets, len(names), config.drop_targets)
        with _staged(config.out) as folder:
            is_placed = any(dataset.manifest.tars for dataset in datasets)
            builder = _Builder(folder, config.link, is_placed)
            on_progress(0, total)
            for part in parts:
                for number, shard in enumerate(part.dataset.manifest.shards):
                    builder.add(part, number, kept[part.ids_of(number)])
                    on_progress(shard.samples, total)
            maps = [part.label_map for part in parts]
            targets = write_targets(folder, specs, datasets, maps, kept)
            draft = _unite_manifests(parts, names, builder, targets)
            _unite_skipped(parts, folder / SKIPPED_NAME)
            manifest = replace(draft, digest=builder.write_index(draft))
            if any(dataset.manifest.entry_points for dataset in datasets):
                entry = _unite_entry_points(folder, parts, kept, manifest.digest)
                manifest = replace(manifest, entry_points=entry)
            publish_bytes(folder / MANIFEST_NAME, manifest.to_json().encode("ascii"))
    for part in parts:
        part.dataset.close()
    return CombineReport(
        manifest.num_samples, total, len(manifest.shards), len(names), manifest.digest
    )
