"""Ten million samples, opened, walked and gone on with as few are; ``bench-scale`` takes more."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastssl.benchmarks.process import memory_mb
from fastssl.benchmarks.scale import EPOCHS, repeat_samples, walk
from fastssl.config import LoaderConfig
from fastssl.loaders import build_loader
from fastssl.sampling import ORDERS, SampleOrder, list_positions
from fastssl.shards import open_dataset
from fastssl.views import ViewSpec
from tests.nursery import run_child

TOOL = Path(__file__).parents[2] / "tools" / "bench_scale.py"
COUNT = 10_000_000
BATCH = 8
LITTLE_MB = 10
"""A byte a sample would be ten."""


@pytest.fixture(scope="module")
def long_path(dataset_path, tmp_path_factory):
    """A dataset of ten million samples; 320 MB of index."""
    folder = tmp_path_factory.mktemp("long")
    repeat_samples(dataset_path, folder, COUNT)
    yield folder
    (folder / "index.bin").unlink()


def build(dataset, name, position=0):
    config = LoaderConfig(loader=name, global_batch_size=BATCH, num_threads=1)
    loader = build_loader(config, ViewSpec.random_resized_crop(24), dataset=dataset)
    loader.load_state_dict({**loader.state_dict(), "position": position})
    return loader


@pytest.mark.parametrize("order", ORDERS)
def test_ranks_that_come_and_go_use_every_sample_once_an_epoch(order):
    walked = walk(SampleOrder("0123456789abcdef" * 4, COUNT, 3, order), [64, 48, 96])
    assert (walked.ids, walked.lost, walked.repeated) == (EPOCHS * COUNT, 0, 0)


def test_ranks_that_disagree_about_their_number_are_seen():
    class Wrong(SampleOrder):
        def at(self, positions):
            return super().at(np.asarray(positions) + (np.asarray(positions) > 100_000))

    walked = walk(Wrong("0123456789abcdef" * 4, 200_000, 3), [4, 2])
    assert walked.lost == 1


def test_positions_of_all_ranks_are_the_stretch():
    for world_size in (1, 3, 64):
        parts = [list_positions(101, 1013, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(parts)) == list(range(101, 1013))
        assert all((part % world_size == rank).all() for rank, part in enumerate(parts))


def test_a_long_dataset_is_opened_and_planned_in_little_memory(long_path):
    before = memory_mb("Private_Dirty")
    with contextlib.closing(open_dataset(long_path)) as dataset:
        assert len(dataset) == COUNT
        with contextlib.closing(build(dataset, "native")) as loader:
            loader.plan_steps(7 * COUNT // 3 // BATCH * BATCH, 64)
            assert memory_mb("Private_Dirty") - before < LITTLE_MB


@pytest.mark.parametrize("name", ["native", "webdataset"])
def test_far_behind_the_start_a_loader_goes_on_without_what_came_before(long_path, name):
    position = 37 * COUNT // 10
    with contextlib.closing(open_dataset(long_path)) as dataset:
        tracemalloc.start()
        try:
            with contextlib.closing(build(dataset, name, position)) as loader:
                batch = next(iter(loader))
                wanted = loader.order.at(np.arange(position, position + BATCH))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (batch.epochs.tolist(), batch.sample_ids.tolist()) == tuple(x.tolist() for x in wanted)
    assert peak < LITTLE_MB * 1e6


@pytest.mark.slow
def test_bench_scale_measures_many_samples_beside_few(dataset_path, tmp_path):
    path, folder = tmp_path / "scale.json", tmp_path / "long"
    options = ("--samples", 100_000, "--loaders", "native", "--folder", folder, "--ranks", "4,2,6")
    options = (*options, "--batch-size", BATCH)
    done = run_child(TOOL, dataset_path, *options, "--json", path)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert [row["samples"] for row in result["starts"]] == [47, 100_000]
    for row in result["orders"]:
        assert (row["walked"], row["lost"], row["repeated"]) == (200_000, 0, 0)
        assert row["ids_per_s"] > 0
    other = run_child(TOOL, dataset_path, "--samples", 90_000, "--folder", folder)
    assert other.returncode == 2
    assert "holds 100,000 samples, --samples says 90000" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--loaders", "nativ"), "did you mean 'native'?"),
        (("--ranks", "64,0"), "--ranks ('0') must be world sizes"),
    ],
)
def test_wrong_options_are_refused(dataset_path, options, message):
    done = run_child(TOOL, dataset_path, *options)
    assert done.returncode == 2
    assert message in done.stderr
