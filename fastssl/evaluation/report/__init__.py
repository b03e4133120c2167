"""Pages that tell what runs did and what trunks are worth: HTML alone, no network, no script."""

from __future__ import annotations

from .entries import Entry, prepare
from .page import Comparison, Report, write_report
from .study_page import ResultsReport, write_results

__all__ = [
    "Comparison",
    "Entry",
    "Report",
    "ResultsReport",
    "prepare",
    "write_report",
    "write_results",
]
