"""Targets of several datasets brought together: rows that are kept, columns of classes moved.

Shape legend: N samples of all datasets together, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, nearest
from ...system.files import sha256_of
from ..reader import ShardDataset
from ..targets import (
    LABELS,
    NO_OBJECT,
    NOT_COUNTED,
    OBJECTS,
    PRESENT,
    TargetEntry,
    TargetSpec,
    write_target,
)

LabelMap = tuple[int, ...] | None
"""New label by old label, -1 for a class that is dropped; None: equal."""
_BYTES_AT_ONCE = 1 << 26


def unite_targets(
    datasets: Sequence[ShardDataset], num_classes: int, dropped: Sequence[str]
) -> list[TargetSpec]:
    """Say which targets datasets have together.

    Args:
        datasets: at least one.
        num_classes: C of all together.
        dropped: names of targets to leave behind.

    Returns:
        The targets, sorted by name.

    Raises:
        InputError: if one is not in all of them or not the same in all, or a dropped one is in
            none.
    """
    names = sorted({name for dataset in datasets for name in dataset.targets})
    for name in dropped:
        if name not in names:
            tail = nearest(name, names) if names else "; the datasets have no targets"
            raise InputError(f"--drop-targets: no target {name!r}{tail}")
    return [_unite_one(name, datasets, num_classes) for name in names if name not in dropped]


def _unite_one(name: str, datasets: Sequence[ShardDataset], num_classes: int) -> TargetSpec:
    remedy = f"leave it behind by --drop-targets {name}, or convert one of them again"
    lacking = [dataset for dataset in datasets if name not in dataset.targets]
    if lacking:
        owner = next(dataset for dataset in datasets if name in dataset.targets)
        raise InputError(
            f"{lacking[0].folder}: no target {name!r}, {owner.folder} has it; {remedy}"
        )
    first, *others = (_spec_of(dataset, name) for dataset in datasets)
    if name == LABELS:  # its columns are moved to where the classes go
        return replace(first, row_shape=(num_classes,))
    if name == OBJECTS:  # every picture has the room of the one with the most
        most = max(spec.row_shape[0] for spec in (first, *others))
        return replace(first, row_shape=(most, *first.row_shape[1:]))
    for dataset, spec in zip(datasets[1:], others, strict=True):
        if spec != first:
            raise InputError(
                f"target {name!r} is {first.describe()} in {datasets[0].folder}, "
                f"{spec.describe()} in {dataset.folder}; {remedy}"
            )
    return first


def _spec_of(dataset: ShardDataset, name: str) -> TargetSpec:
    return next(entry.spec for entry in dataset.manifest.targets if entry.name == name)


def check_targets(dataset: ShardDataset) -> None:
    """See that targets are what was written: a changed one must not get a SHA-256 that fits it.

    Raises:
        InputError: if one is not.
    """
    for entry in dataset.manifest.targets:
        path = dataset.folder / entry.file_name
        if sha256_of(path) != entry.sha256:
            raise InputError(
                f"{path}: changed: its SHA-256 is not the one in the "
                "manifest; restore it, or make the dataset again"
            )


def count_present(dataset: ShardDataset, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return in how many of the kept samples each of a dataset's classes is present: int64 (C,)."""
    counts = np.zeros(len(dataset.class_names), np.int64)
    for rows in _kept_rows(dataset, LABELS, kept):
        counts += (rows == PRESENT).sum(axis=0)
    return counts


def write_targets(
    folder: Path,
    specs: Sequence[TargetSpec],
    datasets: Sequence[ShardDataset],
    label_maps: Sequence[LabelMap],
    kept: NDArray[np.bool_],
) -> tuple[TargetEntry, ...]:
    """Write the targets of a dataset that is made of datasets.

    Args:
        folder: of the new one.
        specs: from ``unite_targets``.
        datasets: counted through in this order.
        label_maps: of each dataset.
        kept: (N,) samples to take.

    Returns:
        What its manifest shall list.
    """
    starts = np.cumsum([0, *(dataset.num_samples for dataset in datasets)])

    def rows_of(spec: TargetSpec) -> Iterator[np.ndarray]:
        for i, (dataset, label_map) in enumerate(zip(datasets, label_maps, strict=True)):
            for rows in _kept_rows(dataset, spec.name, kept[starts[i] : starts[i + 1]]):
                move = _MOVES.get(spec.name)
                yield rows if move is None else move(rows, label_map, spec.row_shape[0])

    num_samples = int(kept.sum())
    return tuple(write_target(folder, spec, num_samples, rows_of(spec)) for spec in specs)


def _kept_rows(dataset: ShardDataset, name: str, kept: NDArray[np.bool_]) -> Iterator[np.ndarray]:
    """Yield the kept rows of a target, some at once."""
    rows = dataset.targets[name]
    step = max(1, _BYTES_AT_ONCE // _spec_of(dataset, name).row_bytes)
    for start in range(0, len(rows), step):
        yield np.asarray(rows[start : start + step])[kept[start : start + step]]


def _move_columns(rows: np.ndarray, label_map: LabelMap, num_classes: int) -> np.ndarray:
    """Put the columns of classes where their labels go; nobody looked for a class that is new."""
    numbers = np.arange(rows.shape[1]) if label_map is None else np.array(label_map)
    moved = np.full((len(rows), num_classes), NOT_COUNTED, rows.dtype)
    moved[:, numbers[numbers >= 0]] = rows[:, numbers >= 0]
    return moved


def _move_objects(rows: np.ndarray, label_map: LabelMap, most: int) -> np.ndarray:
    """Give objects their new classes, without those of dropped ones, and their rows the room."""
    moved = np.full((len(rows), most, len(NO_OBJECT)), NO_OBJECT, rows.dtype)
    moved[:, : rows.shape[1]] = rows
    if label_map is not None:
        # One place more: -1, no object, finds it from behind and stays -1.
        moved[..., 4] = np.array([*label_map, -1])[moved[..., 4].astype(np.int64)]
        moved[moved[..., 4] < 0] = NO_OBJECT
        order = np.argsort(moved[..., 4] < 0, axis=1, kind="stable")
        moved = np.take_along_axis(moved, order[..., None], axis=1)
    return moved


_MOVES = {LABELS: _move_columns, OBJECTS: _move_objects}
