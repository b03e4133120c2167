"""Datasets over tars and zips that stay where they are, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastssl.shards.making.in_place import IndexReport, IndexTarsConfig, index_tars


def index(out: Path, *given: object, **options: Any) -> IndexReport:
    """Index tars or zips, by path or address, with one worker."""
    return index_tars(IndexTarsConfig(tuple(map(str, given)), out, workers=1, **options))
