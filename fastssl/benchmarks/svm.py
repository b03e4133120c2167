"""Measure all SVM fits of the VOC07 protocol against scikit-learn's LinearSVC, on the same cores.

The package's solver fits all of them: 20 classes x 26 costs x 3 folds, and each class again with
its best cost. LinearSVC, called as Goyal et al. 2019 do, fits an even part: some classes, some
costs, one fold of each; its time for all of them is extrapolated from the mean of these, without
the fits with the best costs. As many of its fits run beside each other as the package's solver has
threads. Both take turns.

The features are synthetic: sums of 256 patterns of falling weight, of which those of an image's
classes are stronger, and noise, cut off below 0 as behind a ReLU. The labels are those of VOC07, if
there is a folder with its lists, or drawn with VOC07's frequencies.

With --measure agreement every pair of (class, cost) of the part is fitted to all training samples
three times: by the package's solver, by LinearSVC's Newton method to its end (tolerance 1e-8), and
as published. Their objectives and their average precisions on the test set stand beside each other.

Example: fastssl bench-svm --labels VOC2007/ImageSets/Main --json svm.json
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..commands.frame import check_json_path, parse_arguments
from ..counts import spell_number
from ..errors import InputError
from ..evaluation import GOYAL19_COSTS, average_precision, fit_svms, normalize_rows
from ..evaluation.squared_hinge import build_space, solve
from ..evaluation.svm import cut_folds, find_objective, fit_linear_svc
from ..fields import Checked, NumThreads, Range
from .harness import compare, describe_device, run_rounds, summarize, write_result
from .memory import MB, read_status

# Positives among 5,011 of VOC07's trainval, class by class (its own statistics).
_POSITIVES = (
    *(238, 243, 330, 181, 244, 186, 713, 337, 445, 141),
    *(200, 421, 287, 245, 2008, 245, 96, 229, 261, 256),
)
_NUM_VOC = 5011
_FOLDS = 3
# What takes memory: the features' space, conjugate gradients, systems of active samples.
_MEMORY_COSTS = (1e-4, 10.0)
_PATTERNS = 256
# How much stronger the patterns of an image's classes are: a mean average precision of about 0.7.
_SIGNAL = 0.18
_NOISE = 0.3


@dataclass(frozen=True)
class BenchSvm(Checked):
    """Measure the SVMs of the VOC07 protocol against scikit-learn's LinearSVC."""

    labels: Path | None = None
    """VOC's folder of lists, ImageSets/Main: <class>_trainval.txt and <class>_test.txt; without it
    labels are drawn."""
    dims: Annotated[int, Range(2, 1_000_000)] = 9216
    """Of the features."""
    samples: Annotated[int, Range(1000, 1_000_000)] = _NUM_VOC
    """Training samples, and test samples, where labels are drawn."""
    rounds: Annotated[int, Range(1, 1000)] = 3
    """Rounds in which both take turns; the median counts."""
    classes: Annotated[int, Range(1, 20)] = 4
    """Classes that LinearSVC fits, evenly chosen by their frequency."""
    costs: Annotated[int, Range(1, 26)] = 6
    """Costs that LinearSVC fits, evenly chosen: the middle of as many parts of the list."""
    threads: NumThreads = 0
    """Threads of torch, and fits of LinearSVC at a time; 0 leaves torch's choice."""
    measure: Literal["speed", "agreement"] = "speed"
    """agreement: objectives and average precisions beside those of LinearSVC to its end."""
    json: Path | None = None
    """File for the same figures as JSON."""


# ---- labels and features -------------------------------------------------------------------------


def read_labels(folder: Path, split: str) -> NDArray[np.int64]:
    """Return 1, 0 (only difficult objects) and -1 of every image and class, (N, C).

    Raises:
        InputError: if there are no such lists, or they differ in their images.
    """
    columns: list[list[int]] = []
    names: list[str] = []
    for path in sorted(folder.glob(f"*_{split}.txt")):
        try:
            rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
            own, column = [name for name, _ in rows], [int(label) for _, label in rows]
        except ValueError as error:
            raise InputError(
                f"{path} ({error}) must have lines '<image> 1|0|-1'; give --labels VOC's "
                "ImageSets/Main"
            ) from None
        if columns and own != names:
            raise InputError(f"{path} names other images than the lists before it")
        names = own
        columns.append(column)
    if not columns:
        raise InputError(
            f"--labels ({folder}) must hold <class>_{split}.txt, as VOC's ImageSets/Main"
        )
    return np.array(columns).T


def draw_labels(num: int, seed: int) -> NDArray[np.int64]:
    """Return labels with VOC07's frequencies, (N, 20), each class drawn by itself."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            np.where(rng.permutation(num) < max(_FOLDS, round(num * own / _NUM_VOC)), 1, -1)
            for own in _POSITIVES
        ],
        axis=1,
    )


def make_features(labels: NDArray[np.int64], dims: int, seed: int) -> Tensor:
    """Return features of images with these labels, float32 (N, D), rows of length 1."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(2019)
    strengths = torch.arange(1, _PATTERNS + 1).float().rsqrt()
    patterns = torch.randn(_PATTERNS, dims, generator=shared)
    of_classes = torch.randn(labels.shape[1], _PATTERNS, generator=shared) * strengths
    present = torch.from_numpy(labels >= 0).float()
    sums = torch.randn(len(labels), _PATTERNS, generator=generator) * strengths
    features = (sums + _SIGNAL * present @ of_classes) @ patterns
    features /= strengths.square().sum().sqrt()
    features += _NOISE * torch.randn(features.shape, generator=generator)
    return torch.cat([normalize_rows(part).float() for part in features.relu_().split(512)])


# ---- speed ---------------------------------------------------------------------------------------


def choose_evenly(values: Sequence[Any], count: int) -> list[Any]:
    """Return the middle of each of so many equal parts."""
    return [values[int((i + 0.5) * len(values) / count)] for i in range(count)]


@dataclass(frozen=True)
class Part:
    """What LinearSVC fits: pairs of (class, cost)."""

    pairs: list[tuple[int, float]]

    @classmethod
    def choose(cls, labels: NDArray[np.int64], options: BenchSvm) -> Part:
        """Choose classes and costs evenly."""
        by_frequency = np.argsort((labels > 0).sum(0), kind="stable").tolist()
        classes = choose_evenly(by_frequency, min(options.classes, len(by_frequency)))
        costs = choose_evenly(sorted(GOYAL19_COSTS), options.costs)
        return cls([(c, cost) for c in classes for cost in costs])


def take_time(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fit_part(
    features: NDArray[np.float64], labels: NDArray[np.int64], part: Part, threads: int
) -> None:
    """Fit each pair to what one fold leaves, as published, so many at a time."""
    held = {c: cut_folds(labels[:, c], _FOLDS)[:, 0] for c, _ in part.pairs}

    def fit(pair: tuple[int, float]) -> None:
        c, cost = pair
        rows = np.flatnonzero((labels[:, c] != 0) & ~held[c])
        fit_linear_svc(features[rows], labels[rows, c], cost)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fit, part.pairs))


def measure_memory(connection: Connection, options: BenchSvm) -> None:
    """Fit all in this process and send its peak above what it had with the features, in bytes."""
    torch.set_num_threads(options.threads or torch.get_num_threads())
    labels = read_training_labels(options)
    # Libraries and thread pools are no memory of the fits.
    fit_svms(
        make_features(labels[:300], 400, 1), np.where(np.arange(300)[:, None] % 3, -1, 1), [1.0]
    )
    features = make_features(labels, options.dims, 0)
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew (proc(5)).
    before = read_status("VmRSS")
    fit_svms(features, labels, _MEMORY_COSTS)
    connection.send(read_status("VmHWM") - before)


def find_peak(options: BenchSvm) -> int:
    """Return the peak of all fits, in a process of their own, in bytes."""
    # Every map a mapping of its own, or holes in the heap would count (mallopt(3)).
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure_memory, args=(theirs, options))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise InputError(
            "the process that fits all ended; if memory was short, take fewer --dims or --samples"
        ) from None
    finally:
        process.join()


def read_training_labels(options: BenchSvm) -> NDArray[np.int64]:
    """Return the labels to fit."""
    if options.labels is None:
        return draw_labels(options.samples, 0)
    return read_labels(options.labels, "trainval")


def bench_speed(options: BenchSvm, threads: int) -> dict[str, Any]:
    """Time both in turn; return the figures."""
    labels = read_training_labels(options)
    part = Part.choose(labels, options)
    peak = find_peak(options)
    features = make_features(labels, options.dims, 0)
    in_double = features.double().numpy()
    times = run_rounds(
        {
            "batched": lambda: take_time(lambda: fit_svms(features, labels)),
            "linear_svc": lambda: take_time(lambda: fit_part(in_double, labels, part, threads)),
        },
        options.rounds,
    )
    num_fits = labels.shape[1] * len(GOYAL19_COSTS) * _FOLDS
    share = num_fits / len(part.pairs)
    ratio = compare([share * seconds for seconds in times["linear_svc"]], times["batched"])
    gram = 8 * min(len(labels), options.dims + 1) ** 2
    return {
        "samples": len(labels),
        "fits": num_fits,
        "fits_of_linear_svc": len(part.pairs),
        "batched_s": summarize(times["batched"]).median,
        "batched_s_spread": summarize(times["batched"]).spread,
        "linear_svc_part_s": summarize(times["linear_svc"]).median,
        "linear_svc_part_s_spread": summarize(times["linear_svc"]).spread,
        "linear_svc_extrapolated_s": share * summarize(times["linear_svc"]).median,
        "ratio": ratio.median,
        "ratio_spread": ratio.spread,
        "peak_bytes": peak,
        "gram_bytes": gram,
        "peak_over_gram": peak / gram,
    }


def show_speed(result: dict[str, Any]) -> None:
    """Print the figures."""
    least, greatest = result["ratio_spread"]
    print(
        f"all {result['fits']} fits and the refits, batched: {result['batched_s']:.1f} s\n"
        f"LinearSVC, {result['fits_of_linear_svc']} of the fits: "
        f"{result['linear_svc_part_s']:.1f} s; extrapolated to all, without refits: "
        f"{result['linear_svc_extrapolated_s']:.0f} s\n"
        f"ratio {result['ratio']:.1f} ({least:.1f}-{greatest:.1f})\n"
        f"peak of memory beside the features: {result['peak_bytes'] / MB:.0f} MB, "
        f"{result['peak_over_gram']:.2f} Gram matrices"
    )


# ---- agreement -----------------------------------------------------------------------------------


def fit_batched(
    features: NDArray[np.float64], labels: NDArray[np.int64], part: Part
) -> list[tuple[NDArray[np.float64], float]]:
    """Fit all pairs to all samples as one problem, as ``fit_svms`` does; return weights, biases."""
    signs = np.stack([labels[:, c] for c, _ in part.pairs], axis=1).astype(np.float64)
    factors = np.where(signs > 0, 2.0, 1.0) * (signs != 0) * [cost for _, cost in part.pairs]
    space = build_space(torch.from_numpy(features))
    found = solve(space, torch.from_numpy(signs), torch.from_numpy(factors))
    weights, bias = space.to_features(found.weights_QP)
    return [*zip(weights.numpy(), bias.tolist(), strict=True)]


def bench_agreement(options: BenchSvm) -> dict[str, Any]:
    """Fit every pair three ways; return objectives and average precisions."""
    labels = read_training_labels(options)
    if options.labels is None:
        test_labels = draw_labels(options.samples, 1)
    else:
        test_labels = read_labels(options.labels, "test")
    train = make_features(labels, options.dims, 0).double().numpy()
    test = make_features(test_labels, options.dims, 1).double().numpy()
    part = Part.choose(labels, options)
    rows: list[dict[str, Any]] = []
    print(
        f"{'class':>5} {'cost':>9} {'objective above converged':>26} {'published':>10} "
        f"{'AP':>7} {'converged':>9} {'published':>9}"
    )
    for (c, cost), batched in zip(part.pairs, fit_batched(train, labels, part), strict=True):
        counted = np.flatnonzero(labels[:, c])
        features, signs = train[counted], labels[counted, c]
        to_the_end: Any = {"dual": False, "tolerance": 1e-8, "max_iterations": 100_000}
        ways = {
            "batched": batched,
            "converged": fit_linear_svc(features, signs, cost, **to_the_end)[:2],
            "published": fit_linear_svc(features, signs, cost)[:2],
        }
        row: dict[str, Any] = {"class": c, "cost": cost}
        for name, (weights, bias) in ways.items():
            row[f"{name}_objective"], row[f"{name}_gap"] = find_objective(
                features, signs, cost, weights, bias
            )
            row[f"{name}_ap"] = average_precision(test @ weights + bias, test_labels[:, c])
        rows.append(row)
        above, published = (
            row[f"{name}_objective"] / row["converged_objective"] - 1
            for name in ("batched", "published")
        )
        print(
            f"{c:5} {cost:9.2e} {above:26.1e} {published:10.1e} {100 * row['batched_ap']:7.2f} "
            f"{100 * row['converged_ap']:9.2f} {100 * row['published_ap']:9.2f}",
            flush=True,
        )
    return {"samples": len(labels), "rows": rows, **summarize_agreement(rows)}


def summarize_agreement(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the greatest differences, average precisions in points, means cost by cost."""
    result = {}
    for name in ("batched", "published"):
        result[f"{name}_objective_above"] = max(
            row[f"{name}_objective"] / row["converged_objective"] - 1 for row in rows
        )
        differences = {
            cost: [
                100 * (row[f"{name}_ap"] - row["converged_ap"])
                for row in rows
                if row["cost"] == cost
            ]
            for cost in {row["cost"] for row in rows}
        }
        result[f"{name}_ap_points"] = max(abs(d) for own in differences.values() for d in own)
        result[f"{name}_map_points"] = max(abs(float(np.mean(d))) for d in differences.values())
    return result


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write the file."""
    options = parse_arguments(BenchSvm, arguments)
    check_json_path(options.json)
    if options.threads:
        torch.set_num_threads(options.threads)
    environment = describe_device(torch.device("cpu"))
    print(
        f"{environment['machine']}, torch {environment['torch']}, "
        f"{spell_number(environment['threads'], 'thread')}; {options.dims} dimensions"
    )
    content = {**environment, "dims": options.dims, "labels": str(options.labels or "drawn")}
    if options.measure == "agreement":
        content |= bench_agreement(options)
        print(
            *(
                f"{name}: {content[name]:.2g}"
                for name in content
                if name.endswith(("above", "points"))
            ),
            sep="\n",
        )
    else:
        content |= bench_speed(options, environment["threads"])
        show_speed(content)
    write_result(options.json, content)
