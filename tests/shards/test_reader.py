from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.shards import BadSample, ShardDataset, open_dataset, reader, store
from fastssl.shards.index import ROW, IndexHeader
from fastssl.shards.manifest import Manifest, ShardEntry
from fastssl.system.files import READ_TRIES
from tests.holdings import list_open_files


@pytest.fixture
def no_wait(monkeypatch):
    monkeypatch.setattr(reader, "RETRY_WAIT_S", 0.0)


def test_samples_are_located_in_uneven_shards(folder):
    dataset = open_dataset(folder)
    assert [dataset.locate(i)[0] for i in range(12)] == [0] * 5 + [1] * 5 + [2] * 2
    shards, offsets, lengths = dataset.locate_many([11, 0, 5])
    assert shards.tolist() == [2, 0, 1]
    assert offsets.tolist() == dataset.index["offset"][[11, 0, 5]].tolist()
    assert lengths.tolist() == dataset.index["length"][[11, 0, 5]].tolist()
    assert [dataset.shard_start(shard) for shard in range(3)] == [0, 5, 10]


@pytest.mark.parametrize("sample_id", [-1, 12])
def test_an_id_out_of_range_is_an_index_error(folder, sample_id):
    with pytest.raises(IndexError, match=r"0 \.\. 11"):
        open_dataset(folder).read_payload(sample_id)


def test_a_pickled_dataset_reads_the_same(folder):
    dataset = open_dataset(folder)
    dataset.read_payload(3)
    state = pickle.dumps(dataset)
    assert len(state) < 1000
    assert pickle.loads(state).read_payload(3) == dataset.read_payload(3)


def test_a_dataset_that_was_replaced_does_not_unpickle(folder, photographs, make_dataset):
    state = pickle.dumps(open_dataset(folder))
    other, _ = make_dataset(photographs, "other", seed=1)
    folder.rename(folder.with_name("old"))
    other.rename(folder)
    with pytest.raises(InputError, match="replaced meanwhile"):
        pickle.loads(state)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_read_the_same(folder, method):
    dataset = open_dataset(folder)
    wanted = [dataset.read_payload(i) for i in range(12)]
    with ProcessPoolExecutor(2, get_context(method)) as pool:
        assert list(pool.map(dataset.read_payload, range(12))) == wanted


def test_threads_read_while_shards_are_closed_behind_them(folder, monkeypatch):
    monkeypatch.setattr(store, "MAX_OPEN_FILES", 1)
    dataset = open_dataset(folder)
    wanted = [dataset.read_payload(i) for i in range(12)]
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 12, 300):
            try:
                if dataset.read_payload(i) != wanted[i]:
                    wrong.append(i)
            except BadSample as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_ctrl_c_is_lost_where_rows_are_checked(folder):
    """NumPy asks objects for attributes, and drops what is raised in Python code that answers."""
    asked = []

    def note(frame, event, _argument):
        if event == "call" and frame.f_code.co_name in ("__getattr__", "__getattribute__"):
            asked.append(frame.f_code.co_filename)

    dataset = open_dataset(folder)
    sys.setprofile(note)
    try:
        dataset.check_rows()
    finally:
        sys.setprofile(None)
    assert asked == []


def test_close_leaves_no_file_open(folder):
    before = list_open_files()
    dataset = open_dataset(folder)
    for i in range(12):
        dataset.read_payload(i)
    # Three shards and the mapped index.
    assert len(list_open_files() - before) == 4
    dataset.close()
    assert list_open_files() <= before


def test_changed_bytes_are_a_bad_sample(folder):
    dataset = open_dataset(folder)
    _, offset, length = dataset.locate(7)
    with (folder / "shard-000001.tar").open("r+b") as file:
        file.seek(offset + length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(BadSample, match="CRC-32") as caught:
        dataset.read_payload(7)
    assert caught.value.sample_id == 7
    dataset.read_payload(8)


@pytest.mark.usefixtures("no_wait")
def test_a_shard_that_was_cut_after_opening_is_a_bad_sample(folder):
    dataset = open_dataset(folder)
    _, offset, _ = dataset.locate(8)
    os.truncate(folder / "shard-000001.tar", offset + 10)
    with pytest.raises(BadSample, match=r"shard-000001\.tar: 10 of \d+ bytes"):
        dataset.read_payload(8)
    dataset.read_payload(7)


@pytest.mark.usefixtures("no_wait")
def test_a_shard_that_went_after_opening_is_a_bad_sample(folder):
    dataset = open_dataset(folder)
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(BadSample, match="No such file"):
        dataset.read_payload(8)


@pytest.mark.parametrize("num_failures", [1, 2, 3])
@pytest.mark.usefixtures("no_wait")
def test_io_errors_are_tried_again(folder, monkeypatch, num_failures):
    dataset = open_dataset(folder)
    wanted = dataset.read_payload(0)
    pread, failures = os.pread, [None] * num_failures

    def faulty(*arguments):
        if failures:
            failures.pop()
            raise OSError(5, "Input/output error")
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", faulty)
    if num_failures < READ_TRIES:
        assert dataset.read_payload(0) == wanted
    else:
        with pytest.raises(BadSample, match="Input/output error"):
            dataset.read_payload(0)


def test_short_reads_are_put_together(folder, monkeypatch):
    dataset = open_dataset(folder)
    wanted = dataset.read_payload(0)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, offset: pread(fd, min(n, 100), offset))
    assert dataset.read_payload(0) == wanted


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def break_by_version(folder):
    edit_manifest(folder, format_version=6)


def break_by_another_versions_field(folder):
    edit_manifest(folder, additions=[dict.fromkeys(("num_read", "num_samples", "num_shards"), 1)])


def break_by_a_later_versions_field(folder):
    names = ("listing_sha256", "num_read", "num_samples", "num_shards", "bytes_in", "skipped")
    edit_manifest(folder, additions=[dict.fromkeys(names, 1)])


def break_by_digest(folder):
    edit_manifest(folder, digest="ab" * 32)


def break_by_count(folder):
    edit_manifest(folder, num_samples=11)


def break_by_garbage(folder):
    (folder / "manifest.json").write_text("{")


def break_by_unknown_key(folder):
    edit_manifest(folder, surprise=1)


def break_by_removing_manifest(folder):
    (folder / "manifest.json").unlink()


def break_by_removing_index(folder):
    (folder / "index.bin").unlink()


def break_by_cutting_index(folder):
    os.truncate(folder / "index.bin", 100)


def break_by_removing_shard(folder):
    (folder / "shard-000001.tar").unlink()


def break_by_cutting_shard(folder):
    os.truncate(folder / "shard-000001.tar", 1000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_by_version, "format version 6, this fastssl reads 1 to 5"),
        (break_by_another_versions_field, "not a whole manifest"),
        (break_by_a_later_versions_field, "says more than version 1 can"),
        (break_by_digest, "of two datasets"),
        (break_by_count, r"12 samples in index\.bin, 11 in manifest\.json, 12 in its shards"),
        (break_by_garbage, "not a manifest"),
        (break_by_unknown_key, "not a whole manifest"),
        (break_by_removing_manifest, r"no manifest\.json.*make one of it"),
        (break_by_removing_index, r"index\.bin: the index is missing"),
        (break_by_cutting_index, r"100 bytes, wanted 448 for 12 samples"),
        (break_by_removing_shard, r"shard-000001\.tar: the shard is missing"),
        (break_by_cutting_shard, r"shard-000001\.tar: 1000 bytes, \d+ were written"),
    ],
)
def test_a_damaged_dataset_is_refused_with_a_remedy(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        open_dataset(folder)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder; wanted a dataset"):
        open_dataset(tmp_path / "file")
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"folder; did you mean '.*/photos'\?; wanted a dataset"):
        open_dataset(tmp_path / "photo")


def test_opening_copies_no_index(tmp_path):
    # 20 million samples, as a file with holes: 640 MB if anything read or copied it.
    count = 20_000_000
    (tmp_path / "shard-000000.tar").touch()
    manifest = Manifest(
        num_samples=count,
        digest="ab" * 32,
        encoding="keep",
        encoding_options={},
        shuffle_seed=0,
        samples_per_shard=count,
        class_names=(),
        num_labelled=0,
        num_read=count,
        bytes_in=0,
        skipped={},
        listing_sha256="cd" * 32,
        shards=(ShardEntry("shard-000000.tar", count, 0, "ef" * 32),),
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    with (tmp_path / "index.bin").open("wb") as file:
        file.write(IndexHeader(count, "ab" * 32).pack())
        file.truncate(64 + count * ROW.itemsize)

    def private_kb():
        # Clean pages of a mapped file are the page cache's: the kernel drops them at will.
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

    before = private_kb()
    dataset = ShardDataset(tmp_path)
    dataset.locate_many(np.arange(0, count, count // 1000))
    assert isinstance(dataset.index, np.memmap)
    assert private_kb() - before < 20_000
