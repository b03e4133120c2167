"""A page that tells what a run did: self-contained HTML, no network, no script."""

from __future__ import annotations

from ...runs.read import Run, read_run
from .page import Comparison, Report, write_report

__all__ = ["Comparison", "Report", "Run", "read_run", "write_report"]
