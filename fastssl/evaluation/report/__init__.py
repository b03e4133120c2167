"""A page that tells what a run did: self-contained HTML, no network, no script."""

from __future__ import annotations

from .page import Comparison, Report, write_report

__all__ = ["Comparison", "Report", "write_report"]
