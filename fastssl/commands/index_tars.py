"""Make a dataset over WebDataset tars, or zips, that stay where they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..counts import spell_number
from ..shards.making.in_place import IndexReport, IndexTarsConfig, index_tars
from .frame import check_json_path, parse_arguments, progress_bar


@dataclass(frozen=True)
class IndexTars(IndexTarsConfig):
    """Make a dataset over tars or zips that stay where they are (docs/shards.md).

    They are read once and never written: OUT gets an index and a manifest that names them.
    """

    json: Path | None = None
    """Write the report as JSON to this file."""


def describe(report: IndexReport, out: Path) -> str:
    """Return the summary for the screen."""
    left_out = ", ".join(f"{reason} {count}" for reason, count in report.skipped.items())
    labels = f"{report.num_labelled:,} labelled" if report.num_labelled else "no labels"
    return "\n".join(
        (
            f"{out}: {spell_number(report.written, 'sample')} ({labels}) in "
            f"{spell_number(report.num_tars, 'file')} of {report.bytes_in / 1e6:,.1f} MB, which "
            f"stay where they are; {report.bytes_out / 1e6:,.2f} MB were written",
            f"left out: {left_out} (skipped.jsonl)" if left_out else "nothing was left out",
        )
    )


def put_places_last(words: Sequence[str]) -> list[str]:
    """Return a command line with its options first, each with its value.

    The parser takes all places in a row for tars where an option follows them.
    """
    options, places, rest = [], [], iter(words)
    for word in rest:
        if not word.startswith("-"):
            places.append(word)
        elif "=" in word or word in ("-h", "--help"):
            options.append(word)
        else:
            options += [word, *itertools.islice(rest, 1)]
    return [*options, *places]


def main(arguments: Sequence[str]) -> None:
    """Index, with a progress bar, and report."""
    command = parse_arguments(IndexTars, put_places_last(arguments))
    check_json_path(command.json)
    with progress_bar("tars", "B") as advance:
        report = index_tars(command, advance)
    if command.json is not None:
        command.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    print(describe(report, command.out))
