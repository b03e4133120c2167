"""A run of AMDIM that is killed ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nursery import run_child
from tests.small_runs import assert_equal_states, read_lines


def run(dataset, folder, num_ranks, die_at=-1, is_killed=False):
    script = Path(__file__).with_name("amdim_run.py")
    ranks = num_ranks if num_ranks > 1 else 0
    done = run_child(script, dataset, folder, 7, die_at, ranks=ranks)
    assert (done.returncode != 0) is is_killed, done.stderr[-3000:]


def load_newest(folder):
    newest = sorted((folder / "checkpoints").glob("0*"))[-1]
    return torch.load(newest / "state.pt", weights_only=True)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_a_killed_run_ends_as_the_undisturbed_one(dataset_path, tmp_path, num_ranks):
    """The sixth step crosses an epoch's border."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(dataset_path, whole, num_ranks)
    run(dataset_path, killed, num_ranks, die_at=5, is_killed=True)
    # A checkpoint is written beside the steps: that of the fourth may not have been there yet.
    assert load_newest(killed)["step"] in (2, 4)
    run(dataset_path, killed, num_ranks)
    assert_equal_states(load_newest(whole), load_newest(killed))
    lines = [line for line in read_lines(whole / "metrics.jsonl") if "loss" in line]
    assert {line["accuracy_of_chance"] for line in lines} == {1 / 8}  # of all ranks' images
