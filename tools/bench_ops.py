"""Measure the compiled operators against the same work in plain PyTorch or NumPy, on this machine.

The two are timed in turn, so that whatever else the machine does meets both; each figure is the
median of the rounds, and the spread of the ratio stands beside it. A ratio carries over to another
machine better than a time; neither is compared with anything but the row's own reference.

Example: python tools/bench_ops.py --rounds 9 --json ops.json
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from fastssl import ops
from fastssl.command import run_command
from fastssl.errors import InputError
from fastssl.ops import reference
from fastssl.sampling import ChunkLayout, SampleOrder, reference_ids

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Options:
    """Measure the compiled operators against plain PyTorch and NumPy."""

    rounds: int = 7
    """Rounds of each row, at least 3; the median counts."""
    batch_size: int = 64
    """Images in a batch of the rows about pixels."""
    threads: int = 0
    """Threads of torch; 0 leaves torch's choice."""
    json: Path | None = None
    """File for the same rows as JSON."""


@dataclass(frozen=True)
class Row:
    """One comparison: the same work by the compiled operator and by its reference."""

    name: str
    unit: str
    """What num_items counts."""
    num_items: int
    """Items that one call works through."""
    compiled: Callable[[], object]
    reference: Callable[[], object]


def build_patches_row(batch_size: int) -> Row:
    """Goyal et al.'s jigsaw: nine patches of 64 px, each made grey or not, normalised, permuted."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (batch_size, 255, 255, 3), dtype=torch.uint8, generator=generator
    )
    cells = torch.tensor([(85 * y, 85 * x) for y in range(3) for x in range(3)], dtype=torch.int32)
    jitter = torch.randint(0, 22, (batch_size, 9, 2), dtype=torch.int32, generator=generator)
    corners = cells + jitter
    flip = torch.rand(batch_size, generator=generator) < 0.5
    grey = torch.rand(batch_size, generator=generator) < 0.3
    order = torch.rand(batch_size, 9, generator=generator).argsort(1)
    shared = (images, corners, 64)
    return Row(
        "extract_patches, 9 x 64 of 255 px, float32",
        "images",
        batch_size,
        lambda: ops.extract_patches(
            *shared, flip_B=flip, grey=grey, order_BP=order, mean=MEAN, std=STD
        ),
        lambda: reference.extract_patches(
            *shared, flip, grey, order, MEAN, STD, False, torch.float32, False
        ),
    )


def build_normalize_row(batch_size: int) -> Row:
    """Whole views of 224 px: mirrored, normalised, laid out for convolutions."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (batch_size, 224, 224, 3), dtype=torch.uint8, generator=generator
    )
    flip = torch.rand(batch_size, generator=generator) < 0.5
    return Row(
        "normalize, 224 px, float32, channels_last",
        "images",
        batch_size,
        lambda: ops.normalize(images, MEAN, STD, flip, channels_last=True),
        lambda: reference.normalize(images, flip, None, MEAN, STD, torch.float32, True),
    )


def build_order_row(order: str) -> Row:
    """Sample ids of a million random places among 100 million samples; the reference is NumPy."""
    count, num_samples, layout = 1_000_000, 100_000_000, ChunkLayout()
    places = np.random.default_rng(0).integers(0, num_samples, count)
    sample_order = SampleOrder("0123456789abcdef", num_samples, order=order)
    chunk_size = layout.chunk_size if order == "chunked" else 0
    return Row(
        f"order_ids, {order}, 100 M samples",
        "ids",
        count,
        lambda: sample_order.ids(0, places),
        lambda: reference_ids(places, num_samples, 1, 2, chunk_size, layout),
    )


def time_call(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(row: Row, rounds: int) -> dict[str, object]:
    """Time a row's two sides in turn.

    Returns:
        The row for the table and the JSON file: items per second of both sides, the median of the
        rounds' ratios, and its least and greatest value.
    """
    # The first call of each pays for memory and thread pools.
    row.compiled(), row.reference()
    times = [(time_call(row.compiled), time_call(row.reference)) for _ in range(rounds)]
    ratios = [slow / fast for fast, slow in times]
    return {
        "name": row.name,
        "unit": row.unit,
        "compiled_per_s": row.num_items / statistics.median(fast for fast, _ in times),
        "reference_per_s": row.num_items / statistics.median(slow for _, slow in times),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    """Measure every row, print the table and write the file."""
    options = tyro.cli(Options, description=__doc__)
    if options.rounds < 3:
        raise InputError(f"--rounds ({options.rounds}) must be at least 3")
    if options.batch_size < 1:
        raise InputError(f"--batch-size ({options.batch_size}) must be at least 1")
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    info = ops.build_info()
    if not info["cpu"]:
        raise InputError(
            "the compiled operators are not built, so there is nothing to compare; install a C++ "
            "compiler and run make bench again"
        )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {info['torch']}"
    print(f"{machine}; median of {options.rounds} rounds, both sides in turn")
    print(f"{'row':46} {'compiled/s':>12} {'reference/s':>12} {'ratio':>7}  spread")
    rows = []
    for row in (
        build_patches_row(options.batch_size),
        build_normalize_row(options.batch_size),
        build_order_row("global"),
        build_order_row("chunked"),
    ):
        result = measure(row, options.rounds)
        rows.append(result)
        print(
            f"{row.name:46} {result['compiled_per_s']:12,.0f} {result['reference_per_s']:12,.0f} "
            f"{result['ratio']:7.2f}  {result['ratio_min']:.2f}-{result['ratio_max']:.2f}"
        )
    if options.json is not None:
        content = {"machine": machine, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    run_command(main)
