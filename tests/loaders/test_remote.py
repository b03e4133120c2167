"""Loaders on a dataset behind a web server: the same batches as from the folder."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
from pathlib import Path

import pytest

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.views import ViewSpec
from tests.batches import assert_equal
from tests.nursery import run_child

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
pytestmark = pytest.mark.usefixtures("serve")

VIEW = ViewSpec.random_resized_crop(16)


@pytest.fixture
def folder(dataset_path, tmp_path):
    return Path(shutil.copytree(dataset_path, tmp_path / "served"))


@pytest.fixture
def server(serve, folder):
    return serve(folder)


@pytest.fixture
def build():
    loaders = []

    def build_one(path, rank=0, world_size=1, **settings):
        settings = {"global_batch_size": 12, "num_threads": 1, "seed": 3, **settings}
        config = LoaderConfig(path=path, **{"loader": "webdataset", **settings})
        loaders.append(build_loader(config, VIEW, rank, world_size))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("rank", [0, 1])
def test_batches_are_those_of_the_folder(folder, server, build, rank):
    here, there = build(folder, rank, 2), build(server.address, rank, 2, num_threads=2)
    # The parent reads first, then forks its workers.
    assert there.dataset.read_payload(0) == here.dataset.read_payload(0)
    for _ in range(2):  # the second stream has workers of its own
        assert_equal(itertools.islice(there, 5), itertools.islice(here, 5))
    assert_equal(there.one_pass(), here.one_pass())
    assert there.state_dict() == here.state_dict()


def test_the_requests_of_a_plan_overlap(server, build):
    loader = build(server.address)
    server.num_together = 6
    next(iter(loader))
    assert server.most_at_once >= 6


def test_each_sample_of_a_pass_is_asked_for_once(server, build):
    loader = build(server.address)
    server.asked.clear()
    assert sum(len(batch.sample_ids) for batch in loader.one_pass()) == 47
    assert len(server.asked) == len(set(server.asked)) == 47


def test_samples_of_a_lost_shard_get_the_substitutes_that_the_folder_gives(folder, server, build):
    here, there = build(folder, max_bad_share=1.0), build(server.address, max_bad_share=1.0)
    (folder / "shard-000002.tar").unlink()
    batches = list(zip(itertools.islice(there, 4), itertools.islice(here, 4), strict=True))
    for batch, wanted in batches:
        assert_equal([batch], [wanted])
        places = [[s.row, s.planned, s.used] for s in batch.substitutions]
        assert places == [[s.row, s.planned, s.used] for s in wanted.substitutions]
        assert all("not found" in s.reason for s in batch.substitutions)
    assert sum(len(batch.substitutions) for batch, _ in batches) > 4


@pytest.mark.parametrize("kind", ["503", "reset", "cut", "short", "ignore", "shifted"])
def test_trouble_that_passes_is_seen_nowhere(server, folder, build, kind):
    here, there = build(folder), build(server.address)
    server.troubled("shard-000001.tar", kind, times=2)
    batches = list(there.one_pass())
    assert_equal(batches, here.one_pass())
    assert not any(batch.substitutions for batch in batches)


def test_dali_reads_it_too(server, folder, build):
    if importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip('needs pip install "fastssl[dali]"')
    here = build(folder, loader="dali")
    there = build(server.address, loader="dali")
    server.num_together = 2
    assert_equal(itertools.islice(there, 3), itertools.islice(here, 3))
    assert server.most_at_once >= 2


def test_ffcv_wants_its_beton_in_a_folder(server, build):
    if importlib.util.find_spec("ffcv") is None:
        pytest.skip('needs pip install "fastssl[ffcv]"')
    with pytest.raises(InputError, match="needs a dataset in a folder of this machine"):
        build(server.address, loader="ffcv")


def test_a_run_trains_from_an_address(server, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "train.py"
    options = "--max-steps 1 --data.global-batch-size 8 --data.num-threads 1"
    options = [*options.split(), "--output-dir", tmp_path / "run"]
    run_child(tool, "supervised_smoke", *options, "--data.path", server.address, check=True)
    assert server.address in (tmp_path / "run" / "config.json").read_text()
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["step"] == 1
