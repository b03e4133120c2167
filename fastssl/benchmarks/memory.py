"""Measure what a training step of each trunk takes in memory, and what reversible units pay for it.

Each trunk trains for three steps in a process of its own: forward, backward, SGD with momentum. On
a CPU the figure is the process's peak of resident memory above what it had before there was a trunk
(and after torch's libraries had been used once), with glibc told to give freed memory back, or the
holes in its heap would count; on a GPU it is torch's peak of allocated memory.
Beside it stand the bytes that autograd keeps from the forward pass, and what
``estimate_training_memory`` says without running anything.

The second table is about precision: reversible units see activations that were computed again, so
in float32 their gradients carry a little more error, which grows with the units of a stage.

Example: fastssl bench-memory --batch-size 16 --json memory.json
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..commands.frame import check_json_path, parse_arguments
from ..config import MAX_WIDTH
from ..errors import InputError
from ..fields import Checked, NumThreads, Range
from ..models import build_trunk
from ..models.memory import count_saved_bytes, estimate_training_memory
from ..models.resnet50_v2 import PreActivationBranch
from ..models.reversible import ReversibleStage
from ..models.revnet50 import RevNet50
from .harness import choose_device, describe_device, write_result

MB = 2**20
_STEPS = 3
_PLAIN = "_plain"
"""Behind a reversible trunk's name here: with plain autograd."""


@dataclass(frozen=True)
class BenchMemory(Checked):
    """Measure the memory of a training step, trunk by trunk."""

    trunks: tuple[str, ...] = ("resnet50_v2", "revnet50", "revnet50_plain")
    """Names of trunks; each is compared with the first. A reversible one with _plain behind its
    name keeps its activations."""
    width: Annotated[int, Range(1, MAX_WIDTH)] = 4
    """Of every trunk."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 16
    """Images in a step."""
    side: Annotated[int, Range(1, 1024)] = 224
    """Of the images, in pixels."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs: auto takes a GPU if there is one."""
    threads: NumThreads = 0
    """Threads of torch; 0 leaves torch's choice."""
    units: Annotated[tuple[int, ...], Range(1, 10_000)] = (3, 6, 12, 24, 48)
    """Reversible units of the stages whose precision is measured; none leaves the table out."""
    json: Path | None = None
    """File for the same rows as JSON."""

    def check(self) -> None:
        """Refuse an empty list."""
        if not self.trunks:
            raise InputError("--trunks must name at least one trunk")


def build(name: str, width: int) -> nn.Module:
    """Build a trunk; with _plain behind its name a reversible one keeps its activations."""
    trunk = build_trunk(name.removesuffix(_PLAIN), width)
    if name.endswith(_PLAIN):
        if not isinstance(trunk, RevNet50):
            raise InputError(
                f"--trunks ('{name}') must be reversible to end with {_PLAIN}; say "
                f"{name.removesuffix(_PLAIN)}"
            )
        trunk.recomputes = False
    return trunk


class Step:
    """One training step of a trunk on resident images."""

    def __init__(self, name: str, options: BenchMemory, device: torch.device, side: int) -> None:
        """Build the trunk, its optimiser and images of noise."""
        torch.manual_seed(0)
        self.trunk = build(name, options.width).to(device)
        self.optimizer = torch.optim.SGD(self.trunk.parameters(), lr=1e-3, momentum=0.9)
        channels: Any = self.trunk.in_channels
        self.images = torch.randn(options.batch_size, channels, side, side, device=device)
        self._autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=options.precision == "bf16"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the pre-logits."""
        with self._autocast:
            return self.trunk(images)

    def run(self) -> None:
        """Forward, backward, optimiser."""
        self.optimizer.zero_grad()
        self.forward(self.images).float().square().mean().backward()
        self.optimizer.step()


def read_status(key: str) -> int:
    """Return bytes of a line of /proc/self/status: VmRSS is now, VmHWM the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def measure_step(connection: Connection, name: str, options: BenchMemory, kind: str) -> None:
    """Train in this process and send its peak of memory, and what autograd keeps, in bytes."""
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    device = torch.device(kind)
    # A small step first: libraries and thread pools are no memory of the trunk.
    small = Step(name, options, device, 32 if kind == "cpu" else options.side)
    small.run()
    del small
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        # 5 makes the peak begin anew (proc(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before = read_status("VmRSS")
    step = Step(name, options, device, options.side)
    for _ in range(_STEPS):
        step.run()
    peak = torch.cuda.max_memory_allocated() if kind == "cuda" else read_status("VmHWM")
    saved = count_saved_bytes(Whole(step), step.images)
    connection.send({"peak": peak - before, "saved": saved})


class Whole(nn.Module):
    """A step's forward pass as a module."""

    def __init__(self, step: Step) -> None:
        """Take the step's trunk."""
        super().__init__()
        self.trunk, self._forward = step.trunk, step.forward

    def forward(self, images: Tensor) -> Tensor:
        """Return the pre-logits."""
        return self._forward(images)


def measure(name: str, options: BenchMemory, device: torch.device) -> dict[str, Any]:
    """Measure one trunk in a process of its own.

    Returns:
        The row for the table and the JSON file, in bytes.
    """
    # Every map a mapping of its own; a process reads this when it starts (mallopt(3)).
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure_step, args=(theirs, name, options, device.type))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"the step of '{name}' ended its process (exit code {process.exitcode}); if memory "
            "was short, take a smaller --batch-size, --side or --width"
        ) from None
    process.join()
    row = {"trunk": name, **found}
    if options.precision == "fp32" and not name.endswith(_PLAIN):
        size = options.batch_size, options.side
        row["estimate"] = estimate_training_memory(name, options.width, *size).total
    return row


def pull(stage: ReversibleStage, halves: list[Tensor]) -> Tensor:
    """Return the gradients of halves and parameters as one vector, in float64."""
    inputs = [half.clone().requires_grad_() for half in halves]
    generator = torch.Generator().manual_seed(1)
    outs = stage(*inputs)
    weights = [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outs]
    loss = sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True))
    grads = torch.autograd.grad(loss, [*inputs, *stage.parameters()])
    return torch.cat([grad.double().flatten() for grad in grads])


def measure_precision(num_units: int) -> dict[str, Any]:
    """Compare a stage of float32 units, fresh weights, 2 x 64 channels, with float64.

    Returns:
        Relative errors: of the inputs that the inversion gives back, and of the gradients, with
        activations computed again and with activations kept.
    """
    torch.manual_seed(0)
    branches = [PreActivationBranch(64, 16, 64) for _ in range(num_units)]
    stage = ReversibleStage(branches)
    halves = [torch.randn(8, 64, 14, 14) for _ in range(2)]
    wanted = pull(copy.deepcopy(stage).double(), [half.double() for half in halves])

    def find_error(recomputes: bool) -> float:
        own = copy.deepcopy(stage)
        own.recomputes = recomputes
        return ((pull(own, halves) - wanted).norm() / wanted.norm()).item()

    with torch.no_grad():
        back = torch.stack(stage.invert(*stage(*halves)))
        inputs = torch.stack(halves)
    return {
        "units": num_units,
        "inversion": ((back - inputs).norm() / inputs.norm()).item(),
        "gradient": find_error(True),
        "gradient_plain": find_error(False),
    }


def show_memory(row: dict[str, Any]) -> None:
    """Print one line of the first table."""
    estimate = f"{row['estimate'] / MB:12,.0f}" if "estimate" in row else f"{'':12}"
    print(
        f"{row['trunk']:28} {row['peak'] / MB:10,.0f} {row['ratio']:6.3f} "
        f"{row['saved'] / MB:10,.0f} {row['saved_ratio']:6.3f} {estimate}"
    )


def show_precision(row: dict[str, Any]) -> None:
    """Print one line of the second table."""
    print(
        f"{row['units']:6} {row['inversion']:12.1e} {row['gradient']:12.1e} "
        f"{row['gradient_plain']:12.1e}"
    )


def main(arguments: Sequence[str]) -> None:
    """Measure every trunk, print the tables and write the file."""
    options = parse_arguments(BenchMemory, arguments)
    check_json_path(options.json)
    for name in options.trunks:  # one that is not known is refused before anything is measured
        with torch.device("meta"):
            build(name, options.width)
    device = choose_device(options.device)
    content: dict[str, Any] = {
        **describe_device(device),
        "device": device.type,
        "width": options.width,
        "batch_size": options.batch_size,
        "side": options.side,
        "precision": options.precision,
        "rows": [],
        "precision_rows": [],
    }
    print(
        f"{content['machine']}, torch {content['torch']}; width {options.width}, batch "
        f"{options.batch_size}, {options.side} px, {options.precision}; MB of 2^20 bytes"
    )
    print(
        f"{'trunk':28} {'peak MB':>10} {'ratio':>6} {'saved MB':>10} {'ratio':>6} "
        f"{'estimate MB':>12}"
    )
    for name in options.trunks:
        row = measure(name, options, device)
        first = content["rows"][0] if content["rows"] else row
        row |= {"ratio": row["peak"] / first["peak"], "saved_ratio": row["saved"] / first["saved"]}
        content["rows"].append(row)
        show_memory(row)
    if options.units:
        print("\nrelative errors of a float32 stage against float64")
        print(f"{'units':>6} {'inversion':>12} {'gradient':>12} {'plain':>12}")
    for num_units in options.units:
        content["precision_rows"].append(measure_precision(num_units))
        show_precision(content["precision_rows"][-1])
    write_result(options.json, content)
