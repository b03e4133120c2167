"""Check that a dataset is what was written: sizes, digests, structure, every image's CRC-32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..address import parse_place
from ..counts import spell_number
from ..errors import EXIT_ELSE, InputError
from ..fields import Checked, NumWorkers
from ..shards.derive.verify import CheckReport, verify_dataset
from .frame import check_json_path, parse_arguments, progress_bar

_SHOWN_ERRORS = 20


@dataclass(frozen=True)
class CheckShards(Checked):
    """Check sizes, digests, structure and the CRC-32 of every image."""

    dataset: Path
    """Folder of the dataset."""
    deep: bool = False
    """Decode every image too, and compare its size and kind with the index."""
    workers: NumWorkers = None
    """Worker processes; None: the CPUs that this process may use."""
    json: Path | None = None
    """Write the report as JSON to this file."""


def describe(report: CheckReport, dataset: Path) -> str:
    """Return the summary for the screen."""
    if report.ok:
        return f"{dataset}: {spell_number(report.samples, 'sample')}, nothing is wrong"
    lines = [
        f"{dataset}: {spell_number(len(report.errors), 'error')} in "
        f"{spell_number(report.samples, 'sample')}"
    ]
    for fault in report.errors[:_SHOWN_ERRORS]:
        lines.append(f"  {fault.shard} {fault.key or '-'}: {fault.reason}")
    if len(report.errors) > _SHOWN_ERRORS:
        lines.append(f"  and {len(report.errors) - _SHOWN_ERRORS:,} more (--json FILE lists all)")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Check, with a progress bar, and report."""
    command = parse_arguments(CheckShards, arguments)
    check_json_path(command.json)
    place = parse_place(command.dataset)
    if isinstance(place, str):
        raise InputError(
            f"{place}: every byte of the shards is read; check the dataset in a folder, before it "
            "is uploaded or on a machine beside the store (loaders check each image as they read)"
        )
    with progress_bar("check") as advance:
        report = verify_dataset(command.dataset, command.deep, command.workers, advance)
    if command.json is not None:
        command.json.write_text(report.to_json())
    print(describe(report, command.dataset))
    if not report.ok:
        raise SystemExit(EXIT_ELSE)
