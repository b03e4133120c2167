"""Runs that take a second on a CPU, and what their tests look at."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from fastssl.studies import build_recipe
from fastssl.training import train

BATCH = 8  # 47 samples: steps 6 and 12 cross an epoch's border
# So low that noise is a leap; nothing is said before step 6.
EAGER = {"threshold": 1.0, "window": 10, "skip_steps": 3, "max_rollbacks": 99}
LEAPING = {"optim": {"lr": 0.4}, "schedule": {"epochs": 5}, "spike": EAGER}
"""A run of 30 steps that goes back again and again."""


def make_config(dataset_path, output_dir, **changes):
    """Return a small run: a narrow ResNet9 on 24 px puzzles."""
    config = build_recipe("demo")
    nested = {
        "task": {"num_permutations": 10, "hidden": 8, "resize_short": 36, "crop": 36}
        | {"patch": 10, "jitter": 3},
        "data": {"path": dataset_path, "global_batch_size": BATCH, "num_threads": 1}
        | {"ledger": True},
        "optim": {},
        "schedule": {"epochs": 2.5},
        "checkpoint": {"every_steps": 3},
        "log": {"every_steps": 2, "progress": False, "pictures_every_steps": 0},
    }
    for key, value in changes.pop("nested", {}).items():
        nested[key] = nested.get(key, {}) | value
    parts = {
        key: dataclasses.replace(getattr(config, key), **values) for key, values in nested.items()
    }
    return dataclasses.replace(config, **parts, output_dir=output_dir, **changes)


@pytest.fixture
def configure(dataset_path, tmp_path):
    """Return small runs, each in a folder of its own."""

    def make(name="run", **changes):
        return make_config(dataset_path, tmp_path / name, **changes)

    return make


def load_state(config):
    newest = sorted((config.output_dir / "checkpoints").glob("0*"))[-1]
    return torch.load(newest / "state.pt", weights_only=True)


def flat(value, name=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from flat(item, f"{name}.{number}")
    else:
        yield name, value


def assert_equal_states(a, b):
    a, b = dict(flat(a)), dict(flat(b))
    assert a.keys() == b.keys()
    different = [
        name
        for name in a
        if not (torch.equal(a[name], b[name]) if torch.is_tensor(a[name]) else a[name] == b[name])
    ]
    assert different == []


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def crash_after(config, step):
    """Train to a step, then throw away what a killed process would not have saved."""
    train(dataclasses.replace(config, max_steps=step))
    checkpoints = config.output_dir / "checkpoints"
    for folder in checkpoints.glob("0*"):
        if int(folder.name) % config.checkpoint.every_steps:
            shutil.rmtree(folder)
    kept = sorted(folder.name for folder in checkpoints.glob("0*"))
    if kept:
        (checkpoints / "latest").write_text(kept[-1])
    else:
        (checkpoints / "latest").unlink()
