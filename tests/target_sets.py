"""Datasets that have targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fastssl.shards.index import HEADER_BYTES, INDEX_NAME, IndexHeader
from fastssl.shards.making.convert import ConvertConfig, convert
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


NUM, SIDE = 48, 16


def make_set(root: Path, name: str, seed: int) -> Path:
    """Make a dataset of square pictures of three classes, each with what a rendered one has."""
    rng = np.random.default_rng(seed)
    for number in range(NUM):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        path = root / f"{name}-photos" / "abc"[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    convert(ConvertConfig(root / f"{name}-photos", root / name, workers=1))
    arrays = {
        "pose": rng.integers(0, 5, NUM),
        "segmentation": rng.integers(0, 11, (NUM, SIDE, SIDE), np.uint8),
        "depth": rng.uniform(0.5, 3, (NUM, SIDE, SIDE)).astype(np.float16),
    }
    add_targets(root / name, arrays)
    return root / name
