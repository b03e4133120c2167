"""Which samples of datasets to keep: by id, by class, by source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, nearest, nearest_beside
from ..making.sources import open_source
from ..making.tables import TableColumns
from ..reader import ShardDataset
from ..rows import BadSample
from ..targets import LABELS, PRESENT


@dataclass(frozen=True)
class Selection:
    """Samples have to fit all that is given; nothing given keeps every sample."""

    ids: Path | None = None
    """Text file of sample ids, one a line, counted through the datasets in their order."""
    classes: tuple[str, ...] = ()
    """Names of the classes to keep."""
    sources: Path | None = None
    """Text list or table of what to keep, by the ``source`` in each sample's JSON."""
    path_column: str = "path"
    """Column of the table of sources that holds them."""

    def describe(self) -> str:
        """Name the options that were given."""
        given = [f"--{name}" for name in ("ids", "classes", "sources") if getattr(self, name)]
        return " and ".join(given)

    def find(self, datasets: Sequence[ShardDataset], names: Sequence[str]) -> NDArray[np.bool_]:
        """Find the samples to keep.

        Args:
            datasets: counted through in this order; their labels may differ from those of
                ``names``, so classes are matched by each dataset's own names.
            names: classes of all datasets together.

        Returns:
            bool (N,), N samples in all.

        Raises:
            InputError: if an id, a class or a source is not there.
        """
        total = sum(dataset.num_samples for dataset in datasets)
        kept = np.ones(total, bool)
        if self.ids is not None:
            kept &= _mark_ids(self.ids, total)
        if self.classes:
            kept &= _mark_classes(self.classes, datasets, names)
        if self.sources is not None:
            kept &= _mark_sources(self.sources, self.path_column, datasets)
        return kept


def _mark_ids(path: Path, total: int) -> NDArray[np.bool_]:
    marks = np.zeros(total, bool)
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file{nearest_beside(path)}; wanted sample ids, one a line"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path}: no text file; wanted sample ids, one a line") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit()) or int(text[:20]) >= total:
            raise InputError(
                f"{path}: line {number} says {text[:40]!r}, wanted a sample id, 0 .. {total - 1}"
            )
        marks[int(text)] = True
    return marks


def _mark_classes(
    classes: Sequence[str], datasets: Sequence[ShardDataset], names: Sequence[str]
) -> NDArray[np.bool_]:
    for name in classes:
        if name not in names:
            tail = nearest(name, names) if names else "; the datasets have no class names"
            raise InputError(f"--classes: no class {name!r}{tail}")
    marks = []
    for dataset in datasets:
        # One place more: -1, no label, finds it from behind and is not kept.
        wanted = np.array([*(name in set(classes) for name in dataset.class_names), False])
        is_kept = wanted[dataset.index["label"]]
        if LABELS in dataset.targets:
            is_kept |= (dataset.targets[LABELS][:, wanted[:-1]] == PRESENT).any(axis=1)
        marks.append(is_kept)
    return np.concatenate(marks)


def _mark_sources(
    path: Path, path_column: str, datasets: Sequence[ShardDataset]
) -> NDArray[np.bool_]:
    listing = open_source(path, TableColumns(path_column))
    if listing.kind not in ("list", "table"):
        raise InputError(f"{path}: not a list; wanted a text list or a table of sources")
    wanted = {entry.name: False for entry in listing.entries() if entry.problem is None}
    marks = np.zeros(sum(dataset.num_samples for dataset in datasets), bool)
    start = 0
    for dataset in datasets:
        for sample_id in range(dataset.num_samples):
            try:
                source = dataset.read_metadata(sample_id).get("source")
            except BadSample as bad:
                raise InputError(
                    f"{dataset.path}: {bad}; see what else is wrong: fastssl check-shards"
                ) from None
            if isinstance(source, str) and source in wanted:
                wanted[source] = marks[start + sample_id] = True
        start += dataset.num_samples
    absent = [source for source, is_found in wanted.items() if not is_found]
    if absent:
        raise InputError(
            f"{path}: {len(absent):,} of its {len(wanted):,} sources are in none of the datasets "
            f"(the first: {absent[0]!r}); see the `source` in the samples' JSON, or take them out"
        )
    return marks
