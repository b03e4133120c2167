"""Features on disk: one memory-mapped array an end point, filled by all ranks, resumable.

A folder a set of features, named by what they are features of::

    res5-<12 digits of the trunk>-<12 of the dataset>-<8 of all else>/
        features.npy    float32 or float16 (N, D), row = place among the samples asked for
        sample_ids.npy  int64 (N,): whose pixels they are, another id where a sample was bad
        labels.npy      int64 (N,), -1 where a sample has none
        features.json   what they are; written last, so a folder without it is not finished
        filled/         while it is filled: a file for each run of rows that is done

Shape legend: N samples, D features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..loaders import Loader
from ..models import Trunk
from ..sampling import MAX_SAMPLES
from ..shards.npy import MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, NpyError, parse_header
from ..system.files import (
    check_own_folder,
    locked,
    naming_file,
    open_own,
    open_regular,
    publish_bytes,
    read_own,
    read_regular,
    refusing_unreadable,
    sync_folder,
)
from ..system.workers import Progress, say_nothing
from ..world import World
from .extract import FeatureBatch, Pass, run_trunk

Storage = Literal["float32", "float16"]
VERSION = 1
MANIFEST_NAME = "features.json"
_FEATURES, _IDS, _LABELS, _FILLED = "features.npy", "sample_ids.npy", "labels.npy", "filled"
_MAX_MANIFEST_BYTES = 1 << 20
_BATCHES_IN_STEP = 64  # Ranks meet after so many, long before the group's time-out.
_MAX_NOTE_BYTES = 1 << 22
_MAX_FEATURES = 1 << 22  # Far more than any end point has.
_HEADER_BYTES = 128  # What numpy.lib.format writes for an array of two dimensions.
_REMEDY = "remove the folder, it is made again"
_Note = list[tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]]


@dataclass(frozen=True)
class FeatureKey(Documented):
    """What features are of; two sets are one only if all of it is equal."""

    trunk_digest: str
    """Of the trunk's name, width and weights."""
    dataset_digest: str
    """Of the dataset."""
    view: str
    """What the trunk was shown: the view, in words that hold all of it."""
    input: str
    """How pixels were scaled."""
    end_point: str
    """Of the trunk."""
    pooling: str
    """How maps became features."""
    precision: str
    """Number format of the forward pass."""
    storage: Storage
    """Number format on disk."""
    samples: str
    """Which samples of the dataset: ``all``, or the part."""

    @property
    def folder_name(self) -> str:
        """Name of the folder: readable, and another for another key."""
        rest = hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()
        point = re.sub(r"[^A-Za-z0-9_.]", "_", self.end_point)[:40]
        return f"{point}-{self.trunk_digest[:12]}-{self.dataset_digest[:12]}-{rest[:8]}"


@dataclass(frozen=True)
class StoredFeatures(Documented):
    """Features of N samples on disk, memory-mapped."""

    key: FeatureKey
    """What they are of."""
    features: NDArray[Any]
    """float32 or float16 (N, D), read-only."""
    labels: NDArray[np.int64]
    """(N,), -1 where a sample has none."""
    sample_ids: NDArray[np.int64]
    """(N,): whose pixels they are."""


def open_features(path: str | Path) -> StoredFeatures:
    """Open features that lie on disk.

    Args:
        path: the folder of one end point.

    Returns:
        The features, mapped.

    Raises:
        InputError: if the folder is not there, not finished or damaged.
    """
    path = Path(path)
    manifest = path / MANIFEST_NAME
    if not manifest.is_file():
        what = "is not finished" if (path / _FILLED).is_dir() else "holds no features"
        raise InputError(
            f"{path} {what} ({MANIFEST_NAME} is absent); evaluate the trunk again, which fills it"
        )
    found = _read_manifest(manifest)
    rows = (found.num_samples,)
    return StoredFeatures(
        found.key,
        _map(path / _FEATURES, np.dtype(found.key.storage), (*rows, found.num_features)),
        _map(path / _LABELS, np.dtype(np.int64), rows),
        _map(path / _IDS, np.dtype(np.int64), rows),
    )


class _Manifest(msgspec.Struct):
    """What ``features.json`` says."""

    version: Literal[1]
    key: FeatureKey
    num_samples: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES)]
    num_features: Annotated[int, msgspec.Meta(ge=1, le=_MAX_FEATURES)]


def _read_manifest(path: Path) -> _Manifest:
    with refusing_unreadable(path, _REMEDY):
        content = read_regular(path, _MAX_MANIFEST_BYTES)
    try:
        return msgspec.json.decode(content, type=_Manifest)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {_REMEDY}") from None


def _map(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    """Map an array once its header and its size are seen to be those of what is wanted."""
    try:
        with refusing_unreadable(path, _REMEDY), open(open_regular(path), "rb") as file:
            start = file.read(PREFIX_BYTES + MAX_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise InputError(f"{path} is absent; {_REMEDY}") from None
    wanted = f"{dtype} {shape}"
    try:
        header = parse_header(start) if start.startswith(MAGIC) else None
    except NpyError as error:
        raise InputError(f"{path} cannot be mapped ({error.detail}); {_REMEDY}") from None
    if header is None or (header.descr, header.shape) != (dtype.str, shape):
        what = "no array" if header is None else header.text
        raise InputError(f"{path} is {what}, wanted {wanted}; {_REMEDY}")
    num_bytes = header.start + dtype.itemsize * math.prod(shape)
    if size != num_bytes:
        raise InputError(f"{path} has {size} bytes, {wanted} takes {num_bytes}; {_REMEDY}")
    return np.memmap(path, dtype, "r", header.start, shape)


class FeatureStore:
    """A folder of features of many trunks, datasets and end points."""

    def __init__(self, root: Path) -> None:
        """Remember the place; nothing is made before there is something to keep.

        Args:
            root: the folder.
        """
        self.root = root

    def find(self, key: FeatureKey) -> StoredFeatures | None:
        """Return the features of a key, None if they are not there or not finished.

        Raises:
            InputError: if they are damaged, or another key's.
        """
        folder = self.root / key.folder_name
        check_own_folder(folder)
        if not (folder / MANIFEST_NAME).is_file():
            return None
        stored = open_features(folder)
        differences = [
            f"{f.name}: {getattr(stored.key, f.name)[:200]!r} instead of {getattr(key, f.name)!r}"
            for f in dataclasses.fields(key)
            if getattr(stored.key, f.name) != getattr(key, f.name)
        ]
        if differences:
            raise InputError(
                f"{folder} holds features of something else ({'; '.join(differences)}); {_REMEDY}"
            )
        return stored


def fill_store(
    store: FeatureStore,
    keys: Mapping[str, FeatureKey],
    trunk: Trunk,
    loader: Loader,
    setting: Pass,
    device: str,
    world: World,
    advance: Progress = say_nothing,
) -> dict[str, StoredFeatures]:
    """Make the features of some end points that are not there yet, in one pass, on all ranks.

    What an earlier call had done before it was killed is kept.

    Args:
        store: where they are kept.
        keys: of the end points wanted, by end point.
        trunk: gives them.
        loader: of the samples, with the view that the keys name; this rank's.
        setting: how the trunk is run; of its end points those that are lacking are taken.
        device: where it runs.
        world: the ranks, each of which calls this.
        advance: is told the samples done and the samples in all.

    Returns:
        The features by end point.

    Raises:
        InputError: if a feature is not finite, the disk is full, or what is there is damaged.
    """
    lacking = world.on_zero(lambda: [name for name, key in keys.items() if store.find(key) is None])
    if lacking:
        folders = {name: store.root / keys[name].folder_name for name in lacking}
        setting = dataclasses.replace(setting, end_points=tuple(lacking))
        with contextlib.ExitStack() as locks:
            world.on_zero(lambda: _lock(folders.values(), locks))
            _Filler(folders, keys, loader, world).fill(trunk, setting, device, advance)
    return {name: open_features(store.root / key.folder_name) for name, key in keys.items()}


def _lock(folders: Iterable[Path], locks: contextlib.ExitStack) -> None:
    """Make folders, and keep a second evaluation away from them."""
    for folder in folders:
        check_own_folder(folder / _FILLED)
        (folder / _FILLED).mkdir(parents=True, exist_ok=True)
        busy = f"{folder} is being filled by another evaluation; wait for it"
        locks.enter_context(locked(folder / ".lock", busy, patience_s=10))


class _Filler:
    """Fills the folders of several end points at once, on all ranks."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        keys: Mapping[str, FeatureKey],
        loader: Loader,
        world: World,
    ) -> None:
        self.loader, self.world = loader, world
        self.num_samples = loader.num_samples
        self.ids = loader.order.find_ids(np.arange(loader.num_samples))
        self.writers = {
            name: _Writer(folder, keys[name], self.num_samples) for name, folder in folders.items()
        }

    def fill(self, trunk: Trunk, setting: Pass, device: str, advance: Progress) -> None:
        """Fill what is not filled yet; all ranks go on in step, so that none waits for long."""
        world = self.world
        pending = world.on_zero(self._find_pending)
        num_left = sum(stop - start for start, stop in pending)
        shares = [rank * num_left // world.size for rank in range(world.size + 1)]
        runs = _cut_runs(pending, shares[world.rank], shares[world.rank + 1], self._borders())
        rows = np.concatenate([np.arange(*run) for run in runs] or [np.arange(0)])
        advance(self.num_samples - num_left, self.num_samples)
        with contextlib.closing(self.loader.read(self.ids[rows])) as batches:
            features = run_trunk(trunk, batches, setting, device)
            progress = _Progress(runs, self.writers)
            most = max(np.diff(shares), default=0)
            for _ in range(-(-int(most) // (_BATCHES_IN_STEP * self.loader.batch_size_per_rank))):
                part = itertools.islice(features, _BATCHES_IN_STEP)
                done = world.together(partial(progress.write, part))
                advance(sum(world.gather(done)), self.num_samples)
        world.on_zero(self._publish)

    def _borders(self) -> NDArray[np.int64]:
        """Return the rows behind the last sample of each shard."""
        ends = np.cumsum([shard.samples for shard in self.loader.dataset.manifest.shards])
        return np.searchsorted(self.ids, ends)

    def _find_pending(self) -> list[tuple[int, int]]:
        """Return the runs of rows that are not filled in every folder, ascending."""
        is_done = np.ones(self.num_samples, bool)
        for writer in self.writers.values():
            here = np.zeros(self.num_samples, bool)
            for start, stop in writer.list_filled():
                here[start:stop] = True
            is_done &= here
        edges = np.flatnonzero(np.diff(np.concatenate([[1], is_done, [1]]).astype(np.int8)))
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def _publish(self) -> None:
        label_of = self.loader.dataset.index["label"]
        for writer in self.writers.values():
            ids = self.ids.copy()
            for row, used in writer.list_swaps():
                if used >= len(label_of):
                    raise InputError(
                        f"{writer.folder} names sample {used}, there is none; {_REMEDY}"
                    )
                ids[row] = used
            writer.publish(ids, label_of[ids].astype(np.int64))


def _cut_runs(
    pending: Sequence[tuple[int, int]], first: int, last: int, borders: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Return the runs of the first-th to last-th pending row, cut at borders."""
    runs, passed = [], 0
    for start, stop in pending:
        low, high = max(start, start + first - passed), min(stop, start + last - passed)
        passed += stop - start
        if low < high:
            inner = [int(border) for border in borders if low < border < high]
            runs += list(itertools.pairwise([low, *inner, high]))
    return runs


class _Progress:
    """Writes batches to the rows that they are of, and notes each run when it is whole."""

    def __init__(self, runs: Sequence[tuple[int, int]], writers: Mapping[str, _Writer]) -> None:
        self.left, self.writers = list(runs), writers
        self.row = runs[0][0] if runs else 0
        self.swaps: list[tuple[int, int]] = []

    def write(self, batches: Iterable[FeatureBatch]) -> int:
        """Write some batches; return how many samples they have."""
        num = 0
        for batch in batches:
            found = {name: value.cpu() for name, value in batch.features.items()}
            planned, used = batch.sample_ids.tolist(), batch.used_ids.tolist()
            start = 0
            while start < len(planned):
                stop = min(len(planned), start + self.left[0][1] - self.row)
                for name, writer in self.writers.items():
                    writer.write(self.row, found[name][start:stop], planned[start:stop])
                for place in range(start, stop):
                    if planned[place] != used[place]:
                        self.swaps.append((self.row + place - start, used[place]))
                self._advance(stop - start)
                start = stop
            num += len(planned)
        return num

    def _advance(self, count: int) -> None:
        self.row += count
        run = self.left[0]
        if self.row == run[1]:
            for writer in self.writers.values():
                writer.note(run, self.swaps)
            self.left.pop(0)
            self.swaps = []
            self.row = self.left[0][0] if self.left else self.row


class _Writer:
    """The folder of one end point while it is filled."""

    def __init__(self, folder: Path, key: FeatureKey, num_samples: int) -> None:
        self.folder, self.key, self.num_samples = folder, key, num_samples
        self.dtype = np.dtype(key.storage)
        self.path = folder / _FEATURES

    def write(self, row: int, rows: Tensor, sample_ids: Sequence[int]) -> None:
        """Write rows to their place; refuse those that no classifier can use."""
        values = rows.numpy().astype(self.dtype)
        is_bad = ~np.isfinite(values).all(1)
        if is_bad.any():
            wide = " as float16" if self.dtype == np.float16 else ""
            raise InputError(
                f"end point '{self.key.end_point}' of sample {sample_ids[int(is_bad.argmax())]} is "
                f"not finite{wide} ({int(is_bad.sum())} of {spell_number(len(values), 'sample')}); "
                "the trunk has diverged, or --precision fp32 and --storage float32 hold its numbers"
            )
        place = _HEADER_BYTES + row * values.shape[1] * self.dtype.itemsize
        with naming_file(self.path):
            with open_own(self.path, "w+b") as file:
                left = memoryview(values).cast("B")
                while left:
                    written = os.pwrite(file.fileno(), left, place)
                    left, place = left[written:], place + written

    def note(self, run: tuple[int, int], swaps: Sequence[tuple[int, int]]) -> None:
        """Note that a run of rows is on disk, and which rows are of other samples."""
        with naming_file(self.path), open_own(self.path, "r+b") as file:
            os.fsync(file.fileno())
        place = self.folder / _FILLED / f"{run[0]}-{run[1]}"
        publish_bytes(place, json.dumps(swaps).encode())

    def list_filled(self) -> list[tuple[int, int]]:
        """Return the runs that are on disk."""
        names = [entry.name for entry in (self.folder / _FILLED).iterdir()]
        found = [re.fullmatch(r"([0-9]{1,12})-([0-9]{1,12})", name) for name in names]
        runs = [(int(match[1]), int(match[2])) for match in found if match]
        return [(start, stop) for start, stop in runs if start < stop <= self.num_samples]

    def list_swaps(self) -> list[tuple[int, int]]:
        """Return (row, sample id) of the rows that are of another sample than was planned."""
        swaps = []
        for start, stop in self.list_filled():
            path = self.folder / _FILLED / f"{start}-{stop}"
            try:
                with refusing_unreadable(path, _REMEDY):
                    noted = msgspec.json.decode(read_own(path, _MAX_NOTE_BYTES), type=_Note)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path} cannot be read ({error}); {_REMEDY}") from None
            if any(not start <= row < stop for row, _ in noted):
                raise InputError(f"{path} is of other rows than it is named by; {_REMEDY}")
            swaps += noted
        return swaps

    def publish(self, sample_ids: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Finish the folder: headers, ids, labels, and last what they are of."""
        if not self.path.is_file():
            raise InputError(f"{self.path} is absent, and noted to be filled; {_REMEDY}")
        row_bytes, rest = divmod(self.path.stat().st_size - _HEADER_BYTES, self.num_samples)
        num_features, odd = divmod(row_bytes, self.dtype.itemsize)
        if rest or odd or not 1 <= num_features <= _MAX_FEATURES:
            raise InputError(f"{self.path} has the wrong size; {_REMEDY}")
        header = io.BytesIO()
        outline = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.num_samples, num_features),
        }
        np.lib.format.write_array_header_1_0(header, outline)
        if len(header.getvalue()) != _HEADER_BYTES:
            raise AssertionError(f"numpy's header has {len(header.getvalue())} bytes")
        with naming_file(self.path), open_own(self.path, "r+b") as file:
            file.write(header.getvalue())
            os.fsync(file.fileno())
        for name, array in ((_IDS, sample_ids), (_LABELS, labels)):
            content = io.BytesIO()
            np.save(content, array)
            publish_bytes(self.folder / name, content.getvalue())
        manifest = {
            "version": VERSION,
            "key": dataclasses.asdict(self.key),
            "num_samples": self.num_samples,
            "num_features": num_features,
        }
        publish_bytes(self.folder / MANIFEST_NAME, json.dumps(manifest, indent=1).encode())
        shutil.rmtree(self.folder / _FILLED, ignore_errors=True)
        sync_folder(self.folder)
