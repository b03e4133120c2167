"""Compute or take over where on its pictures objects might be, for Fast R-CNN.

Example: fastssl proposals voc07-trainval voc07-trainval-search --workers 8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..address import parse_place
from ..counts import spell_number
from ..errors import InputError
from ..fields import NumWorkers
from ..proposals.make import ProposalsReport, find_target, search_dataset, take_from_files
from ..proposals.search import SearchSettings
from .frame import parse_arguments, progress_bar, refuse_repeated


@dataclass(frozen=True)
class Proposals(SearchSettings):
    """Compute proposals of every picture of a dataset, or take them from files."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = ""
    """Folder that make-shards wrote, or its address in an object store."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")] = Path()
    """Folder in which proposals.npy is written, and proposals.json that says of what."""
    method: Literal["selective_search", "file"] = "selective_search"
    """selective_search computes them with OpenCV; file takes those of --file."""
    file: tuple[Path, ...] = ()
    """Files of proposals: .mat as published with Fast R-CNN, .json or .csv by pictures' names."""
    workers: NumWorkers = None
    """Worker processes of the search; None: the CPUs that this process may use."""

    def check(self) -> None:
        """See that method and files fit."""
        if (self.method == "file") != bool(self.file):
            wanted = "names no file" if self.method == "file" else "takes none"
            raise InputError(f"--method {self.method} and --file: the method {wanted}")


def describe(report: ProposalsReport, out: Path) -> str:
    """Return the summary for the screen."""
    mean = report.proposals / max(report.pictures, 1)
    lines = [
        f"{out}: {spell_number(report.proposals, 'proposal')} of "
        f"{spell_number(report.pictures, 'picture')}, {mean:,.0f} in the mean and {report.most:,} "
        "at the most"
    ]
    odd = {
        "pictures have none": report.without,
        "pictures of the files are not in the dataset": report.unknown,
        "proposals were cut at the border of their picture": report.clipped,
        "were left out: no pixel of theirs lies in the picture": report.empty,
    }
    return "\n".join([*lines, *(f"{count:,} {what}" for what, count in odd.items() if count)])


def main(arguments: Sequence[str]) -> None:
    """Make them, with a progress bar, and say what was made."""
    refuse_repeated(arguments, "--file")
    command = parse_arguments(Proposals, arguments)
    place, out = parse_place(command.dataset), find_target(command.out)
    settings = SearchSettings(command.mode, command.side, command.max_proposals)
    with progress_bar("proposals") as advance:
        if command.method == "file":
            most = command.max_proposals
            report = take_from_files(place, out, command.file, most, advance)
        else:
            report = search_dataset(place, out, settings, command.workers, advance)
    print(describe(report, out))
