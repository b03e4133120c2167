"""Measure a memory bank beside the step of the half networks that it serves.

Two sides in turn, in one process: the memory's part of a step (draw the negatives, look them up,
loss, gradient by the features, update of the rows), and the step of the half networks on the same
number of images without it (forward, backward, Adam). The ratio of the seconds is the median of the
rounds' own; that of the processor's seconds does not depend on what else the machine does. The rows
are in memory once: how much the process grew beyond them is measured too.

Example: fastssl bench-bank --rows 400000 --json bank.json
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch.nn import functional

from ..commands.frame import check_json_path, parse_arguments
from ..counts import spell_number
from ..fields import Checked, Count, NumThreads, Range, Rounds
from ..models import build_trunk
from ..tasks.memory_bank import NUM_VIEWS, MemoryBank
from ..world import World
from .harness import compare, describe_device, run_rounds, summarize, write_result
from .memory import MB, read_status


@dataclass(frozen=True)
class BenchBank(Checked, prefix="bench."):
    """What to measure, and how often; the defaults are CMC's with ResNet9."""

    rows: Count = 400_000
    """Samples of the dataset."""
    negatives: Count = 8192
    """Negatives of each sample."""
    trunk: str = "resnet9_halves"
    """Half networks; their features are those of the rows."""
    width: Annotated[int, Range(1, 64)] = 4
    """Of the trunk."""
    size: Annotated[int, Range(8, 1024)] = 64
    """Side of the images in pixels."""
    batch_size: Annotated[int, Range(2, 65_536)] = 16
    """Images of a step."""
    rounds: Rounds = 5
    """Rounds, at least 3; each measures both sides once."""
    threads: NumThreads = 0
    """Threads; 0 takes torch's."""
    json: Path | None = None
    """File for the results."""


def build_bank_step(options: BenchBank, num_features: int) -> tuple[MemoryBank, Callable[[], None]]:
    """Return a memory, and what it does in a step.

    Args:
        options: the sizes.
        num_features: of one view.
    """
    bank = MemoryBank(num_features, options.negatives, 0.1, 0.2, seed=0)
    bank.open(options.rows, World(0, 1, torch.device("cpu"), None))
    features = torch.randn(options.batch_size, NUM_VIEWS, num_features)
    features = functional.normalize(features, dim=-1).requires_grad_()
    is_kept = torch.tensor(True)

    def step() -> None:
        draws = bank.draw(torch.randint(options.rows, (options.batch_size,)))
        features.grad = None
        contrast = bank.contrast(features, draws["ids"], draws["negatives"])
        contrast.losses_BV.sum(1).mean().backward()
        bank.end_step(is_kept)

    return bank, step


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write the file."""
    options = parse_arguments(BenchBank, arguments)
    check_json_path(options.json)
    if options.threads:
        torch.set_num_threads(options.threads)
    trunk = build_trunk(options.trunk, options.width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(trunk.parameters())
    images = torch.randn(options.batch_size, 3, options.size, options.size)
    images = images.to(memory_format=torch.channels_last)

    def train() -> None:
        optimizer.zero_grad()
        trunk(images).square().sum().backward()
        optimizer.step()

    def timed(step: Callable[[], None]) -> tuple[float, float]:
        began, began_cpu = time.perf_counter(), time.process_time()
        step()
        return time.perf_counter() - began, time.process_time() - began_cpu

    train()  # its memory is not the bank's
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    bank, look_up = build_bank_step(options, trunk.num_features // NUM_VIEWS)
    look_up()
    grown = read_status("VmHWM") - before
    assert bank.table is not None
    rows = bank.table.rows
    num_bytes = rows.numel() * rows.element_size()
    rounds = run_rounds(
        {"bank": lambda: timed(look_up), "trunk": lambda: timed(train)}, options.rounds
    )
    content = {
        **describe_device(torch.device("cpu")),
        **{name: getattr(options, name) for name in ("rows", "negatives", "trunk", "batch_size")},
        "features": trunk.num_features // NUM_VIEWS,
        "row_bytes": num_bytes,
        "grown_bytes": grown,
    }
    print(
        f"{content['machine']}, torch {content['torch']}, "
        f"{spell_number(content['threads'], 'thread')}; {spell_number(options.rows, 'row')} of 2 x "
        f"{content['features']}: {num_bytes / MB:.0f} MB, the process grew by {grown / MB:.0f} MB "
        "at most"
    )
    for kind, what in enumerate(("seconds", "cpu_seconds")):
        bank_s, trunk_s = ([times[kind] for times in rounds[key]] for key in ("bank", "trunk"))
        ratio = compare(bank_s, trunk_s)
        for name, figure in (
            (f"bank_{what}", summarize(bank_s)),
            (f"trunk_{what}", summarize(trunk_s)),
            (f"ratio_of_{what}", ratio),
        ):
            content |= {name: figure.median, f"{name}_spread": figure.spread}
            print(f"{name:20} {figure.median:.4f} ({figure.least:.4f}-{figure.greatest:.4f})")
    write_result(options.json, content)
