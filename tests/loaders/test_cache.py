"""Loaders on a remote dataset that is kept on this machine as it is read."""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader, resolve_loader, warming
from fastssl.ops.jpeg import has_jpeg
from fastssl.shards import cached, open_dataset, web
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.in_place import IndexTarsConfig, index_tars
from fastssl.shards.pages import PAGE_BYTES
from fastssl.views import ViewSpec
from tests.batches import assert_equal
from tests.nursery import run_child

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
pytestmark = pytest.mark.usefixtures("serve")

VIEW = ViewSpec.random_resized_crop(16)
NUM = 60
LOADERS = ["webdataset", *(["native"] if has_jpeg() else [])]


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """Sixty noisy photographs of some 20 kB in four shards, six pages each; with entry points."""
    root = tmp_path_factory.mktemp("cache")
    (root / "photos").mkdir()
    for number in range(NUM):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (130 + number, 140, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{number:02d}.jpg", quality=85)
    convert(ConvertConfig(root / "photos", root / "ds", samples_per_shard=15, workers=1))
    return root / "ds"


@pytest.fixture
def folder(master, tmp_path):
    return Path(shutil.copytree(master, tmp_path / "served"))


@pytest.fixture
def server(serve, folder):
    return serve(folder)


@pytest.fixture
def build(tmp_path):
    loaders = []

    def build_one(path, rank=0, world_size=1, **settings):
        settings = {"global_batch_size": 6, "num_threads": 1, "seed": 3, **settings}
        if str(path).startswith("http"):
            settings = {"cache_dir": tmp_path / "kept", "cache_gb": 1, **settings}
        loaders.append(build_loader(LoaderConfig(path=path, **settings), VIEW, rank, world_size))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


def steps(loader, count):
    return list(itertools.islice(loader, count))


def shards_asked_for(server):
    return [name for name, _ in server.asked if name.startswith("shard")]


def bytes_kept(place):
    return sum(path.stat().st_blocks * 512 for path in place.rglob("*.pages"))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("order", ["global", "chunked"])
def test_epochs_from_the_cache_are_those_of_the_folder(folder, server, build, name, order):
    layout = {"order": order, "chunk_size": 4, "num_lanes": 4, "window_chunks": 2}
    here = build(folder, loader=name, **layout)
    there = build(server.address, loader=name, num_threads=2, **layout)
    assert_equal(steps(there, 25), steps(here, 25))
    assert_equal(there.one_pass(), here.one_pass())
    assert_equal([there.read_step(12)], [here.read_step(12)])


@pytest.mark.parametrize("name", LOADERS)
def test_each_byte_is_fetched_once_and_a_second_start_asks_for_none(folder, server, build, name):
    there = build(server.address, loader=name)
    steps(there, 30)
    use = there.telemetry.total().cache
    assert use.fetched_bytes == sum(p.stat().st_size for p in folder.glob("*.tar"))
    assert 0 < use.hits < use.samples
    there.close()
    server.asked.clear()
    again = build(server.address, loader=name)
    assert_equal(steps(again, 10), steps(build(folder, loader=name), 10))
    assert shards_asked_for(server) == []
    use = again.telemetry.total().cache
    assert use.hits == use.samples > 0
    assert (use.fetched_bytes, use.stalls) == (0, 0)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("order", ["global", "chunked"])
def test_a_cache_that_is_smaller_than_the_dataset_stays_so(
    folder, server, build, tmp_path, monkeypatch, name, order
):
    monkeypatch.setattr(cached, "_LEAST_DROPPED", 1)
    layout = {"order": order, "chunk_size": 4, "num_lanes": 2, "window_chunks": 1}
    small = {"global_batch_size": 1, "cache_gb": 0.0009, **layout}
    here, there = build(folder, loader=name, global_batch_size=1, **layout), None
    there = build(server.address, loader=name, **small)
    for batch, wanted in zip(itertools.islice(there, 3 * NUM), here, strict=False):
        assert_equal([batch], [wanted])
        assert bytes_kept(tmp_path / "kept") <= 900_000
    use = there.telemetry.total().cache
    assert 0.2 * use.samples < use.hits < use.samples  # useful, though small


def test_a_cache_too_small_for_the_batches_under_way_is_refused_with_the_least(server, build):
    with pytest.raises(InputError, match=r"set --data.cache-gb to (\S+) or more") as refused:
        build(server.address, cache_gb=1e-6)
    least = float(str(refused.value).rpartition("--data.cache-gb to ")[2].split()[0])
    build(server.address, cache_gb=least)
    with pytest.raises(InputError, match=r"set --data.cache-gb"):
        build(server.address, cache_gb=least - 0.001)


@pytest.mark.parametrize("size", [0, -1.5, float("nan")])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match=r"data.cache_gb .* must lie in 0 \.\. 1,000,000"):
        LoaderConfig(path="http://127.0.0.1:1/ds", cache_dir="kept", cache_gb=size)


def test_a_cache_for_a_folder_is_ignored_with_a_warning(folder, build, tmp_path, caplog):
    build(folder, cache_dir=tmp_path / "kept")
    assert "data.cache_dir" in caplog.text
    assert "is ignored: the shards of" in caplog.text
    assert not (tmp_path / "kept").exists()


def test_a_cache_that_is_a_file_is_refused(server, build, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"data.cache_dir .*: nothing can be kept there"):
        build(server.address, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_pages_are_fetched_anew_and_nothing_is_replaced(
    folder, server, build, tmp_path, name
):
    steps(build(server.address, loader=name), 30)
    for path in (tmp_path / "kept").rglob("*.pages"):
        content = bytearray(path.read_bytes())
        for place in range(1000, len(content), 3000):
            content[place] ^= 1
        path.write_bytes(content)
    again = build(server.address, loader=name)
    assert_equal(steps(again, 10), steps(build(folder, loader=name), 10))
    assert again.telemetry.total().cache.fetched_bytes > 0


@pytest.mark.parametrize("name", LOADERS)
def test_pages_that_were_removed_are_read_from_the_store(folder, server, build, tmp_path, name):
    steps(build(server.address, loader=name), 30)
    again = build(server.address, loader=name)
    for path in (tmp_path / "kept").rglob("*.pages"):
        path.unlink()
    assert_equal(steps(again, 10), steps(build(folder, loader=name), 10))


@pytest.mark.parametrize("name", LOADERS)
def test_a_sample_that_is_bad_in_the_store_is_bad_with_a_cache(folder, server, build, name):
    dataset = open_dataset(folder)
    _, offset, _ = dataset.locate(20)
    shard = folder / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    content[offset + 100] ^= 1
    shard.write_bytes(content)
    here = build(folder, loader=name, max_bad_share=1.0)
    there = build(server.address, loader=name, max_bad_share=1.0)
    for _ in range(2):
        found = [s for batch in there.one_pass() for s in batch.substitutions]
        wanted = [s for batch in here.one_pass() for s in batch.substitutions]
        assert found == wanted
        assert [s.planned for s in found] == [20]


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("kind", ["503", "reset", "cut", "short", "ignore", "shifted", "wrong"])
def test_trouble_now_and_then_changes_no_pixel(folder, server, build, name, kind):
    asked = itertools.count()

    def choose(asked_for):
        # Fewer than one sample is asked for, so that none is bad whoever asks when.
        is_hit = asked_for.startswith("shard") and next(asked) in (0, 3)
        return kind if is_hit else None

    server.trouble = choose
    here, there = build(folder, loader=name), build(server.address, loader=name)
    assert_equal(steps(there, 20), steps(here, 20))


@pytest.mark.parametrize("name", LOADERS)
def test_a_store_that_is_slow_now_and_then_changes_no_pixel(
    folder, server, build, monkeypatch, name
):
    monkeypatch.setattr(web, "TRICKLE_S", 0.2)
    here, there = build(folder, loader=name), build(server.address, loader=name)
    server.delay_s = 0.05
    server.troubled("shard-000001.tar", "trickle", times=2)
    server.etag = '"another"'
    assert_equal(steps(there, 10), steps(here, 10))


@pytest.mark.parametrize("name", LOADERS)
def test_shards_that_are_replaced_while_a_run_reads_are_named(folder, server, build, name):
    """What was kept is what the dataset holds; what comes then is bad by its CRC-32."""
    there = build(server.address, loader=name, max_bad_share=1.0)
    dataset = open_dataset(folder)
    shard = folder / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    for sample_id in range(15, 30):
        _, offset, length = dataset.locate(sample_id)
        content[offset + length // 2] ^= 1
    shard.write_bytes(content)
    server.etag = '"another"'
    found = [s for batch in there.one_pass() for s in batch.substitutions]
    assert [s.planned for s in found] == list(range(15, 30))
    assert all("shard-000001.tar: CRC-32" in s.reason for s in found)


def test_the_look_ahead_asks_in_long_stretches(server, build):
    steps(build(server.address, loader="webdataset"), 10)
    assert len(shards_asked_for(server)) == 4  # a shard of 400 kB is one block


def test_requests_of_the_look_ahead_overlap(server, build, monkeypatch):
    monkeypatch.setattr(cached, "BLOCK_BYTES", PAGE_BYTES)
    loader = build(server.address, loader="webdataset")
    server.num_together = 6
    steps(loader, 1)
    assert server.most_at_once >= 6


def test_ranks_share_what_each_has_fetched(folder, server, build):
    ranks = [build(server.address, rank, 2, loader="webdataset") for rank in range(2)]
    wanted = [build(folder, rank, 2, loader="webdataset") for rank in range(2)]
    for _ in range(2):
        for there, here in zip(ranks, wanted, strict=True):
            assert_equal(steps(there, 10), steps(here, 10))
    fetched = sum(rank.telemetry.total().cache.fetched_bytes for rank in ranks)
    assert fetched == sum(path.stat().st_size for path in folder.glob("*.tar"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system; needs root")
@pytest.mark.parametrize("name", LOADERS)
def test_a_full_disk_is_done_with(folder, server, build, tmp_path, caplog, name):
    kept = tmp_path / "small"
    kept.mkdir()
    if os.system(f"mount -t tmpfs -o size=700k none {kept}"):
        pytest.skip("mounting is not allowed here")
    try:
        here, there = build(folder, loader=name), build(server.address, loader=name, cache_dir=kept)
        assert_equal(steps(there, 20), steps(here, 20))
        assert "No space left" in caplog.text
        there.close()
    finally:
        os.system(f"umount -l {kept}")


def test_auto_takes_the_native_loader_where_the_dataset_is_kept(server, build):
    there = build(server.address)
    wanted = "native" if has_jpeg() else "webdataset"
    assert resolve_loader(LoaderConfig(), there.dataset)[0] == wanted


def test_a_run_that_goes_on_without_its_cache_takes_a_loader_that_reads_from_stores(server, build):
    there = build(server.address, loader="webdataset", cache_dir=Path())
    assert resolve_loader(LoaderConfig(), there.dataset, "cpu", "native")[0] == "webdataset"


@pytest.mark.skipif(not has_jpeg(), reason="needs the extension with libjpeg-turbo")
def test_the_native_loader_has_the_entry_points_too(folder, server, build):
    here, there = build(folder, loader="native"), build(server.address, loader="native")
    shares = []
    for loader in (here, there):
        steps(loader, 5)
        shares.append(loader.telemetry.total().entropy_decoded_share)
    assert shares[0] == shares[1] < 1
    assert [name for name, _ in server.asked].count("entry_points.bin") == 1


def test_dali_reads_from_it_too(folder, server, build):
    if importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip('needs pip install "fastssl[dali]"')
    here, there = build(folder, loader="dali"), build(server.address, loader="dali")
    assert_equal(steps(there, 20), steps(here, 20))
    assert there.telemetry.total().cache.fetched_bytes > 0


def test_what_is_needed_last_goes_first(server, build, monkeypatch):
    """Against any other choice: what stays is used before what went, one page a sample."""
    monkeypatch.setattr(warming, "MAX_AHEAD_BYTES", 1)
    monkeypatch.setattr(cached, "_LEAST_DROPPED", 1)
    loader = build(server.address, loader="webdataset", global_batch_size=1, cache_gb=0.0009)
    cache, order = loader.dataset.cache, loader.order
    gone, choose = [], cache._find_victims

    def note(excess, next_use):
        gone.append((loader.position, choose(excess, next_use)))
        return gone[-1][1]

    monkeypatch.setattr(cache, "_find_victims", note)
    steps(loader, 2 * NUM)
    assert gone
    for position, victims in gone:
        ids = cache._find_ids(victims)
        assert (order.next_use(ids.ravel(), position) > position).all()


def test_old_pages_of_other_datasets_give_way(server, build, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    steps(build(server.address, loader="webdataset"), 10)
    (kept,) = (tmp_path / "kept").iterdir()
    stranger = tmp_path / "kept" / ("0" * 64)
    loader = build(server.address, loader="webdataset")
    shutil.copytree(kept, stranger)
    loader.close()
    build(server.address, loader="webdataset", cache_gb=1).close()
    assert (stranger / "data").exists()
    build(server.address, loader="webdataset", cache_gb=0.0021).close()
    assert not (stranger / "data").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_tars_that_stay_in_a_store_are_kept_too(folder, server, build, tmp_path, name):
    tars = tuple(f"{server.address}/{path.name}" for path in sorted(folder.glob("*.tar")))
    index_tars(IndexTarsConfig(tars, tmp_path / "indexed", workers=1))
    kept = {"cache_dir": tmp_path / "kept", "cache_gb": 1}
    here = build(tmp_path / "indexed", loader="webdataset")
    there = build(tmp_path / "indexed", loader=name, **kept)
    assert_equal(steps(there, 20), steps(here, 20))
    server.asked.clear()
    there.close()
    again = build(tmp_path / "indexed", loader=name, **kept)
    assert_equal(steps(again, 10), steps(build(tmp_path / "indexed", loader="webdataset"), 10))
    assert again.telemetry.total().cache.fetched_bytes == 0


def test_a_cache_in_a_dataset_is_refused(folder, server, build, tmp_path):
    tars = tuple(f"{server.address}/{path.name}" for path in sorted(folder.glob("*.tar")))
    index_tars(IndexTarsConfig(tars, tmp_path / "indexed", workers=1))
    with pytest.raises(InputError, match="lies in the dataset"):
        build(tmp_path / "indexed", cache_dir=tmp_path / "indexed" / "kept")


def test_a_run_tells_of_its_cache(server, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "train.py"
    options = "--max-steps 30 --data.global-batch-size 4 --data.num-threads 1 --log.every-steps 10"
    options = [*options.split(), "--task.size", "16", "--output-dir", tmp_path / "run"]
    options += ["--data.path", server.address, "--data.cache-dir", tmp_path / "kept"]
    run_child(tool, "kolesnikov19_rotation_smoke", *options, check=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, *_, last = map(json.loads, lines)
    assert first["cache_fetched_mb"] > 1
    assert (last["cache_hit_share"], last["cache_fetched_mb"]) == (1, 0)
