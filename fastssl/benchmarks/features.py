"""Measure features on disk beside the trunk's forward pass alone.

Two ways in turn, in one process, with the same trunk, pictures and end points:

  features   what an evaluation does: read, decode, forward pass, pooling, files
  forward    the forward pass alone, on one batch that is ready on the device, as often

features / forward says what everything but the trunk costs. Every round makes the features anew, in
a folder of its own.

Example: fastssl bench-features --checkpoint runs/jigsaw --data.path shards/ --protocol goyal19
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..commands.frame import check_json_path, parse_arguments
from ..evaluation.evaluate import Evaluation
from ..evaluation.extract import find_points, frozen, prepare_inputs
from ..evaluation.setting import EvaluateConfig, EvaluationData
from ..fields import Rounds
from ..world import World, join_world
from .harness import compare, describe_device, run_rounds, summarize, write_result


@dataclass(frozen=True)
class BenchFeatures(EvaluateConfig):
    """What ``evaluate`` takes, and how often to measure."""

    rounds: Rounds = 5
    """Rounds, at least 3; each measures both ways once."""


@contextlib.contextmanager
def _opened(config: BenchFeatures, world: World) -> Iterator[Evaluation]:
    """Open an evaluation whose features go to a folder that is removed afterwards."""
    data = dataclasses.replace(config.data, test_path=EvaluationData.test_path)
    with tempfile.TemporaryDirectory() as folder:
        held = dataclasses.replace(config, data=data, features_dir=Path(folder))
        with contextlib.closing(Evaluation("knn", held, world)) as evaluation:
            yield evaluation


def _synchronize(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def time_features(config: BenchFeatures, world: World) -> float:
    """Make the features of all pictures; return pictures a second."""
    with _opened(config, world) as evaluation:
        begin = time.perf_counter()
        evaluation.make_features()
        seconds = time.perf_counter() - begin
        return _count(config, evaluation) / seconds


def time_forward(config: BenchFeatures, world: World) -> float:
    """Run the trunk as often on pictures that are ready; return pictures a second."""
    with _opened(config, world) as evaluation, torch.inference_mode():
        setting = evaluation.setting
        with contextlib.closing(evaluation.build_loader(evaluation.train)) as loader:
            batch = next(iter(loader.one_pass())).images[:, 0].to(world.device)
        inputs = prepare_inputs(batch, setting)
        trunk = evaluation.subject.trunk.to(world.device).to(memory_format=torch.channels_last)
        times = max(1, round(_count(config, evaluation) / len(batch)))
        with frozen(trunk):
            find_points(trunk, inputs, setting)
            _synchronize(world)
            begin = time.perf_counter()
            for _ in range(times):
                find_points(trunk, inputs, setting)
            _synchronize(world)
        return times * len(batch) / (time.perf_counter() - begin)


def _count(config: BenchFeatures, evaluation: Evaluation) -> int:
    return config.data.max_samples or evaluation.train.num_samples


def measure(config: BenchFeatures) -> dict[str, Any]:
    """Return pictures a second of both ways, and their ratio."""
    world = join_world(config.device)
    rates = run_rounds(
        {
            "features": lambda: time_features(config, world),
            "forward": lambda: time_forward(config, world),
        },
        config.rounds,
    )
    ratio = compare(rates["features"], rates["forward"])
    return {
        **describe_device(world.device),
        "rows": [
            {"way": way, "img_per_s": figure.median, "spread": figure.spread}
            for way, figure in ((way, summarize(values)) for way, values in rates.items())
        ],
        "ratios": {"features/forward": ratio.median, "spread": ratio.spread},
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = parse_arguments(BenchFeatures, arguments)
    check_json_path(config.json)
    result = measure(config)
    for row in result["rows"]:
        low, high = row["spread"]
        print(f"{row['way']}: {row['img_per_s']:.1f} images/s ({low:.1f}-{high:.1f})")
    low, high = result["ratios"]["spread"]
    print(f"features / forward: {result['ratios']['features/forward']:.3f} ({low:.3f}-{high:.3f})")
    write_result(config.json, result)
