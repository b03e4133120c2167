"""Find the entry points of a dataset's JPEGs, so that crops are decoded from the middle on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..address import parse_place
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, NumWorkers
from ..shards.making.entry_points import EntryPointsReport, add_entry_points
from .frame import check_json_path, parse_arguments, progress_bar


@dataclass(frozen=True)
class AddEntryPoints(Checked):
    """Find the entry points of a dataset's JPEGs and put them beside its index (docs/shards.md).

    make-shards and index-tars do it by themselves. No image is touched, and the dataset stays the
    same for every run.
    """

    dataset: Path
    """Folder of the dataset."""
    workers: NumWorkers = None
    """Worker processes; None: the CPUs that this process may use."""
    json: Path | None = None
    """Write the report as JSON to this file."""


def describe(report: EntryPointsReport, dataset: Path) -> str:
    """Return the summary for the screen."""
    if not report.written:
        return (
            f"{dataset}: none of {spell_number(report.samples, 'image')} gains by entry points; "
            "none are kept"
        )
    share = report.bytes_out / report.bytes_in
    return (
        f"{dataset}: entry points of {report.written:,} of "
        f"{spell_number(report.samples, 'image')}, {report.bytes_out / 1e6:,.2f} MB, {share:.2%} "
        "of the images' bytes"
    )


def main(arguments: Sequence[str]) -> None:
    """Find them, with a progress bar, and report."""
    command = parse_arguments(AddEntryPoints, arguments)
    check_json_path(command.json)
    place = parse_place(command.dataset)
    if isinstance(place, str):
        raise InputError(
            f"{place}: entry points lie beside the index; find them where the dataset is in a "
            "folder, before it is uploaded"
        )
    with progress_bar("entry points") as advance:
        report = add_entry_points(place, command.workers, advance)
    if command.json is not None:
        command.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    print(describe(report, command.dataset))
