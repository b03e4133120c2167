"""bench-loaders --remote: the same dataset from a folder and from a store; no time is judged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fastssl.benchmarks.caches import COLD, LOCAL, WARM, Caches, measure_caches
from fastssl.benchmarks.peers import PeerSettings
from fastssl.errors import InputError
from fastssl.shards.making.convert import ConvertConfig, convert

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')


@pytest.fixture
def server(serve, dataset_path):
    return serve(dataset_path)


@pytest.fixture
def caches(dataset_path, server, tmp_path):
    settings = PeerSettings(dataset_path, Path("none.beton"), "rrc", 0, 16, 8, 1)
    return Caches(settings, server.address, tmp_path / "caches", images=40, rounds=1)


@pytest.mark.slow
def test_a_full_cache_asks_for_no_shard_and_an_empty_one_for_all(caches, server, tmp_path):
    rows = measure_caches(caches, ["webdataset"])
    assert [(row["loader"], row["side"]) for row in rows] == [
        ("webdataset", side) for side in (LOCAL, WARM, COLD)
    ]
    assert rows[0]["to_local"] == 1
    assert all(row["img_per_s"] > 0 for row in rows)
    shards = [name for name, _ in server.asked if name.startswith("shard")]
    # By the pass that fills the one, and by the turn of the other.
    assert {shards.count(name) > 1 for name in shards} == {True}
    assert list((tmp_path / "caches").iterdir()) == []


def test_another_dataset_behind_the_address_is_refused(caches, dataset_path, tmp_path):
    convert(ConvertConfig(dataset_path.parent / "photos", tmp_path / "other", seed=1, workers=1))
    settings = dataclasses.replace(caches.settings, path=tmp_path / "other")
    with pytest.raises(InputError, match=r"--remote \(http.*\) has digest .*same dataset twice"):
        measure_caches(dataclasses.replace(caches, settings=settings), ["webdataset"])


def test_a_batch_that_leaves_nothing_of_an_epoch_is_refused(caches):
    with pytest.raises(InputError, match=r"--batch-size \(8\) must be at most half of --images"):
        measure_caches(dataclasses.replace(caches, images=15), ["webdataset"])
