"""A conversion is stopped in every way there is; what comes out is always the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.manifest import BUILDING_NAME
from tests.patience import HANGS_AFTER_S, is_alive, wait_until

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def many_photographs(tmp_path_factory, draw_photograph, encode):
    """160 JPEGs and a bad file: a second of work for 17 shards."""
    source = tmp_path_factory.mktemp("source") / "many"
    content = [encode(draw_photograph(seed, 400, 300), quality=95) for seed in range(8)]
    for number in range(160):
        path = source / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[number % 8] + number.to_bytes(2, "little"))
    (source / "class0/bad.jpg").write_bytes(b"no image")
    return source


def start(source: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "tools/make_shards.py", str(source), str(out)]
    command += ["--samples-per-shard", "10", "--workers", "2", *more]
    # A group of its own: a signal to it reaches the workers too.
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_shards(out: Path, process: subprocess.Popen, num_shards: int) -> int:
    """Wait until so many shards are published; return how many there are."""
    while process.poll() is None:
        found = len(list(out.glob("shard-*.tar")))
        if found >= num_shards and (out / BUILDING_NAME).is_dir():
            return found
        time.sleep(0.002)
    pytest.fail(f"ended too early: {process.stderr.read()}")


def children_of(process_id: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process_id}/task").glob("*"):
        found += map(int, (task / "children").read_text().split())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, many_photographs, read_tree):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    convert(ConvertConfig(many_photographs, out, samples_per_shard=10, workers=1))
    return read_tree(out)


def test_kill_9_at_several_moments_changes_no_byte(
    tmp_path, many_photographs, undisturbed, read_tree
):
    out = tmp_path / "out"
    for num_shards in (0, 1, 6, 12):
        process = start(many_photographs, out, "--resume")
        wait_for_shards(out, process, num_shards)
        process.kill()
        process.wait()
        assert not (out / "manifest.json").exists()
    process = start(many_photographs, out, "--resume", "true")
    assert process.wait(timeout=HANGS_AFTER_S) == 0
    assert read_tree(out) == undisturbed


def test_finished_shards_are_not_made_again(tmp_path, many_photographs):
    out = tmp_path / "out"
    process = start(many_photographs, out)
    wait_for_shards(out, process, 5)
    process.kill()
    process.wait()
    finished = [
        (out / f"shard-{record.stem[-6:]}.tar").stat()
        for record in (out / BUILDING_NAME).glob("slice-*.json")
    ]
    assert len(finished) >= 3
    assert start(many_photographs, out, "--resume").wait(timeout=HANGS_AFTER_S) == 0
    inodes = {path.stat().st_ino: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    for status in finished:
        assert inodes[status.st_ino] == status.st_mtime_ns


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_to_the_group_stops_with_75_and_resume_goes_on(
    tmp_path, many_photographs, undisturbed, read_tree, name
):
    out = tmp_path / "out"
    process = start(many_photographs, out)
    wait_for_shards(out, process, 3)
    os.killpg(process.pid, getattr(signal, name))
    _, errors = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 75
    assert errors.splitlines()[-1].startswith(f"stopped: {name}")
    assert not list((out / BUILDING_NAME).glob("*.tmp"))
    assert start(many_photographs, out, "--resume").wait(timeout=HANGS_AFTER_S) == 0
    assert read_tree(out) == undisturbed


def test_workers_die_with_their_parent(tmp_path, many_photographs):
    out = tmp_path / "out"
    process = start(many_photographs, out)
    wait_for_shards(out, process, 1)
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, workers)), "workers outlive the command")


def test_a_killed_worker_is_named_and_resume_goes_on(
    tmp_path, many_photographs, undisturbed, read_tree
):
    out = tmp_path / "out"
    process = start(many_photographs, out)
    wait_for_shards(out, process, 2)
    # One of the children is the resource tracker of multiprocessing.
    workers = [
        child
        for child in children_of(process.pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 1
    assert "the worker process at shard-0000" in errors.splitlines()[-1]
    assert start(many_photographs, out, "--resume").wait(timeout=HANGS_AFTER_S) == 0
    assert read_tree(out) == undisturbed


def stop_early(many_photographs, out):
    process = start(many_photographs, out)
    wait_for_shards(out, process, 1)
    process.kill()
    process.wait()


def test_an_unfinished_target_wants_resume(tmp_path, many_photographs, make_dataset):
    stop_early(many_photographs, tmp_path / "out")
    with pytest.raises(InputError, match="add --resume"):
        make_dataset(many_photographs, "out")
    with pytest.raises(InputError, match=r"not a finished dataset.*--resume"):
        open_dataset(tmp_path / "out")


def test_resume_with_other_options_lists_them(tmp_path, many_photographs, make_dataset):
    stop_early(many_photographs, tmp_path / "out")
    with pytest.raises(InputError) as caught:
        make_dataset(many_photographs, "out", resume=True, seed=7, samples_per_shard=11)
    assert "order was --seed 0, now --seed 7" in str(caught.value)
    assert "--samples-per-shard was 10, now 11" in str(caught.value)


def test_resume_with_another_source_is_refused(tmp_path, many_photographs, make_dataset):
    stop_early(many_photographs, tmp_path / "out")
    options = {"resume": True, "samples_per_shard": 10}
    with pytest.raises(InputError, match=r"SOURCE was .*/many, now"):
        make_dataset(many_photographs / "class1", "out", **options)
    added = many_photographs / "class1/added.jpg"
    added.write_bytes(b"")
    try:
        with pytest.raises(InputError, match="162 entries now, 161 when"):
            make_dataset(many_photographs, "out", **options)
    finally:
        added.unlink()


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["plain", "resume"])
def test_two_conversions_in_one_target_are_refused(tmp_path, many_photographs, run_tool, options):
    out = tmp_path / "out"
    process = start(many_photographs, out)
    wait_for_shards(out, process, 1)
    process.send_signal(signal.SIGSTOP)
    try:
        second = run_tool("make_shards.py", many_photographs, out, *options)
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=HANGS_AFTER_S) == 0
    assert second.returncode == 2
    assert "another fastssl make-shards is at work" in second.stderr


def test_resume_of_a_finished_dataset_says_so(tmp_path, photographs, make_dataset, run_tool):
    out, report = make_dataset(photographs)
    done = run_tool("make_shards.py", photographs, out, "--resume", "--json", tmp_path / "r.json")
    assert done.returncode == 0
    assert "finished already" in done.stdout
    again = json.loads((tmp_path / "r.json").read_text())
    for name in ("read", "written", "skipped", "bytes_in", "bytes_out"):
        assert again[name] == getattr(report, name)
    with pytest.raises(InputError, match="--encode was keep, now resized"):
        make_dataset(photographs, resume=True, encode="resized")
    with pytest.raises(InputError, match="holds a finished dataset"):
        make_dataset(photographs)


# --- Disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_one_line_and_resume_goes_on(
    small_disk, many_photographs, undisturbed, read_tree
):
    out = small_disk / "out"
    process = start(many_photographs, out)
    _, errors = process.communicate(timeout=HANGS_AFTER_S)
    last = errors.splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("error: ")
    assert "No space left on device" in last
    assert last.endswith("go on by the same command with --resume")
    assert "Traceback" not in errors
    assert not (out / "manifest.json").exists()
    assert not list((out / BUILDING_NAME).glob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert start(many_photographs, out, "--resume").wait(timeout=HANGS_AFTER_S) == 0
    assert read_tree(out) == undisturbed


def test_a_read_only_target_is_one_line(small_disk, photographs, run_tool):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run_tool("make_shards.py", photographs, small_disk / "out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr


def test_a_file_size_limit_publishes_nothing_half_done(tmp_path, many_photographs):
    out = tmp_path / "out"
    command = f"ulimit -f 100; exec {sys.executable} tools/make_shards.py {many_photographs} {out}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not list(out.glob("shard-*"))
    assert not list((out / BUILDING_NAME).glob("*.tmp"))
