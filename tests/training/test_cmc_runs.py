"""A run of CMC that is killed ends with the memory and weights of the undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastssl.tasks import DividedTable
from fastssl.training.checkpoint import CheckpointStore
from fastssl.training.tables import load_tables
from fastssl.world import World
from tests.nursery import run_child
from tests.small_runs import BATCH, assert_equal_states, read_lines


def run(dataset, folder, steps, num_ranks, die_at=-1, is_killed=False, more=()):
    script = Path(__file__).with_name("cmc_run.py")
    ranks = num_ranks if num_ranks > 1 else 0
    done = run_child(script, dataset, folder, steps, die_at, *more, ranks=ranks)
    assert (done.returncode != 0) is is_killed, done.stderr[-3000:]


def read_newest(folder):
    """Return step, state and the whole memory of the newest checkpoint."""
    store = CheckpointStore(folder / "checkpoints", 2)
    step = store.find_newest()
    alone = World(0, 1, torch.device("cpu"), None)
    table = DividedTable(47, (2, 32), torch.float32, alone)
    load_tables({"bank": table}, *store.read_files(step))
    return step, store.load(step), table.rows


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_a_killed_run_ends_as_the_undisturbed_one(dataset_path, tmp_path, num_ranks):
    """Two micro-batches a step; the seventh step crosses an epoch's border."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(dataset_path, whole, 7, num_ranks)
    run(dataset_path, killed, 7, num_ranks, die_at=5, is_killed=True)
    # A checkpoint is written beside the steps: that of the fourth may not have been there yet.
    assert read_newest(killed)[0] in (2, 4)
    run(dataset_path, killed, 7, num_ranks)
    (_, a, memory), (_, b, other) = read_newest(whole), read_newest(killed)
    assert torch.equal(memory, other)
    assert_equal_states(a["task"], b["task"])
    assert_equal_states(a["optimizer"], b["optimizer"])


@pytest.mark.faults
@pytest.mark.slow
def test_a_run_goes_on_with_its_memory_on_one_rank(dataset_path, tmp_path):
    """What the run will take is counted on rank 0 alone, which asks the other one for nothing."""
    folder = tmp_path / "run"
    run(dataset_path, folder, 2, 2, more=["paced"])
    _, _, before = read_newest(folder)
    run(dataset_path, folder, 4, 1)
    step, _, after = read_newest(folder)
    assert step == 4
    lines = read_lines(folder / "ledger.rank0.jsonl")
    seen = sorted({i for line in lines if line["step"] > 2 for i in line["sample_ids"]})
    assert len(seen) == 2 * BATCH
    assert (before != after).flatten(1).any(1).nonzero().flatten().tolist() == seen
