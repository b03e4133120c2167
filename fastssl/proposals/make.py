"""Make the proposals of a dataset: searched by workers, part by part, or taken from files.

Shape legend: N samples of the dataset, P proposals of a picture.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..shards import BadSample, ShardDataset, open_dataset
from ..shards.target_files import write_target_file
from ..shards.targets import TargetSpec
from ..system.cpus import available_cpus
from ..system.files import (
    check_own_folder,
    locked,
    make_folder,
    naming_file,
    publish_bytes,
    sha256_of,
)
from ..system.signals import stopping_on_signals
from ..system.workers import Progress, Report, run_jobs, say_nothing
from .files import Found, read_proposals
from .search import SearchSettings, require_search, search_picture

NAME = "proposals"
"""What batches carry them as."""

_PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class ProposalsReport:
    """What was made."""

    pictures: int
    """Of the dataset."""
    proposals: int
    """Of all of them together."""
    most: int
    """P, of one picture."""
    without: int
    """Pictures that have none."""
    clipped: int = 0
    """Of files: proposals that were cut at the border of their picture."""
    empty: int = 0
    """Of files: proposals left out, since no pixel of theirs lies in the picture."""
    unknown: int = 0
    """Of files: pictures that are not in the dataset."""


def find_target(out: Path) -> Path:
    """Return the file that proposals are written to.

    Args:
        out: the file, ``proposals.npy``, or the folder for it.

    Raises:
        InputError: for a file of another name.
    """
    path = out if out.suffix == ".npy" else out / f"{NAME}.npy"
    if path.stem != NAME:
        raise InputError(
            f"OUT ({out}) must be named {NAME}.npy, by which batches carry it; name a folder, or "
            "that file in one"
        )
    return path


def search_dataset(
    place: str | Path,
    out: Path,
    settings: SearchSettings,
    workers: int | None = None,
    on_progress: Progress = say_nothing,
) -> ProposalsReport:
    """Compute the proposals of every picture; whatever ends it, the same call goes on.

    Args:
        place: of the dataset.
        out: from ``find_target``.
        settings: how.
        workers: processes; None takes the CPUs that this process may use.
        on_progress: told of pictures.

    Returns:
        What was made.

    Raises:
        InputError: if the search cannot be done here, or ``out`` holds something else.
        RunFailed: if a picture cannot be read.
        StoppedBySignal: on SIGTERM or SIGINT.
    """
    version = require_search()
    about = {"method": "selective_search", **asdict(settings), "opencv": version}
    with contextlib.closing(open_dataset(place)) as dataset:
        building = _find_building(out)
        message = f"finished pictures are kept in {building}; the same command goes on"
        make_folder(out.parent, "OUT", out)
        check_own_folder(building)
        if is_finished(out, dataset, about):
            shutil.rmtree(building, ignore_errors=True)
            return _report(_read_rows(out))
        with stopping_on_signals(message), naming_file(out):
            make_folder(building, "OUT", out)
            busy = f"{out}: another fastssl proposals is at work on it; wait for it or stop it"
            with locked(building / "lock", busy):
                _check_same(building, {"dataset_digest": dataset.digest, **about})
                _search_parts(dataset, building, settings, workers, on_progress)
                paths = [_part_path(building, ids) for ids in _list_parts(dataset)]
                report = _report(map(_read_part, paths))
                spec = TargetSpec(NAME, "float32", (report.most, 4))
                parts = (_pad(_read_part(path), report.most) for path in paths)
                write_target_file(out, spec, dataset, parts, about)
            shutil.rmtree(building)
    return report


def take_from_files(
    place: str | Path,
    out: Path,
    files: Sequence[Path],
    max_proposals: int,
    on_progress: Progress = say_nothing,
) -> ProposalsReport:
    """Take the proposals of a dataset's pictures from files.

    Args:
        place: of the dataset.
        out: from ``find_target``.
        files: as ``read_proposals`` takes them; no picture may stand in two.
        max_proposals: of a picture that are kept, the first.
        on_progress: told of pictures.

    Returns:
        What was made.

    Raises:
        InputError: if a file is none, is of another dataset, or ``out`` holds something else.
    """
    found: Found = {}
    for path in files:
        more = read_proposals(path)
        if doubled := found.keys() & more.keys():
            raise InputError(f"--file {path}: {min(doubled)!r} stands in another file too")
        found |= more
    about = {
        "method": "file",
        "max_proposals": max_proposals,
        "files": {path.name: sha256_of(path) for path in files},
    }
    with contextlib.closing(open_dataset(place)) as dataset:
        make_folder(out.parent, "OUT", out)
        if is_finished(out, dataset, about):
            return _report(_read_rows(out))
        taken = _Taken(dataset, found)
        on_progress(0, len(dataset))
        rows = []
        for sample_id in range(len(dataset)):
            rows.append(taken.take(sample_id)[:max_proposals])
            on_progress(1, len(dataset))
        unknown = len(found.keys() - taken.names)
        if unknown == len(found):
            raise InputError(
                f"--file {files[0]}: none of {spell_number(len(found), 'picture')} in it (the "
                f"first: {min(found, default='')!r}) is in {dataset.path}; are they of another set?"
            )
        most = max(1, *map(len, rows))
        spec = TargetSpec(NAME, "float32", (most, 4))
        write_target_file(out, spec, dataset, (_pad([one], most) for one in rows), about)
    total = sum(map(len, rows))
    without = sum(not len(one) for one in rows)
    return ProposalsReport(
        len(rows), total, most, without, taken.num_clipped, taken.num_empty, unknown
    )


def is_finished(out: Path, dataset: ShardDataset, about: Mapping[str, Any]) -> bool:
    """Tell whether proposals are there already.

    Raises:
        InputError: if there is something else.
    """
    beside = out.with_suffix(".json")
    if not out.exists() and not beside.exists():
        return False
    try:
        said = json.loads(beside.read_bytes())
    except FileNotFoundError:
        if _find_building(out).is_dir():
            return False  # killed between the array and what says so
        said = None
    except ValueError:
        said = None
    wanted = {"dataset_digest": dataset.digest, **about}
    if isinstance(said, dict) and {k: v for k, v in said.items() if k != "sha256"} == wanted:
        return out.exists()
    raise InputError(
        f"OUT ({out}) is there already, of another dataset, method or option, or half written; "
        "choose another folder, or remove it"
    )


# --- The search -----------------------------------------------------------------------------------


def _find_building(out: Path) -> Path:
    """Return the folder that a search keeps its parts in."""
    return out.with_name(f".{out.stem}.building")


def _part_path(building: Path, ids: range) -> Path:
    return building / f"part-{ids.start:09d}.npz"


def _check_same(building: Path, wanted: dict[str, Any]) -> None:
    """See that what was begun here is what is wanted, or begin it."""
    path = building / "plan.json"
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        publish_bytes(path, json.dumps(wanted).encode("ascii"))
        return
    names = [name for name in {**before, **wanted} if before.get(name) != wanted.get(name)]
    if names:
        differences = "; ".join(f"{n} was {before.get(n)}, now {wanted.get(n)}" for n in names)
        raise InputError(
            f"{building}: holds a search that cannot be gone on with: {differences}; repeat the "
            "first options, or remove it"
        )


def _list_parts(dataset: ShardDataset) -> list[range]:
    """Return the ids of the samples of each part."""
    total = len(dataset)
    starts = range(0, total, _PICTURES_AT_ONCE)
    return [range(start, min(start + _PICTURES_AT_ONCE, total)) for start in starts]


def _search_parts(
    dataset: ShardDataset,
    building: Path,
    settings: SearchSettings,
    workers: int | None,
    on_progress: Progress,
) -> None:
    total = len(dataset)
    waiting = [ids for ids in _list_parts(dataset) if not _part_path(building, ids).exists()]
    on_progress(total - sum(map(len, waiting)), total)
    jobs = run_jobs(
        functools.partial(search_part, dataset=dataset, building=building, settings=settings),
        waiting,
        workers or available_cpus(),
        on_progress=lambda count: on_progress(count, total),
        describe=lambda ids: f"samples {ids.start} to {ids.stop - 1}",
    )
    for _ in jobs:
        pass


def search_part(
    ids: range, report: Report, dataset: ShardDataset, building: Path, settings: SearchSettings
) -> None:
    """Search the pictures of a part, and write down what was found; runs in a worker process.

    Args:
        ids: of its samples.
        report: called with 1 for each.
        dataset: whose they are.
        building: where what is found is kept.
        settings: how.

    Raises:
        RunFailed: if a picture cannot be read.
    """
    found = []
    for sample_id in ids:
        try:
            picture = dataset.decode(sample_id, dataset.read_payload(sample_id))
        except BadSample as bad:
            raise _fail(dataset, bad) from None
        found.append(search_picture(picture, settings))
        report(1)
    content = io.BytesIO()
    np.savez(content, counts=[len(rows) for rows in found], boxes=np.concatenate(found))
    publish_bytes(_part_path(building, ids), content.getvalue())


def _fail(dataset: ShardDataset, bad: BadSample) -> RunFailed:
    return RunFailed(f"{dataset.path}: {bad}; see what else is wrong: fastssl check-shards")


def _read_part(path: Path) -> list[NDArray[np.float32]]:
    """Return the proposals of the pictures of a part."""
    with np.load(path, allow_pickle=False) as part:
        return np.split(part["boxes"], np.cumsum(part["counts"])[:-1])


def _read_rows(out: Path) -> Iterator[list[NDArray[np.float32]]]:
    """Yield what a finished file holds."""
    for row in np.load(out, mmap_mode="r", allow_pickle=False):
        yield [row[row.any(axis=1)]]


def _report(parts: Iterable[Sequence[NDArray[np.float32]]]) -> ProposalsReport:
    counts = [len(rows) for rows in itertools.chain.from_iterable(parts)]
    return ProposalsReport(len(counts), sum(counts), max(1, *counts), counts.count(0))


def _pad(rows: Sequence[NDArray[np.float32]], most: int) -> NDArray[np.float32]:
    """Return proposals of some pictures as (n, P, 4)."""
    padded = np.zeros((len(rows), most, 4), np.float32)
    for target, boxes in zip(padded, rows, strict=True):
        target[: len(boxes)] = boxes
    return padded


# --- Files ----------------------------------------------------------------------------------------


class _Taken:
    """Finds the proposals of samples by the names of their pictures, and counts what is odd."""

    def __init__(self, dataset: ShardDataset, found: Found) -> None:
        self._dataset = dataset
        self._found = found
        self.names: set[str] = set()
        """Pictures of the files that are in the dataset."""
        self.num_clipped = self.num_empty = 0

    def take(self, sample_id: int) -> NDArray[np.float32]:
        """Return the proposals of a sample, inside its picture."""
        try:
            said = self._dataset.read_metadata(sample_id)
        except BadSample as bad:
            raise _fail(self._dataset, bad) from None
        name = self._find(str(said.get("source", "")))
        if name is None:
            return np.empty((0, 4), np.float32)
        if name in self.names:
            raise InputError(
                f"{self._dataset.path} has two pictures that the proposals of {name!r} fit; name "
                "pictures by their paths as the samples' JSON has them (source)"
            )
        self.names.add(name)
        row = self._dataset.index[sample_id]
        ends = np.array([row["width"], row["height"]] * 2, np.float64)
        boxes = self._found[name] * self._scale(said, sample_id, ends)
        inside = np.clip(boxes, 0, ends)
        has_pixels = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        self.num_empty += int((~has_pixels).sum())
        self.num_clipped += int(((inside != boxes).any(axis=1) & has_pixels).sum())
        return inside[has_pixels].astype(np.float32)

    def _find(self, source: str) -> str | None:
        base = source.rpartition("/")[2]
        for name in (source, base, base.rpartition(".")[0] or base):
            if name in self._found:
                return name
        return None

    def _scale(self, said: dict, sample_id: int, ends: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how pixels of the picture that was annotated become those of the stored one."""
        if self._dataset.encoding in ("keep", "tiled"):
            return np.ones(4)
        try:
            width, height = map(int, said["boxes_size"])
            return ends / np.array([width, height] * 2, np.float64)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise InputError(
                f"{self._dataset.path} holds copies of other sizes ({self._dataset.encoding}), and "
                f"sample {sample_id} does not say of which (boxes_size), so nobody knows where its "
                "proposals lie; convert the pictures with --encode keep or tiled"
            ) from None
