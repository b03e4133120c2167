"""Pages that tell what runs did and what trunks are worth: HTML alone, no network, no script."""

from __future__ import annotations

from .entries import Entry, prepare
from .page import Comparison, Report, write_report
from .pieces import spell_number
from .study_page import ResultsReport, write_results

__all__ = [
    "Comparison",
    "Entry",
    "Report",
    "ResultsReport",
    "prepare",
    "spell_number",
    "write_report",
    "write_results",
]
