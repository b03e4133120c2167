"""Runs of the VAE and of rotation that are killed end as the undisturbed ones, noise and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastssl.training.checkpoint import CheckpointStore
from tests.nursery import run_child
from tests.small_runs import assert_equal_states


def run(dataset, folder, task, steps, num_ranks, die_at=-1):
    script = Path(__file__).with_name("newell_run.py")
    ranks = num_ranks if num_ranks > 1 else 0
    done = run_child(script, dataset, folder, task, steps, die_at, ranks=ranks)
    assert (done.returncode != 0) is (die_at > 0), done.stderr[-3000:]


def load_newest(folder):
    store = CheckpointStore(folder / "checkpoints", 2)
    step = store.find_newest()
    return step, store.load(step)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("task", ["rotation", "vae"])
def test_a_killed_run_ends_as_the_undisturbed_one(dataset_path, tmp_path, task, num_ranks):
    """Two micro-batches a step; the seventh step crosses an epoch's border."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(dataset_path, whole, task, 7, num_ranks)
    run(dataset_path, killed, task, 7, num_ranks, die_at=5)
    # A checkpoint is written beside the steps: that of the fourth may not have been there yet.
    assert load_newest(killed)[0] in (2, 4)
    run(dataset_path, killed, task, 7, num_ranks)
    (step, a), (other, b) = load_newest(whole), load_newest(killed)
    assert step == other == 7
    assert_equal_states(a, b)
    trunks = [(folder / "trunk.safetensors").read_bytes() for folder in (whole, killed)]
    assert trunks[0] == trunks[1]
