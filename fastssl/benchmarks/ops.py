"""Measure the compiled operators against the same work in plain PyTorch or NumPy, on this machine.

All sides are timed in turn, so that whatever else the machine does meets all of them; each figure
is the median of the rounds, and the spread of the ratio stands beside it. A ratio carries over to
another machine better than a time. Where an operator moves pixels, the bytes that it must read and
write are set against a plain copy, measured in the same rounds: its share of the copy's bandwidth.

Example: fastssl bench-ops --rounds 9 --json ops.json
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from .. import ops
from ..commands.frame import check_json_path, parse_arguments
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, NumThreads, Range, Rounds
from ..models.input_spec import LAB_SCALES
from ..ops import reference
from ..sampling import ChunkLayout, SampleOrder, reference_ids
from .harness import choose_device, compare, describe_device, run_rounds, summarize, write_result

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
_GPU_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class BenchOps(Checked):
    """Measure the compiled operators against plain PyTorch and NumPy."""

    rounds: Rounds = 7
    """Rounds of each row, at least 3; the median counts."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    """Images in a batch of the rows about pixels."""
    threads: NumThreads = 0
    """Threads of torch; 0 leaves torch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the rows about pixels run: auto takes a GPU if there is one."""
    compile: Literal["auto", "true", "false"] = "auto"
    """Compare with torch.compile of the plain PyTorch too; auto does so on a GPU."""
    rows: str = ""
    """Only rows whose name has this in it."""
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
    num_bytes: int = 0
    """Bytes that the work must read and write; 0 where memory is not the point."""
    inductor: Callable[[], object] | None = None
    """The reference under torch.compile."""


def random_pixels(*shape: int, device: torch.device) -> torch.Tensor:
    """Return uint8 noise: the worst case of a table look-up."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)


def describe_dtype(dtype: torch.dtype) -> str:
    """Return the dtype's plain name."""
    return str(dtype).removeprefix("torch.")


def build_patches_row(
    batch_size: int, device: torch.device, dtype: torch.dtype, standardize: bool, is_inductor: bool
) -> Row:
    """Nine patches of 64 px of each image, some images grey or mirrored, permuted, scaled."""
    generator = torch.Generator().manual_seed(0)
    images = random_pixels(batch_size, 255, 255, 3, device=device)
    cells = torch.tensor([(85 * y, 85 * x) for y in range(3) for x in range(3)], dtype=torch.int32)
    jitter = torch.randint(0, 22, (batch_size, 9, 2), dtype=torch.int32, generator=generator)
    corners = (cells + jitter).to(device)
    flip = (torch.rand(batch_size, generator=generator) < 0.5).to(device)
    grey = (torch.rand(batch_size, generator=generator) < 0.3).to(device)
    order = torch.rand(batch_size, 9, generator=generator).argsort(1).to(device)
    scale = (None, None, True) if standardize else (MEAN, STD, False)
    arguments = (images, corners, 64, flip, grey, order, *scale, dtype, True)
    options: dict[str, Any] = {"flip_B": flip, "grey": grey, "order_BP": order, "dtype": dtype}
    options |= {"standardize": True} if standardize else {"mean": MEAN, "std": STD}
    values = 9 * 64 * 64 * 3 * batch_size
    compiled = torch.compile(reference.compose_patches) if is_inductor else None
    how = "standardised" if standardize else "normalised"
    return Row(
        f"extract_patches, 9 x 64 of 255 px, {how}, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: ops.extract_patches(images, corners, 64, **options, channels_last=True),
        lambda: reference.compose_patches(*arguments),
        values * (1 + dtype.itemsize),
        None if compiled is None else lambda: compiled(*arguments),
    )


def build_normalize_row(
    batch_size: int, device: torch.device, dtype: torch.dtype, is_inductor: bool
) -> Row:
    """Whole views of 224 px: mirrored, normalised, laid out for convolutions."""
    generator = torch.Generator().manual_seed(0)
    images = random_pixels(batch_size, 224, 224, 3, device=device)
    flip = (torch.rand(batch_size, generator=generator) < 0.5).to(device)
    arguments = (images, flip, None, MEAN, STD, dtype, True)
    compiled = torch.compile(reference.normalize) if is_inductor else None
    return Row(
        f"normalize, 224 px, channels_last, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: ops.normalize(images, MEAN, STD, flip, dtype=dtype, channels_last=True),
        lambda: reference.normalize(*arguments),
        images.numel() * (1 + dtype.itemsize),
        None if compiled is None else lambda: compiled(*arguments),
    )


def build_jitter_row(
    batch_size: int, device: torch.device, dtype: torch.dtype, standardize: bool, is_inductor: bool
) -> Row:
    """Whole views of 224 px: some mirrored, some grey, brightness and saturation of every order."""
    generator = torch.Generator().manual_seed(0)
    images = random_pixels(batch_size, 224, 224, 3, device=device)

    def draw() -> torch.Tensor:
        return torch.rand(batch_size, generator=generator)

    drawn = (0.25 * draw() - 0.125, 0.5 + draw(), draw() < 0.25)
    brightness, saturation, saturation_first = (value.to(device) for value in drawn)
    colours = (brightness, saturation, saturation_first)
    flip, grey = ((draw() < share).to(device) for share in (0.5, 0.66))
    scale = (None, None, True) if standardize else (MEAN, STD, False)
    arguments = (images, *colours, flip, grey, True, *scale, dtype, True)
    options: dict[str, Any] = {"standardize": True} if standardize else {"mean": MEAN, "std": STD}
    options |= {"flip_B": flip, "grey_B": grey, "grey": "mean", "dtype": dtype}
    compiled = torch.compile(reference.color_jitter) if is_inductor else None
    how = "standardised" if standardize else "normalised"
    return Row(
        f"color_jitter, 224 px, {how}, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: ops.color_jitter(images, *colours, **options, channels_last=True),
        lambda: reference.color_jitter(*arguments),
        images.numel() * (1 + dtype.itemsize),
        None if compiled is None else lambda: compiled(*arguments),
    )


def build_augment_row(
    batch_size: int, device: torch.device, dtype: torch.dtype, copies: int, is_inductor: bool
) -> Row:
    """Pictures of 64 px in normalised Lab: new colours, mirrored, shifted, cut out."""
    generator = torch.Generator().manual_seed(0)
    images = random_pixels(batch_size, 64, 64, 3, device=device)
    shape = (batch_size, copies)

    def draw(*last: int) -> torch.Tensor:
        return torch.rand(*shape, *last, generator=generator)

    drawn = {
        "gain_BK3": 0.75 + 0.5 * draw(3),
        "shift_BK3": 0.5 * draw(3) - 0.25,
        "grey_BK": draw() < 0.25,
        "flip_BK": draw() < 0.5,
        "offset_BK2": (17 * draw(2)).int() - 8,
        "corner_BK2": (49 * draw(2)).int(),
    }
    tensors = {name: value.to(device) for name, value in drawn.items()}
    mean, std = LAB_SCALES["newell20_lab"]
    arguments: tuple[Any, ...] = (*tensors.values(), copies, 16, True, mean, std, dtype, True)
    options: dict[str, Any] = {"cutout": 16, "dtype": dtype, "channels_last": True}
    compiled = torch.compile(reference.augment_views) if is_inductor else None
    return Row(
        f"augment_views, {copies} of 64 px in Lab, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: ops.augment_views(images, "lab", mean, std, **options | tensors),
        lambda: reference.augment_views(images, *arguments),
        images.numel() * (1 + copies * dtype.itemsize),
        None if compiled is None else lambda: compiled(images, *arguments),
    )


def build_lab_row(batch_size: int, device: torch.device, is_inductor: bool) -> Row:
    """Whole views of 224 px, every pixel another colour."""
    images = random_pixels(batch_size, 224, 224, 3, device=device)
    compiled = torch.compile(reference.rgb_to_lab) if is_inductor else None
    return Row(
        "rgb_to_lab, 224 px, float32",
        "images",
        batch_size,
        lambda: ops.rgb_to_lab(images),
        lambda: reference.rgb_to_lab(images, False),
        images.numel() * 5,
        None if compiled is None else lambda: compiled(images, False),
    )


def build_split_row(
    batch_size: int, device: torch.device, dtype: torch.dtype, mean: bool, is_inductor: bool
) -> Row:
    """Lightness of views of 224 px, some mirrored; a and b at stride 4."""
    generator = torch.Generator().manual_seed(0)
    images = random_pixels(batch_size, 224, 224, 3, device=device)
    flip = (torch.rand(batch_size, generator=generator) < 0.5).to(device)
    arguments = (images, flip, 4, mean, False, dtype)
    compiled = torch.compile(reference.split_lab) if is_inductor else None
    how = "mean" if mean else "first"
    return Row(
        f"split_lab, 224 px, {how} of stride 4, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: ops.split_lab(images, 4, flip, mean=mean, dtype=dtype),
        lambda: reference.split_lab(*arguments),
        batch_size * 224 * 224 * (3 + dtype.itemsize) + batch_size * 56 * 56 * 8,
        None if compiled is None else lambda: compiled(*arguments),
    )


def compute_dense_loss(
    logits: torch.Tensor, ab: torch.Tensor, bins: torch.Tensor, num_neighbors: int
) -> torch.Tensor:
    """The colour loss with its target written down, in plain PyTorch."""
    colours = ab.movedim(1, -1).flatten(0, 2)
    distances, index = torch.cdist(colours, bins).topk(num_neighbors, largest=False)
    shares = (-distances.square() / 50).softmax(-1)
    target = shares.new_zeros(len(colours), len(bins)).scatter_(1, index, shares)
    target = target.unflatten(0, (len(ab), *ab.shape[2:])).movedim(-1, 1)
    return -(target * logits.float().log_softmax(1)).sum(1).mean()


def build_loss_row(
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    num_neighbors: int,
    is_inductor: bool,
) -> Row:
    """Forward and backward of the colour loss at 313 bins on maps of 56 x 56."""
    generator = torch.Generator().manual_seed(0)
    loss = ops.ColorLoss(num_neighbors).to(device)
    shape = (batch_size, loss.num_bins, 56, 56)
    logits = torch.randn(shape, generator=generator).to(device, dtype)
    images = random_pixels(batch_size, 56, 56, 3, device=device)
    ab = ops.rgb_to_lab(images)[:, 1:].contiguous()
    compiled = torch.compile(compute_dense_loss) if is_inductor else None

    def pull(work: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(work(leaf, *arguments), leaf)[0]

    dense = (ab, loss.bins_Q2, num_neighbors)
    return Row(
        f"ColorLoss and gradient, K {num_neighbors}, {describe_dtype(dtype)}",
        "images",
        batch_size,
        lambda: pull(loss, ab),
        lambda: pull(compute_dense_loss, *dense),
        3 * logits.numel() * dtype.itemsize,  # the logits twice, their gradient once
        None if compiled is None else lambda: pull(compiled, *dense),
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


def build_copy(device: torch.device) -> tuple[Callable[[], object], int]:
    """Return a plain copy within the device's memory, and the bytes that it reads and writes."""
    source = torch.zeros(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return lambda: target.copy_(source), 2 * source.numel()


class Clock:
    """Times one call: on a GPU what the device takes, calls repeated behind one wait."""

    def __init__(self, device: torch.device) -> None:
        """Choose the clock.

        Args:
            device: where the work runs.
        """
        self._is_cuda = device.type == "cuda"

    def measure(self, work: Callable[[], object]) -> float:
        """Return the seconds that one call takes."""
        if not self._is_cuda:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        repeats = 20
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000)  # the host gets ahead, so launches do not show
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats


def measure(row: Row, rounds: int, device: torch.device) -> dict[str, Any]:
    """Time a row's sides in turn.

    Returns:
        The row for the table and the JSON file: items per second of all sides, the median of the
        rounds' ratios, its least and greatest value, and what memory has to do with it.
    """
    clock = Clock(device)
    copy, copy_bytes = build_copy(device)
    sides = {"compiled": row.compiled, "reference": row.reference}
    if row.inductor is not None:
        sides["inductor"] = row.inductor
    if row.num_bytes:
        sides["copy"] = copy
    for work in sides.values():
        for _ in range(3):  # memory, thread pools, compilers
            work()
    turns = {side: partial(clock.measure, work) for side, work in sides.items()}
    times = run_rounds(turns, rounds)
    seconds = {side: summarize(values).median for side, values in times.items()}
    ratio = compare(times["reference"], times["compiled"])
    result: dict[str, Any] = {
        "name": row.name,
        "unit": row.unit,
        "device": device.type,
        "compiled_per_s": row.num_items / seconds["compiled"],
        "compiled_ms": 1e3 * seconds["compiled"],
        "reference_per_s": row.num_items / seconds["reference"],
        "ratio": ratio.median,
        "ratio_min": ratio.least,
        "ratio_max": ratio.greatest,
    }
    if "inductor" in sides:
        result["ratio_to_inductor"] = compare(times["inductor"], times["compiled"]).median
    if "copy" in sides:
        share = compare(times["copy"], times["compiled"]).median * row.num_bytes / copy_bytes
        result["bytes"] = row.num_bytes
        result["gb_per_s"] = row.num_bytes / seconds["compiled"] / 1e9
        result["copy_gb_per_s"] = copy_bytes / seconds["copy"] / 1e9
        result["share_of_copy"] = share
    return result


def choose_kernels(wanted: str) -> torch.device:
    """Return the device of the rows about pixels.

    Raises:
        InputError: if there is no kernel to measure there.
    """
    device = choose_device(wanted)
    build: Any = ops.build_info()
    if not build[device.type]:
        raise InputError(
            f"the operators have no compiled kernels for {device.type}, so there is nothing to "
            "compare; build the extension again and read what it says about them: make bench"
        )
    return device


def build_rows(options: BenchOps, device: torch.device) -> Iterator[Row]:
    """Make all rows, one at a time: those about pixels on the device, the others on the CPU."""
    is_cuda, size = device.type == "cuda", options.batch_size
    is_inductor = options.compile == "true" or (options.compile == "auto" and is_cuda)
    for dtype in _GPU_DTYPES if is_cuda else (torch.float32,):
        for standardize in (False, True):
            yield build_patches_row(size, device, dtype, standardize, is_inductor)
        yield build_normalize_row(size, device, dtype, is_inductor)
        for standardize in (False, True):
            yield build_jitter_row(size, device, dtype, standardize, is_inductor)
        for copies in (1, 2):
            yield build_augment_row(8 * size, device, dtype, copies, is_inductor)
        for mean in (False, True):
            yield build_split_row(size, device, dtype, mean, is_inductor)
        # A dense target of 32 images is 126 MB, and there are several of that size.
        for num_neighbors in (1, 10, 40, 160, 313):
            yield build_loss_row(min(size, 32), device, dtype, num_neighbors, is_inductor)
    yield build_lab_row(size, device, is_inductor)
    yield build_order_row("global")
    yield build_order_row("chunked")


def show(result: dict[str, Any]) -> None:
    """Print one line of the table."""
    share = f"{100 * result['share_of_copy']:5.0f} %" if "share_of_copy" in result else ""
    inductor = f"{result['ratio_to_inductor']:.2f}" if "ratio_to_inductor" in result else ""
    spread = f"{result['ratio_min']:.2f}-{result['ratio_max']:.2f}"
    print(
        f"{result['name']:58} {result['compiled_per_s']:12,.0f} {result['reference_per_s']:12,.0f} "
        f"{result['ratio']:7.2f} {spread:>13} {inductor:>9} {share:>8}"
    )


def main(arguments: Sequence[str]) -> None:
    """Measure every row, print the table and write the file."""
    options = parse_arguments(BenchOps, arguments)
    check_json_path(options.json)
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    device = choose_kernels(options.device)
    content: dict[str, Any] = {
        **describe_device(device),
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "rows": [],
    }
    print(
        f"{content['machine']}, {spell_number(content['cores'], 'core')}, "
        f"{spell_number(content['threads'], 'thread')}, torch {content['torch']}; batch "
        f"{options.batch_size}; median of {spell_number(options.rounds, 'round')}, all sides in "
        "turn"
    )
    print(
        f"{'row':58} {'compiled/s':>12} {'reference/s':>12} {'ratio':>7} {'spread':>13} "
        f"{'/compile':>9} {'of copy':>8}"
    )
    rows = list(build_rows(options, device))
    chosen = [row for row in rows if options.rows in row.name]
    if not chosen:
        names = "; ".join(row.name for row in rows)
        raise InputError(f"--rows ('{options.rows}') is in the name of no row; there are: {names}")
    for row in chosen:
        row_device = device if row.num_bytes else torch.device("cpu")
        content["rows"].append(measure(row, options.rounds, row_device))
        show(content["rows"][-1])
    write_result(options.json, content)
