"""Datasets in an object store: a real web server on this machine."""

from __future__ import annotations

import base64
import dataclasses
import gc
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import traceback
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.shards import BadSample, open_dataset
from fastssl.shards.index import HEADER_BYTES
from fastssl.system import files
from tests.nursery import run_child

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')

import fsspec

from fastssl.shards import cache, remote, web

pytestmark = pytest.mark.usefixtures("serve")
PATIENCE = [(web, "HEADERS_S"), (web, "TRICKLE_S"), (web, "UNTOLD_S")]
PATIENCE += [(remote, "CONNECT_TIMEOUT_S"), (remote, "READ_TIMEOUT_S")]


@pytest.fixture(scope="module")
def master(tmp_path_factory, draw_photograph, encode):
    """A dataset of twelve samples in three shards; tests get copies."""
    from fastssl.shards.making.convert import ConvertConfig, convert

    root = tmp_path_factory.mktemp("store")
    for number in range(12):
        path = root / "photographs" / ("cat", "dog")[number % 2] / f"image{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw_photograph(number)))
    convert(ConvertConfig(root / "photographs", root / "dataset", samples_per_shard=5, workers=1))
    return root / "dataset"


@pytest.fixture
def folder(master, tmp_path):
    return shutil.copytree(master, tmp_path / "served" / "ds").parent / "ds"


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Try again at once, and give a busy machine time; tests of time limits set their own."""
    monkeypatch.setattr(cache, "OPEN_RETRY_WAIT_S", 0.0)
    for module, name in PATIENCE:
        monkeypatch.setattr(module, name, remote.REQUEST_TIMEOUT_S)


@pytest.fixture
def server(serve, folder):
    return serve(folder.parent)


@pytest.fixture
def address(server):
    return f"{server.address}/ds"


def asked_for(server, name):
    return [part for asked, part in server.asked if asked == f"ds/{name}"]


def test_a_remote_dataset_reads_as_the_folder(folder, address):
    local, remote_one = open_dataset(folder), open_dataset(address)
    assert remote_one.path == address
    assert remote_one.digest == local.digest
    assert remote_one.class_names == ("cat", "dog")
    assert (remote_one.index == local.index).all()
    name = "shard-000000.tar"
    assert remote_one._store.state(name).size == local._store.state(name).size
    for i in range(12):
        assert remote_one.read_payload(i) == local.read_payload(i)
        assert remote_one.read_members(i) == local.read_members(i)
        assert remote_one.read_metadata(i) == local.read_metadata(i)


def test_an_address_may_have_lost_a_slash_in_a_path(folder, address):
    assert open_dataset(Path(address)).digest == open_dataset(folder).digest


def test_a_sample_is_one_request_for_its_own_bytes(server, address):
    dataset = open_dataset(address)
    server.asked.clear()
    dataset.read_payload(7)
    _, offset, length = dataset.locate(7)
    assert server.asked == [("ds/shard-000001.tar", f"bytes={offset}-{offset + length - 1}")]


def test_opening_asks_for_no_shard(server, address):
    open_dataset(address)
    assert {name for name, _ in server.asked} == {"ds/manifest.json", "ds/index.bin"}


def test_the_index_is_fetched_once_and_mapped_from_the_cache(server, address, tmp_path):
    digest = open_dataset(address).digest
    server.asked.clear()
    again = open_dataset(address)
    assert server.asked == [("ds/manifest.json", None)]
    assert isinstance(again.index, np.memmap)
    assert Path(again.index.filename) == tmp_path / "cache" / digest / "index.bin"


def test_without_a_named_cache_it_lies_where_xdg_says(address, tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSSL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    dataset = open_dataset(address)
    assert Path(dataset.index.filename).is_relative_to(tmp_path / "xdg" / "fastssl")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ranks_that_start_together_fetch_the_index_once(server, address):
    server.delay_s = 0.1
    with ProcessPoolExecutor(4, get_context("fork")) as pool:
        assert len(set(pool.map(_open_and_digest, [address] * 4, chunksize=1))) == 1
    rows = [part for part in asked_for(server, "index.bin") if "bytes=0-" not in part]
    assert len(rows) == 1


def _open_and_digest(address):
    return open_dataset(address).digest


def test_an_index_of_several_chunks_is_put_together(server, folder, address, monkeypatch):
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 50)
    assert (open_dataset(address).index == open_dataset(folder).index).all()
    assert len(asked_for(server, "index.bin")) == 1 + -(-12 * 32 // 50)


def test_a_dataset_that_was_replaced_is_found_by_its_manifest(
    folder, address, photographs, make_dataset
):
    old = open_dataset(address).digest
    other, _ = make_dataset(photographs, "other", seed=1)
    shutil.rmtree(folder)
    other.rename(folder)
    new = open_dataset(address)
    assert new.digest != old
    assert [len(new.read_payload(i)) for i in range(12)] == new.index["length"].tolist()


def test_a_cut_index_in_the_cache_is_fetched_again(address):
    path = Path(open_dataset(address).index.filename)
    os.truncate(path, 100)
    open_dataset(address)
    assert path.stat().st_size == HEADER_BYTES + 12 * 32


def flip_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_damaged_index_in_the_store_is_refused_and_not_kept(folder, address, tmp_path):
    flip_byte(folder / "index.bin", 100)
    with pytest.raises(InputError, match=r"index\.bin: what it holds gives the digest"):
        open_dataset(address)
    assert not list((tmp_path / "cache").rglob("index.bin"))


@pytest.mark.parametrize("kind", ["503", "reset", "cut", "short", "ignore"])
def test_trouble_that_passes_costs_no_sample(server, folder, address, kind):
    dataset = open_dataset(address)
    server.troubled("ds/shard-000000.tar", kind, times=1)
    assert dataset.read_payload(0) == open_dataset(folder).read_payload(0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("503", "503"),
        ("reset", "ServerDisconnected|reset"),
        ("cut", "payload is not completed"),
        ("short", r"\d+ of \d+ bytes at \d+, then the shard ends"),
        ("ignore", "ignores Range and sends the whole file"),
        ("shifted", r"another range came \('bytes \d+-\d+/\d+'\) than was asked for"),
        ("wrong", "CRC-32"),
    ],
)
def test_trouble_that_stays_is_a_bad_sample(server, address, kind, reason):
    dataset = open_dataset(address)
    server.troubled("ds/shard-000000.tar", kind)
    server.asked.clear()
    with pytest.raises(BadSample, match=rf"shard-000000\.tar: .*({reason})"):
        dataset.read_payload(0)
    # aiohttp itself asks once more where a connection that it kept turns out to be dead. Bytes that
    # came whole and are others will not be better the next time.
    assert (1 if kind == "wrong" else 3) <= len(server.asked) <= 6
    dataset.read_payload(8)


def test_another_etag_in_the_middle_is_no_trouble_while_the_bytes_are_the_same(
    server, folder, address
):
    server.etag = '"one"'
    dataset, local = open_dataset(address), open_dataset(folder)
    assert dataset.read_payload(0) == local.read_payload(0)
    server.etag = '"another"'
    assert dataset.read_payload(0) == local.read_payload(0)


def test_a_shard_that_is_gone_is_a_bad_sample(folder, address):
    dataset = open_dataset(address)
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(BadSample, match=r"shard-000001\.tar: not found"):
        dataset.read_payload(8)


def test_a_shard_that_was_cut_is_a_bad_sample(folder, address):
    dataset = open_dataset(address)
    _, offset, _ = dataset.locate(8)
    os.truncate(folder / "shard-000001.tar", offset)
    with pytest.raises(BadSample, match=r"shard-000001\.tar: .*416"):
        dataset.read_payload(8)


def test_changed_bytes_are_a_bad_sample(folder, address):
    dataset = open_dataset(address)
    _, offset, length = dataset.locate(7)
    flip_byte(folder / "shard-000001.tar", offset + length // 2)
    with pytest.raises(BadSample, match="CRC-32"):
        dataset.read_payload(7)


def test_a_whole_shard_is_refused_before_its_bytes_come(server, address):
    dataset = open_dataset(address)
    server.troubled("ds/shard-000000.tar", "endless")
    with pytest.raises(BadSample, match=r"ignores Range .* 1,099,511,627,776 bytes"):
        dataset.read_payload(0)
    # What fits in the sockets' buffers, three times.
    assert server.num_sent < 64 << 20


def test_a_store_that_never_answers_is_given_up(server, address, monkeypatch):
    dataset = open_dataset(address)
    monkeypatch.setattr(remote, "REQUEST_TIMEOUT_S", 0.2)
    server.troubled("ds/shard-000000.tar", "hang")
    with pytest.raises(BadSample, match="no answer in time"):
        dataset.read_payload(0)


@pytest.mark.parametrize("kind", ["503", "reset", "cut"])
@pytest.mark.parametrize("name", ["manifest.json", "index.bin"])
def test_trouble_that_passes_does_not_keep_a_dataset_shut(server, address, name, kind):
    server.troubled(f"ds/{name}", kind, times=2)
    assert len(open_dataset(address)) == 12


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("503", r"index\.bin: .*503.*tried 3 times"),
        ("short", r"index\.bin: 32 of 64 bytes at 0"),
        ("ignore", r"ignores Range .*knows Range requests .*not python -m http\.server"),
    ],
)
def test_trouble_that_stays_is_told_when_opening(server, address, kind, message):
    server.troubled("ds/index.bin", kind)
    with pytest.raises(InputError, match=message):
        open_dataset(address)


# ------------------------------------------------------------------ a server that means harm


ENDLESS = ["endless", "endless range", "endless chunks", "endless without a length"]


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["manifest.json", "index.bin"])
def test_a_body_without_end_is_not_read_on(server, address, monkeypatch, name, kind):
    monkeypatch.setattr(cache, "MAX_MANIFEST_BYTES", 1 << 20)
    server.troubled(f"ds/{name}", kind)
    with pytest.raises(InputError, match=f"{name}: .*(at most|ignores Range|status 206)"):
        open_dataset(address)
    # What fits in the sockets' buffers, and in a manifest.
    assert server.num_sent < 32 << 20
    assert len(asked_for(server, name)) <= 3


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_body_without_end_is_a_bad_sample(server, address, kind):
    dataset = open_dataset(address)
    server.troubled("ds/shard-000000.tar", kind)
    with pytest.raises(BadSample, match=r"shard-000000\.tar: .*(asked for|ignores Range)"):
        dataset.read_payload(0)
    assert server.num_sent < 96 << 20


def test_compressed_answers_are_refused_and_never_unpacked(server, address):
    server.troubled("ds/manifest.json", "gzip")
    with pytest.raises(InputError, match=r"sent compressed \(gzip\); have the server send"):
        open_dataset(address)


@pytest.mark.parametrize(("kind", "told"), [("trickle", r"\d+ bytes in"), ("headers", "0.5 s")])
def test_an_answer_that_trickles_is_given_up_at_once(server, address, monkeypatch, kind, told):
    monkeypatch.setattr(web, "TRICKLE_S", 0.2)
    monkeypatch.setattr(web, "HEADERS_S", 0.5)
    server.troubled("ds/manifest.json", kind)
    with pytest.raises(InputError, match=rf"no answer in time \({told}.*then start again"):
        open_dataset(address)
    assert len(asked_for(server, "manifest.json")) == 1


@pytest.fixture
def other(serve, folder):
    """Another server with the same dataset."""
    return serve(folder.parent)


def test_a_redirect_on_the_same_server_is_followed(server, address, folder):
    server.troubled("ds/shard-000000.tar", "/ds/moved.tar")
    shutil.copy(folder / "shard-000000.tar", folder / "moved.tar")
    dataset = open_dataset(address)
    assert dataset.read_payload(0) == open_dataset(folder).read_payload(0)


def test_a_redirect_to_another_server_is_refused_unless_it_is_allowed(
    server, other, address, monkeypatch
):
    server.troubled("ds/manifest.json", f"{other.address}/ds/manifest.json")
    with pytest.raises(InputError, match=r"redirected to another server, .*FASTSSL_REDIRECT_HOSTS"):
        open_dataset(address)
    assert other.asked == []
    monkeypatch.setenv("FASTSSL_REDIRECT_HOSTS", "elsewhere, 127.0.0.1")
    assert len(open_dataset(address)) == 12
    assert other.asked == [("ds/manifest.json", None)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://169.254.169.254/latest/meta-data", "a link-local address"),
        ("http://[fe80::1]/x", "a link-local address"),
        ("http://[::ffff:169.254.169.254]/x", "a link-local address"),
        ("ftp://127.0.0.1/x", "not protected"),
        ("http://[::bad", "leads nowhere"),
        ("/ds/manifest.json", "more than 5 redirects"),
    ],
)
def test_a_redirect_never_leads_to_some_places(server, address, monkeypatch, target, message):
    monkeypatch.setenv("FASTSSL_REDIRECT_HOSTS", "*")
    server.troubled("ds/manifest.json", target)
    with pytest.raises(InputError, match=message):
        open_dataset(address)


def test_a_password_is_used_and_never_told(server, other, address, monkeypatch, caplog):
    server.password = ("anna", "s3cret")
    with_password = address.replace("://", "://anna:s3cret@")
    with caplog.at_level(logging.DEBUG, "fastssl"):
        dataset = open_dataset(with_password)
    assert str(dataset.path) == address
    assert pickle.loads(pickle.dumps(dataset)).read_payload(0) == dataset.read_payload(0)
    told = [caplog.text]
    server.password, other.password = ("anna", "another"), ("anna", "s3cret")
    with pytest.raises(BadSample, match="denied") as bad:
        dataset.read_payload(5)
    with pytest.raises(InputError, match="denied") as denied:
        open_dataset(with_password)
    # Another server is not shown it.
    server.password = ("anna", "s3cret")
    monkeypatch.setenv("FASTSSL_REDIRECT_HOSTS", "*")
    server.troubled("ds/manifest.json", f"{other.address}/ds/manifest.json")
    with pytest.raises(InputError, match="401") as elsewhere:
        open_dataset(with_password)
    nowhere = "http://anna:s3cret@127.0.0.1:1/ds"
    with pytest.raises(InputError) as unreachable:
        open_dataset(nowhere)
    for error in (bad, denied, elsewhere, unreachable):
        told += traceback.format_exception(error.value)  # their chains too
    assert "s3cret" not in "".join(told)


def test_a_header_of_the_users_own_stays_with_the_server_that_was_asked(
    server, other, address, monkeypatch
):
    token = base64.b64encode(b"anna:s3cret").decode()
    headers = {"headers": {"Authorization": f"Basic {token}"}}
    monkeypatch.setitem(fsspec.config.conf, "http", headers)
    server.password = other.password = ("anna", "s3cret")
    assert len(open_dataset(address)) == 12
    monkeypatch.setenv("FASTSSL_REDIRECT_HOSTS", "*")
    server.troubled("ds/manifest.json", f"{other.address}/ds/manifest.json")
    with pytest.raises(InputError, match="401"):
        open_dataset(address)


def test_a_netrc_keeps_the_password_out_of_the_address(server, address, tmp_path, monkeypatch):
    server.password = ("anna", "s3cret")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert len(open_dataset(address)) == 12


def test_an_index_that_no_disk_holds_is_refused(address, monkeypatch):
    monkeypatch.setattr(cache, "MAX_INDEX_BYTES", 100)
    with pytest.raises(InputError, match="448 bytes for 12 samples, at most 100 are fetched"):
        open_dataset(address)


@pytest.mark.usefixtures("aged")
def test_what_the_cache_has_no_room_for_is_not_begun(server):
    dataset = open_dataset(f"{server.address}/aged")
    entry = dataclasses.replace(dataset.manifest.targets[0], shape=(1 << 51,))
    with pytest.raises(InputError, match=r"takes 9,007,199,254,741,\d+ bytes, .* has room for"):
        cache.fetch_target(dataset._store, dataset.manifest, entry)


def test_an_address_without_a_dataset_is_refused(address):
    with pytest.raises(InputError, match=r"ds/nowhere/manifest\.json: not found .* upload it"):
        open_dataset(f"{address}/nowhere")


def test_a_page_is_no_manifest(folder, address):
    (folder / "manifest.json").write_text("<html>Welcome</html>")
    with pytest.raises(InputError, match=r"http.*manifest\.json: not a manifest of fastssl"):
        open_dataset(address)


def test_a_manifest_names_no_folder_outside_the_cache(folder, address):
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**fields, "digest": "../../elsewhere"}))
    with pytest.raises(InputError, match=r"\$\.digest"):
        open_dataset(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1/ds", "Cannot connect.*tried 3 times"),
        ("htps://host/ds", "protocol 'htps' is not known; did you mean 'https'"),
        ("https://host/ds?token=1", r"leave out what begins at '\?'"),
        ("memory://nowhere", r"manifest\.json: not found"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address, message):
    with pytest.raises(InputError, match=message):
        open_dataset(address)


def test_a_cache_that_cannot_be_written_is_named(address, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTSSL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set FASTSSL_CACHE to a folder that can be written"):
        open_dataset(address)


@pytest.mark.parametrize(
    ("absent", "address"),
    [("fsspec", "http://127.0.0.1:1/ds"), ("aiohttp", "http://127.0.0.1:1/ds"), ("s3fs", "s3://b")],
)
def test_an_absent_package_is_told_with_the_line_that_installs_it(absent, address):
    script = f"""
import sys
sys.modules[{absent!r}] = None  # what an import then meets is what it meets without the package
from fastssl.errors import InputError
from fastssl.shards import open_dataset
try:
    open_dataset({address!r})
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith(f"{address}: reading it needs ")
    assert done.stdout.rstrip().endswith('pip install "fastssl[scale]"')


def test_a_file_address_is_a_folder(folder):
    assert open_dataset(f"file://{folder}").folder == folder


def test_what_needs_a_folder_says_so(address):
    with pytest.raises(InputError, match="needs a dataset in a folder of this machine"):
        open_dataset(address).folder  # noqa: B018 - raises


def test_a_store_without_an_event_loop_reads_the_same(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/sets/ds", recursive=True)
    try:
        dataset = open_dataset("memory://sets/ds")
        assert dataset.read_payload(3) == open_dataset(folder).read_payload(3)
    finally:
        memory.rm("/sets", recursive=True)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_read_after_the_parent_has_read(folder, address, method):
    local, dataset = open_dataset(folder), open_dataset(address)
    wanted = [local.read_payload(i) for i in range(12)]
    assert dataset.read_payload(0) == wanted[0]
    with ProcessPoolExecutor(2, get_context(method)) as pool:
        assert list(pool.map(dataset.read_payload, range(12))) == wanted
        # The parent's own connections are still whole.
        assert [dataset.read_payload(i) for i in range(12)] == wanted


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_lets_go_of_a_dataset_leaves_the_parents_connections_alone(
    folder, address, monkeypatch
):
    # Where the child closes what it inherited, the parent's next answer never comes.
    monkeypatch.setattr(remote, "REQUEST_TIMEOUT_S", 30.0)
    monkeypatch.setattr(files, "READ_TRIES", 1)
    dataset = open_dataset(address)
    wanted = open_dataset(folder).read_payload(3)
    assert dataset.read_payload(3) == wanted
    child = get_context("fork").Process(target=dataset.close)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert dataset.read_payload(3) == wanted


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_collects_no_connection_that_the_parent_has_left(address):
    dataset = open_dataset(address)
    dataset.read_payload(0)
    filesystem = weakref.ref(dataset._store._connection.filesystem)
    gc.disable()
    try:
        del dataset
        assert filesystem() is not None  # fsspec's refer to themselves
        child = os.fork()
        if child == 0:
            gc.collect()
            os._exit(filesystem() is None)
    finally:
        gc.enable()
    assert os.waitpid(child, 0)[1] == 0


FORKING = """
import sys, threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from fastssl.shards import open_dataset

dataset, local = map(open_dataset, sys.argv[1:])
wanted = [local.read_payload(i) for i in range(12)]
wrong, stop = [], threading.Event()

def work():
    while not stop.is_set():
        wrong.extend(i for i in range(12) if dataset.read_payload(i) != wanted[i])

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
try:
    for _ in range(3):
        with ProcessPoolExecutor(2, get_context("fork")) as pool:
            assert list(pool.map(dataset.read_payload, range(12))) == wanted
finally:
    stop.set()
    for thread in threads:
        thread.join()
assert wrong == []
"""


def test_a_fork_in_the_middle_of_reads_by_threads(server, folder, address):
    """In a process of its own, with no threads but these; one that lost a child would say so."""
    server.delay_s = 0.01
    run_child("-c", FORKING, address, folder, check=True)


def test_a_pickled_remote_dataset_is_small_and_reads_the_same(address):
    dataset = open_dataset(address)
    state = pickle.dumps(dataset)
    assert len(state) < 1000
    assert pickle.loads(state).read_payload(3) == dataset.read_payload(3)


def test_requests_ahead_are_under_way_together(server, folder, address):
    dataset = open_dataset(address)
    server.num_together = 6
    futures = dataset.fetch_ahead(np.arange(12))
    local = open_dataset(folder)
    assert [futures[i].result() for i in range(12)] == [local.read_payload(i) for i in range(12)]
    assert server.most_at_once >= 6


def test_of_a_folder_nothing_is_read_ahead(folder):
    assert open_dataset(folder).fetch_ahead([0, 1]) == {}


def test_closing_gives_up_what_was_asked_for_ahead(server, address):
    dataset = open_dataset(address)
    server.trouble = lambda _name: "hang"
    futures = dataset.fetch_ahead(list(range(12)) * 4)
    dataset.close()
    assert sum(future.cancelled() for future in futures.values()) >= 32
    with pytest.raises(IndexError):
        dataset.read_payload(0)


# --- Targets --------------------------------------------------------------------------------------


@pytest.fixture
def aged(master, server):
    """The same twelve samples with an array, served beside the others."""
    from fastssl.shards.making.convert import ConvertConfig, convert

    table = master.parent / "photographs/table.csv"
    rows = [f"{('cat', 'dog')[n % 2]}/image{n}.jpg,,{n}.5\n" for n in range(12)]
    table.write_text("path,label,age\n" + "".join(rows))
    folder = Path(server.folder) / "aged"
    convert(ConvertConfig(table, folder, targets=("age:float32",), workers=1))
    table.unlink()
    return folder


def test_a_target_is_fetched_once_and_only_when_it_is_asked_for(server, aged, tmp_path):
    address = f"{server.address}/aged"
    dataset = open_dataset(address)
    assert "age" in dataset.targets
    asked = [name for name, _ in server.asked if "targets" in name]
    assert asked == []
    for one in (dataset, open_dataset(address), pickle.loads(pickle.dumps(dataset))):
        age = one.targets["age"]
        assert isinstance(age, np.memmap)
        assert (age == open_dataset(aged).targets["age"]).all()
    asked = [name for name, _ in server.asked if "targets" in name]
    assert asked == ["aged/targets/age.npy"]
    assert (tmp_path / "cache" / dataset.digest / "targets/age.npy").exists()


def test_a_target_of_several_chunks_is_put_together(server, aged, monkeypatch):
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 50)
    age = open_dataset(f"{server.address}/aged").targets["age"]
    assert (age == open_dataset(aged).targets["age"]).all()


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_target_in_the_store_is_refused_and_not_kept(server, aged, tmp_path, damage):
    path = aged / "targets/age.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x" if damage == "changed" else content[:-1])
    if damage == "missing":
        path.unlink()
    dataset = open_dataset(f"{server.address}/aged")
    with pytest.raises(InputError, match=r"aged/targets/age\.npy: "):
        _ = dataset.targets["age"]
    assert not (tmp_path / "cache" / dataset.digest / "targets/age.npy").exists()


@pytest.mark.usefixtures("aged")
def test_a_cut_target_in_the_cache_is_fetched_again(server, tmp_path):
    address = f"{server.address}/aged"
    digest, age = (one := open_dataset(address)).digest, one.targets["age"].copy()
    os.truncate(tmp_path / "cache" / digest / "targets/age.npy", 140)
    assert (open_dataset(address).targets["age"] == age).all()
