"""Datasets in S3: a real server of it on this machine."""

from __future__ import annotations

import importlib.util
import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from fastssl.errors import InputError
from fastssl.shards import BadSample, open_dataset, reader
from fastssl.shards.making.in_place import IndexTarsConfig, index_tars
from tests.range_server import RangeServer

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')

from fastssl.shards import cache


@pytest.fixture
def folder(photographs, make_dataset):
    """A dataset of twelve samples in three shards."""
    return make_dataset(photographs)[0]


@pytest.fixture(scope="module")
def s3_server():
    for package in ("s3fs", "moto", "flask"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server, folder, tmp_path, monkeypatch):
    """A bucket with the dataset at sets/ds."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
        "FASTSSL_CACHE": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(reader, "RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(cache, "OPEN_RETRY_WAIT_S", 0.0)
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.mkdir("bucket")
    filesystem.put(str(folder), "bucket/sets/ds", recursive=True)
    yield "s3://bucket"
    filesystem.rm("bucket", recursive=True)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_s3_reads_as_the_folder_in_parent_and_children(folder, bucket):
    local, dataset = open_dataset(folder), open_dataset(f"{bucket}/sets/ds")
    wanted = [local.read_payload(i) for i in range(12)]
    assert [dataset.read_payload(i) for i in range(12)] == wanted
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        assert list(pool.map(dataset.read_payload, range(12))) == wanted
    assert dataset.read_members(3) == local.read_members(3)


def test_s3_tells_a_missing_bucket_from_a_missing_dataset(bucket):
    with pytest.raises(InputError, match=r"manifest\.json: not found \(.*bucket does not exist"):
        open_dataset("s3://nobody/sets/ds")
    with pytest.raises(InputError, match=r"s3://bucket/else/manifest\.json: not found"):
        open_dataset(f"{bucket}/else")


def test_s3_without_credentials_says_how_to_give_them(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match=r"access denied .*credentials.*set AWS_PROFILE, or AWS_"):
        open_dataset(f"{bucket}/sets/ds")


def test_a_shard_that_is_gone_from_s3_is_a_bad_sample(bucket):
    import s3fs

    dataset = open_dataset(f"{bucket}/sets/ds")
    s3fs.S3FileSystem(skip_instance_cache=True).rm("bucket/sets/ds/shard-000001.tar")
    with pytest.raises(BadSample, match=r"shard-000001\.tar: not found"):
        dataset.read_payload(8)


def test_an_object_without_end_is_not_read_on(bucket, tmp_path, monkeypatch):
    server = RangeServer(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setattr(cache, "MAX_MANIFEST_BYTES", 1 << 20)
    server.trouble = lambda _name: "endless without a length"
    try:
        with pytest.raises(InputError, match=r"more bytes came than the 1,048,576 that were asked"):
            open_dataset(f"{bucket}/sets/ds")
        assert server.num_sent < 32 << 20
        assert [name for name, _ in server.asked] == ["bucket/sets/ds/manifest.json"]
    finally:
        server.stop()


def test_an_error_without_end_is_not_read_on(monkeypatch):
    """A store that denies with words without end; nothing is listed either."""
    from tests.hostile.stores import RawServer

    def deny(_name, _is_part):
        yield b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99999999999\r\n\r\n"
        while True:
            yield bytes(1 << 16)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = RawServer(deny)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setattr(cache, "OPEN_RETRY_WAIT_S", 0.0)
    with pytest.raises(InputError, match=r"at most 1,048,576 were asked for"):
        open_dataset("s3://bucket/ds")


def test_tars_in_s3_are_indexed_where_they_stand_and_found_changed(folder, bucket, tmp_path):
    import s3fs

    tars = f"{bucket}/sets/ds/shard-{{000000..000002}}.tar"
    index_tars(IndexTarsConfig((tars,), tmp_path / "far", workers=1))
    index_tars(IndexTarsConfig((str(folder),), tmp_path / "near", workers=1))
    far, near = open_dataset(tmp_path / "far"), open_dataset(tmp_path / "near")
    assert far.digest == near.digest
    assert [far.read_payload(i) for i in range(12)] == [near.read_payload(i) for i in range(12)]
    far.close()
    name = f"{bucket}/sets/ds/shard-000001.tar"
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.pipe_file(name, filesystem.cat_file(name)[:-1] + b"\1")
    with pytest.raises(
        InputError, match=r"shard-000001\.tar: its store calls it .* it has changed"
    ):
        open_dataset(tmp_path / "far")
