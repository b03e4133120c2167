"""A conversion on Ray: the same bytes, whatever dies; a machine that sees other things is named."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastssl.errors import InputError, RunFailed, StoppedBySignal
from fastssl.shards.making.convert import ConvertConfig, _check_account, convert
from fastssl.shards.making.encode import Encoding
from fastssl.shards.making.on_ray import Sight, check_sights, convert_leased
from fastssl.shards.making.plan import load_plan, make_plan
from fastssl.shards.making.slices import SliceRecord, convert_slice
from fastssl.shards.making.sources import open_source
from fastssl.shards.manifest import BUILDING_NAME
from fastssl.shards.picture import LIMITS
from fastssl.system.ray_jobs import Node
from tests.patience import is_alive, wait_until

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
OPTIONS = {"samples_per_shard": 4, "workers": 1}


def find_holder(path: Path) -> int | None:
    """Return the worker of Ray's whose child has a file open."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is somebody else's
            files = Path(f"/proc/{number}/fd")
            if str(path) in [os.readlink(files / one) for one in os.listdir(files)]:
                stat = Path(f"/proc/{number}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                if Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"ray::shard-"):
                    return parent
    return None


@pytest.fixture
def held(tmp_path):
    """A target whose first lease is held, and what lets go of it when Ray's worker waits there."""
    lease = tmp_path / "out" / BUILDING_NAME / "slice-000000.lease"
    lease.parent.mkdir(parents=True)
    told: list[int] = []
    with lease.open("wb") as file, contextlib.ExitStack() as stack:
        fcntl.flock(file, fcntl.LOCK_EX)

        def when_waiting(act):
            def wait():
                try:
                    wait_until(lambda: find_holder(lease), "a worker that waits for the lease")
                    told.append(find_holder(lease))
                    act(told[0])
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)

            thread = threading.Thread(target=wait)
            thread.start()
            stack.callback(thread.join)
            return told

        yield when_waiting


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.faults
def test_a_conversion_on_ray_is_byte_equal_though_a_worker_dies(
    photographs, tmp_path, read_tree, held
):
    (photographs / "cat" / "bad.jpg").write_bytes(b"no image")
    told = convert(ConvertConfig(photographs, tmp_path / "alone", **OPTIONS))
    # Ray's own process: what it has started dies with it.
    killed = held(lambda worker: os.kill(worker, signal.SIGKILL))
    wanted = ConvertConfig(photographs, tmp_path / "out", **OPTIONS, ray="local", resume=True)
    report = convert(wanted)
    assert len(killed) == 1
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "alone")
    assert (report.read, report.written, report.skipped) == (13, 12, {"non-image": 1})
    assert replace(report, seconds=0.0) == replace(told, seconds=0.0)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.faults
def test_a_signal_stops_it_on_ray_and_it_goes_on_without(photographs, tmp_path, read_tree, held):
    convert(ConvertConfig(photographs, tmp_path / "alone", **OPTIONS))
    stopped = held(lambda _: os.kill(os.getpid(), signal.SIGTERM))
    wanted = ConvertConfig(photographs, tmp_path / "out", **OPTIONS, ray="local", resume=True)
    with pytest.raises(StoppedBySignal, match="go on by the same command with --resume"):
        convert(wanted)
    wait_until(lambda: not is_alive(stopped[0]), "the end of Ray's worker")
    convert(replace(wanted, ray=""))
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "alone")


def test_without_ray_one_line_says_how_to_install_it(photographs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'a conversion on Ray needs it: pip install "fastssl\['):
        convert(ConvertConfig(photographs, tmp_path / "out", **OPTIONS, ray="local"))
    assert not (tmp_path / "out").exists()


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.parametrize("place", ["auto", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_one_line_before_anything_is_made(
    photographs, tmp_path, place
):
    with pytest.raises(InputError, match=rf"--ray \({place}\) cannot be reached .*give that of a"):
        convert(ConvertConfig(photographs, tmp_path / "out", **OPTIONS, ray=place))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def begun(photographs, tmp_path):
    """A conversion that has a plan and no shard."""
    out = tmp_path / "begun"
    (out / BUILDING_NAME).mkdir(parents=True)
    source = open_source(photographs)
    make_plan(photographs, source, Encoding(), None, 4, LIMITS, 30, out / BUILDING_NAME)
    return out


def test_who_has_the_lease_next_takes_what_is_finished(begun):
    plan = load_plan(begun / BUILDING_NAME)
    made = convert_slice(1, lambda _: None, begun, plan)
    before = (begun / "shard-000001.tar").stat()
    reported = []
    assert convert_leased(1, reported.append, begun, plan) == made
    assert (begun / "shard-000001.tar").stat() == before
    assert reported == [4]
    assert convert_leased(0, reported.append, begun, plan).samples == 4
    assert sum(reported) == 8


def test_an_entry_that_is_neither_written_nor_left_out_is_found(tmp_path):
    with pytest.raises(RunFailed, match=r"shard-000002\.tar: 4 entries read, 3 written and 0"):
        _check_account(tmp_path, 2, SliceRecord(samples=3), 4)


HERE = Sight("fastssl abc, Python 3.11", "plan", (("a.jpg", "0" * 64), ("b.jpg", "missing")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": "fastssl def"}, r"far \(10\.0\.0\.2\) runs fastssl def; here runs fastssl abc"),
        ({"plan": "", "source": ()}, "sees nothing of the conversion in out; the machines have to"),
        ({"plan": "other"}, "sees another conversion in out"),
        (
            {"source": (("a.jpg", "0" * 64), ("b.jpg", "1" * 64))},
            r"reads other bytes of b\.jpg than this machine \(111111111111, here missing\)",
        ),
    ],
)
def test_a_machine_that_sees_something_else_is_named(change, said):
    check_sights(Path("out"), HERE, {Node("1", "near (10.0.0.1)"): HERE})
    with pytest.raises(InputError, match=said):
        check_sights(Path("out"), HERE, {Node("2", "far (10.0.0.2)"): replace(HERE, **change)})
