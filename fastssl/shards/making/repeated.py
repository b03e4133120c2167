"""Take samples that repeat an earlier one out of what a conversion's slices have become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..index import ROW
from .duplicates import PRINT, find_repeated
from .plan import ConversionPlan, PlannedEntries
from .slices import SliceRecord, finds_duplicates, prints_path, rows_path


@dataclass(frozen=True)
class Kept:
    """What is left of a slice."""

    record: SliceRecord
    """Its record, with what was taken out among what was left out."""
    mask: NDArray[np.bool_] | None = None
    """Which of the samples in its tar are the dataset's; None: all."""
    stored: int | None = None
    """Samples in its tar where that is more; None: those of the record."""

    def choose(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of samples that stay, of those in the tar."""
        return rows if self.mask is None else rows[self.mask]


def drop_repeated(building: Path, plan: ConversionPlan, records: list[SliceRecord]) -> list[Kept]:
    """Take out what repeats an earlier sample, if that is asked for.

    Args:
        building: the plan's folder, with the prints of all slices.
        plan: the plan.
        records: of its slices.

    Returns:
        What is left of each.
    """
    if not finds_duplicates(plan):
        return [Kept(record) for record in records]
    paths = [prints_path(building, number) for number in range(len(records))]
    prints = np.concatenate([np.fromfile(path, PRINT) for path in paths])
    repeats, is_same = find_repeated(prints, "near-duplicates" in plan.drop)
    positions = np.concatenate(
        [_find_positions(plan, number, record) for number, record in enumerate(records)]
    )
    entries, kept, start = PlannedEntries(building), [], 0
    for number, record in enumerate(records):
        stop = start + record.samples
        gone = start + np.flatnonzero(repeats[start:stop] >= 0)
        skipped = [_tell(entries, positions, repeats, is_same, place) for place in gone.tolist()]
        mask = repeats[start:stop] < 0
        kept.append(_keep(building, number, record, mask, skipped) if skipped else Kept(record))
        start = stop
    return kept


def _find_positions(plan: ConversionPlan, number: int, record: SliceRecord) -> NDArray[np.int64]:
    """Return the positions in the plan of the samples of a slice."""
    start, stop = plan.slice_bounds(number)
    left_out = [entry["position"] for entry in record.skipped]
    return np.setdiff1d(np.arange(start, stop), left_out, assume_unique=True)


def _tell(
    entries: PlannedEntries,
    positions: NDArray[np.int64],
    repeats: NDArray[np.int64],
    is_same: NDArray[np.bool_],
    place: int,
) -> dict[str, object]:
    """Return the line about a sample that is taken out."""
    position, first = int(positions[place]), int(positions[repeats[place]])
    (entry,) = entries.read(position, position + 1)
    (other,) = entries.read(first, first + 1)
    reason, what = (
        ("duplicate", "the same file as") if is_same[place] else ("near-duplicate", "looks like")
    )
    detail = f"{what} {other.name}"
    return {"source": entry.name, "reason": reason, "detail": detail, "position": position}


def _keep(
    building: Path,
    number: int,
    record: SliceRecord,
    mask: NDArray[np.bool_],
    skipped: list[dict[str, object]],
) -> Kept:
    rows = np.fromfile(rows_path(building, number), ROW)[mask]
    left = replace(
        record,
        samples=len(rows),
        num_labelled=int((rows["label"] >= 0).sum()),
        skipped=sorted([*record.skipped, *skipped], key=lambda entry: entry["position"]),
    )
    return Kept(left, mask, record.samples)
