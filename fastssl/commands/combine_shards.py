"""Merge datasets, or take a part of one, without writing a shard again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..counts import spell_number
from ..shards.derive.combine import CombineConfig, CombineReport, combine
from ..shards.derive.select import Selection
from .frame import parse_arguments, progress_bar, refuse_repeated


@dataclass(frozen=True)
class CombineShards:
    """Merge datasets, or take a part of them.

    The shards are linked, not copied; OUT gets an index, a manifest and a digest of its own.
    """

    out: Path
    """Folder of the new dataset; must be new or empty."""
    datasets: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DATASET [DATASET ...]")]
    """One dataset to take a part of, or several to merge; sample ids follow this order."""
    classes: tuple[str, ...] = ()
    """Keep the samples of these classes."""
    ids: Path | None = None
    """Keep the samples whose ids this text file lists, one a line, counted from 0 through the
    datasets in their order."""
    sources: Path | None = None
    """Keep the samples whose source (the path that they were made from) is in this text list or
    table (.csv, .tsv, .parquet)."""
    path_column: str = "path"
    """Column of the table of sources that holds them."""
    merge_classes: bool = False
    """Unite class lists that differ, by name: the first dataset's labels stay, new names follow."""
    drop_empty_classes: bool = False
    """Take classes without a sample out of the class list and number the others anew."""
    drop_targets: tuple[str, ...] = ()
    """Leave these targets behind; any other has to be in all datasets."""
    link: Literal["hard", "symbolic"] = "hard"
    """hard: the shards live as long as any dataset names them; needs one file system. symbolic:
    the datasets have to stay where they are."""


def describe(report: CombineReport, out: Path) -> str:
    """Return the summary for the screen."""
    is_part = report.num_available != report.samples
    share = f"{report.samples:,} of " if is_part else ""
    return (
        f"{out}: {share}{spell_number(report.num_available, 'sample')} in "
        f"{spell_number(report.num_shards, 'linked shard')}, "
        f"{spell_number(report.num_classes, 'class', 'classes')}, digest {report.digest[:12]}"
    )


def main(arguments: Sequence[str]) -> None:
    """Combine, with a progress bar, and report."""
    command = parse_arguments(CombineShards, arguments)
    for option in ("--classes", "--drop-targets"):
        refuse_repeated(arguments, option)
    selection = Selection(command.ids, command.classes, command.sources, command.path_column)
    config = CombineConfig(
        command.datasets,
        command.out,
        selection,
        command.merge_classes,
        command.drop_empty_classes,
        command.drop_targets,
        command.link,
    )
    with progress_bar("combine") as advance:
        report = combine(config, advance)
    print(describe(report, command.out))
