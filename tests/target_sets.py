"""Datasets that have targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastssl.shards.index import HEADER_BYTES, INDEX_NAME, IndexHeader
from fastssl.shards.manifest import MANIFEST_NAME, read_manifest
from fastssl.shards.targets import TargetSpec, write_target


def add_targets(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a dataset targets in the place of those that it has, and the digest that follows."""
    entries = tuple(
        write_target(path, TargetSpec(name, str(rows.dtype), rows.shape[1:]), len(rows), [rows])
        for name, rows in arrays.items()
    )
    manifest = replace(read_manifest(path), targets=entries)
    digest = manifest.begin_digest()
    rows = (path / INDEX_NAME).read_bytes()[HEADER_BYTES:]
    digest.update(rows)
    header = IndexHeader(manifest.num_samples, digest.hexdigest())
    (path / INDEX_NAME).write_bytes(header.pack() + rows)
    (path / MANIFEST_NAME).write_text(replace(manifest, digest=header.digest).to_json())
