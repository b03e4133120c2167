"""Runs that hang: who holds them up is named, all ranks end, and the next start goes on.

Real ranks, a limit of seconds. Ten times the longest so far is allowed, whatever a busy machine
makes of a step.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastssl.ops.jpeg import has_jpeg
from tests.conftest import NUM_SAMPLES
from tests.faults.test_kill import ROOT, flat, load_state, steps_done
from tests.holdings import list_children
from tests.nursery import Child, run_child
from tests.patience import is_alive, wait_until
from tests.small_runs import read_lines
from tests.stalls import Stall
from tests.training import hung_run

pytestmark = [pytest.mark.faults, pytest.mark.slow]

needs_jpeg = pytest.mark.skipif(not has_jpeg(), reason="needs the extension's JPEG decoder")
SCRIPT = Path(hung_run.__file__)
LIMIT = 2
HANGS_AT = 4
LAST_STEP = 8


def run(dataset_path, folder, kind="none", rank=0, ranks=2, limit=LIMIT, loader="native"):
    words = (SCRIPT, dataset_path, folder, kind, rank, HANGS_AT, limit, loader)
    return run_child(*words, ranks=ranks if ranks > 1 else 0)


def read_ending(folder):
    return json.loads((folder / "exit.json").read_text())


def assert_same_end(folder, whole):
    """Compare every tensor and the ledger of rank 0."""
    a, b = dict(flat(load_state(folder))), dict(flat(load_state(whole)))
    assert a.keys() == b.keys()
    different = [n for n in a if not (a[n].equal(b[n]) if hasattr(a[n], "equal") else a[n] == b[n])]
    assert different == []
    ledgers = [(place / "ledger.rank0.jsonl").read_bytes() for place in (folder, whole)]
    assert ledgers[0] == ledgers[1]


@pytest.fixture(scope="module")
def whole(dataset_path, tmp_path_factory):
    """Undisturbed runs, by number of ranks."""
    found = {}

    def get(ranks):
        if ranks not in found:
            found[ranks] = tmp_path_factory.mktemp("whole") / "run"
            done = run(dataset_path, found[ranks], ranks=ranks)
            assert done.returncode == 0, done.stderr
        return found[ranks]

    return get


@pytest.mark.parametrize(
    ("kind", "rank", "ranks"),
    [("forward", 0, 1), ("forward", 1, 2), ("backward", 0, 2), ("optimiser", 1, 2)],
)
def test_the_rank_that_hangs_is_named_and_the_next_start_goes_on(
    dataset_path, tmp_path, whole, kind, rank, ranks
):
    folder = tmp_path / "run"
    hung = run(dataset_path, folder, kind, rank, ranks)
    assert hung.returncode == 1
    ending = read_ending(folder)
    assert (ending["code"], ending["step"]) == (1, HANGS_AT - 1)
    assert ending["reason"].startswith(f"error: rank {rank} hangs: in {kind} of step {HANGS_AT} ")
    assert hung.stderr.count(ending["reason"]) == 1
    if ranks == 2:
        assert f"; rank {1 - rank} waits for it in " in ending["reason"]
    # The samples are those that the undisturbed run's ledger names.
    line = read_lines(whole(ranks) / f"ledger.rank{rank}.jsonl")[HANGS_AT - 1]
    ids = ", ".join(map(str, line["sample_ids"]))
    assert f"samples {ids} of shard-" in ending["reason"]
    assert "in deadlock" in (folder / "hang" / f"rank{rank}.txt").read_text()
    assert len(list((folder / "hang").glob("rank*.txt"))) == ranks
    again = run(dataset_path, folder, ranks=ranks)
    assert again.returncode == 0, again.stderr
    assert_same_end(folder, whole(ranks))


def list_alive(child):
    """List the children of a program that have not ended."""
    return [number for number in list_children(child.pid) if is_alive(number)]


def test_a_rank_that_was_stopped_is_named_by_the_other(dataset_path, tmp_path):
    # Rank 0: who else would write exit.json?
    child = Child((SCRIPT, dataset_path, tmp_path / "run", "stopped", 0, HANGS_AT, LIMIT), 2)
    try:
        wait_until((tmp_path / "run" / "exit.json").exists, "nobody says why", child)
        wait_until(lambda: len(list_alive(child)) == 1, "rank 1 stays", child)
        # torchrun would give it 30 seconds more.
        os.kill(list_alive(child)[0], signal.SIGKILL)
        assert child.wait() == 1
    finally:
        child.kill()
    ending = read_ending(tmp_path / "run")
    assert ending["code"] == 1
    assert re.match("error: rank 0 does not answer .*last heard of in ", ending["reason"])
    assert "; rank 1 waits for it in " in ending["reason"]


def test_a_stopped_rank_0_that_holds_the_store_is_named_by_ranks_without_a_launcher(
    dataset_path, tmp_path
):
    """Started by hand, rank 0 keeps the store that the others tell each other by."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = str(place.getsockname()[1])
    words = (SCRIPT, dataset_path, tmp_path / "run", "stopped", 0, HANGS_AT, LIMIT)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    children = [Child(words, RANK=str(rank), **meeting) for rank in range(2)]
    try:
        assert children[1].wait() == 1
        ending = read_ending(tmp_path / "run")
        assert children[0].poll() is None
        children[0].send_signal(signal.SIGCONT)
        assert children[0].wait() == 1
        assert read_ending(tmp_path / "run") == ending  # who wakes up too late does not deny it
    finally:
        for child in children:
            child.kill()
    assert ending["code"] == 1
    assert re.match("error: rank 0 does not answer .*last heard of in ", ending["reason"])
    assert "; rank 1 waits for it in " in ending["reason"]
    assert children[1].communicate()[1].count(ending["reason"]) == 1
    assert (tmp_path / "run" / "hang" / "rank1.txt").exists()


def test_a_checkpoint_that_is_never_written_is_named(dataset_path, tmp_path):
    run(dataset_path, tmp_path / "run", "checkpoint")
    reason = read_ending(tmp_path / "run")["reason"]
    assert "rank 0 hangs: in checkpoint of step 6 " in reason
    assert "samples" not in reason


def stop_workers(child, folder, ranks, rank):
    """Stop the loader workers of a rank with SIGSTOP, once it trains.

    Returns:
        Those, by process id.
    """
    wait_until(lambda: steps_done(folder) >= 2, "it does not train", child)
    trainers = sorted(list_children(child.pid)) if ranks > 1 else [child.pid]
    tracker = b"resource_tracker"
    workers = [
        number
        for number in list_children(trainers[rank])
        if tracker not in Path(f"/proc/{number}/cmdline").read_bytes()
    ]
    assert workers
    for number in workers:
        os.kill(number, signal.SIGSTOP)
    seen = -1
    while seen < (seen := steps_done(folder)):  # with the batches that lie ready
        time.sleep(1)
    return workers


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loader_that_hangs_is_named_with_the_samples_it_owes(dataset_path, tmp_path, ranks):
    folder = tmp_path / "run"
    words = (SCRIPT, dataset_path, folder, "endless", 0, 0, LIMIT, "webdataset")
    child = Child(words, ranks if ranks > 1 else 0)
    try:
        workers = stop_workers(child, folder, ranks, ranks - 1)
        assert child.wait() == 1
    finally:
        child.kill()
    reason = read_ending(folder)["reason"]
    assert re.match(rf"error: rank {ranks - 1} hangs: in data of step \d+ ", reason)
    assert re.search(r" samples [\d, ]+ of shard-\d{6}\.tar", reason)
    wait_until(lambda: not any(map(is_alive, workers)), "workers outlive their rank")


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_while_data_hangs_saves_on_all_ranks(dataset_path, tmp_path, ranks):
    folder = tmp_path / "run"
    words = (SCRIPT, dataset_path, folder, "endless", 0, 0, 0, "webdataset")
    child = Child(words, ranks if ranks > 1 else 0)
    try:
        stop_workers(child, folder, ranks, ranks - 1)
        seen = steps_done(folder)
        child.send_signal(signal.SIGTERM)
        child.wait()
    finally:
        child.kill()
    ending = read_ending(folder)
    assert ending["code"] == 75
    assert load_state(folder)["step"] == ending["step"] >= seen
    for rank in range(ranks):
        assert len(read_lines(folder / f"ledger.rank{rank}.jsonl")) == ending["step"]


@needs_jpeg
def test_sigterm_while_a_disk_stalls_saves_what_was_done(dataset_path, tmp_path):
    shards = shutil.copytree(dataset_path, tmp_path / "shards")
    stall = Stall(shards / "shard-000002.tar")
    folder = tmp_path / "run"
    child = Child((SCRIPT, shards, folder, "endless", 0, 0, 0, "native"))
    try:
        wait_until((folder / "config.json").exists, "it does not begin", child)
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 75
    finally:
        child.kill()
        stall.release()
    assert load_state(folder)["step"] == read_ending(folder)["step"]


def test_steps_that_take_longer_than_the_limit_are_no_hang(dataset_path, tmp_path):
    done = run(dataset_path, tmp_path / "run", "slow", ranks=1, limit=1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fakes_monotonic", [False, True], ids=["wall clock", "all clocks"])
def test_a_clock_that_jumps_is_no_hang(dataset_path, tmp_path, fakes_monotonic):
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("needs libfaketime (apt install libfaketime)")
    folder, clock = tmp_path / "run", tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "OMP_NUM_THREADS": "1",
        **({} if fakes_monotonic else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}),
    }
    words = (dataset_path, folder, "endless", 0, 0, 2, "native")
    process = subprocess.Popen(
        [sys.executable, "-m", hung_run.__name__, *map(str, words)], env=environment, cwd=ROOT
    )
    try:
        for jump in ("+3600", "-86400", "+0"):
            seen = steps_done(folder)
            wait_until(lambda: steps_done(folder) >= seen + 20, "no steps", process)  # noqa: B023
            clock.write_text(jump)
        seen = steps_done(folder)
        wait_until(lambda: steps_done(folder) >= seen + 20, "no steps", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    finally:
        process.kill()
    assert read_ending(folder)["code"] == 75


def test_a_run_that_was_stopped_for_longer_than_the_limit_goes_on(dataset_path, tmp_path):
    folder = tmp_path / "run"
    child = Child((SCRIPT, dataset_path, folder, "endless", 0, 0, 1, "native"), 2)
    try:
        wait_until(lambda: steps_done(folder) >= 20, "it does not train", child)
        family = [child.pid, *list_children(child.pid)]
        for number in family:
            os.kill(number, signal.SIGSTOP)
        time.sleep(4)
        for number in reversed(family):
            os.kill(number, signal.SIGCONT)
        seen = steps_done(folder)
        wait_until(lambda: steps_done(folder) >= seen + 20, "it does not go on", child)
        child.send_signal(signal.SIGTERM)
        child.wait()
    finally:
        child.kill()
    assert read_ending(folder)["code"] == 75
    assert steps_done(folder) * 8 > NUM_SAMPLES
