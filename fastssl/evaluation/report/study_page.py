"""The page of results: tables, the studies' pictures, the course of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...counts import spell_number
from ...runs.facts import Grid
from ...runs.read import Run
from ...system.files import publish_bytes
from .entries import CONTRADICTS, Entry
from .grids import render_grids
from .label_pictures import render_labels
from .page import render_document
from .pictures import render_pictures
from .pieces import section
from .result_tables import render_results
from .training import render_training


@dataclass(frozen=True)
class ResultsReport:
    """What stands on the page."""

    title: str
    """The headline."""
    entries: Sequence[Entry]
    """From ``prepare``: what was measured, and what is published."""
    runs: Sequence[Run] = ()
    """Training runs, each with a name of its own."""
    grids: Sequence[Grid] = ()
    """Tables of the studies, of which those with a filled cell are shown."""
    findings: Mapping[str, str] = field(default_factory=dict)
    """What the studies say of pictures whose numbers they do not print, by the picture's name."""
    lead: str = ""
    """The paragraph below the headline, in place of how many figures there are."""


def write_results(path: Path, report: ResultsReport) -> None:
    """Write the page: one HTML file that needs nothing else.

    Args:
        path: of the file; replaced by rename.
        report: what stands on it.

    Raises:
        OSError: if it cannot be written.
    """
    publish_bytes(path, render_results_page(report).encode("ascii", "xmlcharrefreplace"))


def render_results_page(report: ResultsReport) -> str:
    """Return the page as HTML."""
    ours = [entry for entry in report.entries if not entry.result.is_published]
    sections = []
    if ours:
        sections.append(render_labels(report.entries, report.findings))
        sections.append(render_results(report.entries))
        sections.append(render_pictures(report.entries, report.findings))
        sections.append(render_grids(report.grids, report.entries))
    else:
        words = "No run here has been evaluated yet: fastssl evaluate --help says how."
        sections.append(section("Results", f"<p>{words}</p>"))
    sections.append(render_training(report.runs))
    return render_document(
        "fastssl report", report.title, report.lead or _lead(report, ours), sections
    )


def _lead(report: ResultsReport, ours: Sequence[Entry]) -> str:
    trunks = {entry.trunk for entry in ours}
    said = []
    if ours or not report.runs:
        said.append(f"{spell_number(len(ours), 'figure')} of {spell_number(len(trunks), 'trunk')}")
    if report.runs:
        said.append(f"the course of {spell_number(len(report.runs), 'run')}")
    words = " and ".join(said)
    words = f"{words[0].upper()}{words[1:]}."
    if any(CONTRADICTS in entry.marks for entry in ours):
        words += " Some figures contradict each other: same trunk, data and settings, other values;"
        words += " both stand here, marked."
    return words
