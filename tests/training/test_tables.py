"""Tables divided over the ranks: written part by part, read at any world size, saved whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastssl.errors import InputError
from fastssl.tasks import DividedTable
from fastssl.training.checkpoint import CheckpointStore
from fastssl.training.tables import PART_BYTES, _write_all, load_tables
from fastssl.world import World
from tests.nursery import run_child
from tests.small_runs import BATCH, flat, read_lines


def make_tables(size, num_rows=47, row_shape=(3, 2), dtype=torch.float32):
    worlds = [World(rank, size, torch.device("cpu"), None) for rank in range(size)]
    return [DividedTable(num_rows, row_shape, dtype, world) for world in worlds]


def fill(tables):
    for table in tables:
        numbers = torch.arange(table.first, table.stop).to(table.rows.dtype)
        table.rows.copy_(numbers.view(-1, *[1] * (table.rows.dim() - 1)).expand_as(table.rows))
        table.rows[..., -1] += 0.5


def save(tables, folder, step):
    """Save as so many ranks do."""
    store = CheckpointStore(folder, 2)
    draft = store.open_draft(step)
    parts = {}
    for rank, table in enumerate(tables):
        parts |= _write_all({"memory": table}, draft, rank)
    store.save(step, {"step": step}, parts)
    store.wait()
    return store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("before", "now"), [(1, 1), (2, 1), (1, 2), (2, 3), (4, 3), (60, 2)])
def test_rows_come_back_at_another_world_size(tmp_path, before, now, dtype):
    saved = make_tables(before, dtype=dtype)
    fill(saved)
    store = save(saved, tmp_path, 4)
    assert store.find_newest() == 4
    tables = make_tables(now, dtype=dtype)
    assert sum(len(table.rows) for table in tables) == 47
    for table in tables:
        load_tables({"memory": table}, *store.read_files(4))
    whole = torch.cat([table.rows for table in saved])
    assert torch.equal(torch.cat([table.rows for table in tables]), whole)


def test_a_table_longer_than_a_part_is_written_and_read_in_parts(tmp_path):
    saved = make_tables(1, num_rows=40, row_shape=(PART_BYTES // 32,))
    fill(saved)
    store = save(saved, tmp_path, 1)
    (table,) = make_tables(1, num_rows=40, row_shape=(PART_BYTES // 32,))
    load_tables({"memory": table}, *store.read_files(1))
    assert torch.equal(table.rows, saved[0].rows)


def test_a_checkpoint_without_all_ranks_parts_is_none(tmp_path):
    tables = make_tables(2)
    save(tables, tmp_path, 4)
    draft = CheckpointStore(tmp_path, 2).open_draft(6)
    _write_all({"memory": tables[0]}, draft, 0)  # the other rank dies
    store = CheckpointStore(tmp_path, 2)
    assert store.find_newest() == 4
    assert not draft.exists()


@pytest.mark.parametrize("damage", ["flip", "lose"])
def test_a_damaged_part_is_found(tmp_path, damage):
    tables = make_tables(2)
    fill(tables)
    save(tables, tmp_path, 4)
    store = save(tables, tmp_path, 6)
    part = tmp_path / "000000006" / "memory.00001.rows"
    content = bytearray(part.read_bytes())
    content[5] ^= 1
    part.write_bytes(content) if damage == "flip" else part.unlink()
    assert store.find_newest() == 4


def test_parts_that_cannot_be_written_count_as_a_failed_save(tmp_path):
    store = save(make_tables(2), tmp_path, 4)
    draft = store.open_draft(6)
    store.give_up(6, OSError(28, "No space left on device"))
    assert not draft.exists()
    with pytest.raises(OSError, match="No space left"):
        store.wait()
    assert store.find_newest() == 4


def test_another_table_is_refused(tmp_path):
    store = save(make_tables(2), tmp_path, 4)
    (other,) = make_tables(1, num_rows=48)
    with pytest.raises(InputError, match=r"of table 'memory' .*47.*, the task wants .*48"):
        load_tables({"memory": other}, *store.read_files(4))


def run(dataset, folder, steps, num_ranks=2, columns=8, die_at=-1, is_killed=False, other=()):
    script = Path(__file__).with_name("toy_run.py")
    words = [script, dataset, folder, steps, columns, die_at, *other]
    done = run_child(*words, ranks=num_ranks)
    assert (done.returncode != 0) is is_killed, done.stderr[-3000:]


def read_newest(folder):
    """Return step, state and the whole table of the newest checkpoint."""
    store = CheckpointStore(folder / "checkpoints", 2)
    step = store.find_newest()
    state = store.load(step)
    columns = json.loads((folder / "config.json").read_text())["config"]["task.columns"]
    (table,) = make_tables(1, row_shape=(columns,))
    load_tables({"memory": table}, *store.read_files(step))
    return step, state, table.rows


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_run_ends_with_the_table_of_the_undisturbed_one(dataset_path, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(dataset_path, whole, 8)
    run(dataset_path, killed, 8, die_at=5, is_killed=True)
    assert read_newest(killed)[0] == 4
    run(dataset_path, killed, 8)
    (_, a, table), (_, b, other) = read_newest(whole), read_newest(killed)
    assert torch.equal(table, other)
    for (name, one), (_, two) in zip(flat(a["task"]), flat(b["task"]), strict=True):
        assert torch.equal(one, two), name
    fresh = torch.arange(47)[:, None].add(torch.arange(8)).sin()
    assert (table != fresh).any(1).sum() == 47  # 64 samples: each has been seen


@pytest.mark.faults
@pytest.mark.slow
def test_a_run_that_continues_another_begins_with_its_table(dataset_path, tmp_path):
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    run(dataset_path, whole, 6)
    run(dataset_path, first, 3)
    run(dataset_path, second, 6, other=[first])
    (_, a, table), (_, b, other) = read_newest(whole), read_newest(second)
    assert torch.equal(table, other)
    for (name, one), (_, two) in zip(flat(a["task"]), flat(b["task"]), strict=True):
        assert torch.equal(one, two), name
    assert read_newest(first)[0] == 3
    assert [line["step"] for line in read_lines(second / "ledger.rank1.jsonl")] == [4, 5, 6]


@pytest.mark.faults
@pytest.mark.slow
def test_a_run_goes_on_with_its_table_on_one_rank(dataset_path, tmp_path):
    folder = tmp_path / "run"
    run(dataset_path, folder, 2)
    _, _, before = read_newest(folder)
    run(dataset_path, folder, 4, num_ranks=1)
    step, _, after = read_newest(folder)
    assert step == 4
    lines = read_lines(folder / "ledger.rank0.jsonl")
    seen = sorted({i for line in lines if line["step"] > 2 for i in line["sample_ids"]})
    assert len(seen) == 2 * BATCH
    assert (before != after).any(1).nonzero().flatten().tolist() == seen


@pytest.mark.faults
@pytest.mark.slow
def test_steps_and_saves_make_no_memory_that_grows_with_the_table(dataset_path, tmp_path):
    """The largest memory of any operator, from the first step to the last checkpoint."""
    largest = []
    for columns in (8, 1 << 18):  # 1 KB; 49 MB of a table and 10 MB of a buffer
        run(dataset_path, tmp_path / str(columns), 3, columns=columns)
        files = [tmp_path / f"{columns}.rank{rank}.json" for rank in range(2)]
        largest.append([json.loads(file.read_text()) for file in files])
    assert largest[0] == largest[1]
