"""Checkpoints survive kills, damage and full disks."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import textwrap

import pytest
import torch

from fastssl.errors import InputError
from fastssl.training.checkpoint import CheckpointStore, find_damage
from tests.nursery import Child
from tests.patience import wait_until


def state(step):
    return {"step": step, "weights": {"w": torch.full((1000,), float(step))}, "list": [1, 2.5]}


def save(store, *steps):
    for step in steps:
        store.save(step, state(step))
    store.wait()


def steps_in(folder):
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


def test_newest_is_loaded_and_only_plain_values_are_in_it(tmp_path):
    save(CheckpointStore(tmp_path, 2), 5, 10)
    store = CheckpointStore(tmp_path, 2)
    assert store.find_newest() == 10
    loaded = store.load(10)
    assert loaded["step"] == 10
    assert torch.equal(loaded["weights"]["w"], torch.full((1000,), 10.0))
    assert (tmp_path / "latest").read_text() == "000000010"


def test_no_checkpoint_is_none(tmp_path):
    assert CheckpointStore(tmp_path / "none", 2).find_newest() is None


@pytest.mark.parametrize("keep", [2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    save(CheckpointStore(tmp_path, keep), 1, 2, 3, 4, 5)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5][-keep:]


# ------------------------------------------------------------------ what stands elsewhere


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "backup").write_text("precious")
    return folder


@pytest.mark.parametrize(
    "named",
    [
        "../victim/backup",
        "../victim",
        "{victim}",
        "..",
        ".",
        "",
        "5",
        "0000000005",
        "00000000\N{ARABIC-INDIC DIGIT FIVE}",
        "000000005\n../victim",
        "x" * 10000,
    ],
)
def test_latest_names_nine_digits_and_nothing_else(tmp_path, victim, caplog, named):
    checkpoints = tmp_path / "checkpoints"
    save(CheckpointStore(checkpoints, 2), 5, 10)
    (checkpoints / "latest").write_text(named.format(victim=victim))
    before = sorted(tmp_path.rglob("*"))
    with caplog.at_level(logging.WARNING):
        assert CheckpointStore(checkpoints, 2).find_newest() == 10
    assert "latest is damaged" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before
    assert (victim / "backup").read_text() == "precious"


def test_latest_alone_is_refused_so_that_no_log_is_cut(tmp_path):
    (tmp_path / "latest").write_text("../victim")
    with pytest.raises(InputError, match=r"latest \(it holds '\.\./victim', wanted nine digits\)"):
        CheckpointStore(tmp_path, 2).find_newest()


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_latest_that_is_no_file_is_passed_over(tmp_path, victim, kind):
    checkpoints = tmp_path / "checkpoints"
    save(CheckpointStore(checkpoints, 2), 5)
    path = checkpoints / "latest"
    path.unlink()
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.symlink_to(victim / "backup"))()
    assert CheckpointStore(checkpoints, 2).find_newest() == 5


def test_a_checkpoint_that_is_a_link_is_passed_over_and_its_target_let_be(tmp_path, victim):
    elsewhere = CheckpointStore(tmp_path / "elsewhere", 2)
    save(elsewhere, 10)
    checkpoints = tmp_path / "checkpoints"
    save(CheckpointStore(checkpoints, 2), 5)
    (checkpoints / "000000010").symlink_to(tmp_path / "elsewhere" / "000000010")
    (checkpoints / ".tmp-000000011").symlink_to(victim)
    store = CheckpointStore(checkpoints, 2)
    assert store.find_newest() == 5
    save(store, 10, 15, 20)
    assert elsewhere.find_newest() == 10
    assert (victim / "backup").read_text() == "precious"


@pytest.mark.usefixtures("victim")
def test_a_checkpoint_lists_files_of_its_own_alone(tmp_path):
    save(CheckpointStore(tmp_path / "checkpoints", 2), 5)
    folder = tmp_path / "checkpoints" / "000000005"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = {"bytes": 8, "sha256": hashlib.sha256(b"precious").hexdigest()}
    manifest["files"]["../../victim/backup"] = entry
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "which is no file of it" in find_damage(folder, 5)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_state_that_is_no_file_is_damage(tmp_path, kind):
    save(CheckpointStore(tmp_path, 2), 5)
    path = tmp_path / "000000005" / "state.pt"
    path.rename(tmp_path / "moved")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "moved")
    assert "wanted a regular file" in find_damage(path.parent, 5)


def test_a_snapshot_is_what_was_when_it_was_taken(tmp_path):
    store = CheckpointStore(tmp_path, 2)
    weights = torch.zeros(1_000_000)
    store.save(1, {"w": weights})
    weights.fill_(7)  # while the thread writes
    store.wait()
    assert not store.load(1)["w"].any()


def damages():
    def truncate(folder):
        os.truncate(folder / "state.pt", 1000)

    def flip(folder):
        content = bytearray((folder / "state.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "state.pt").write_bytes(content)

    def lose_state(folder):
        (folder / "state.pt").unlink()

    def lose_manifest(folder):
        (folder / "manifest.json").unlink()

    def empty_manifest(folder):
        (folder / "manifest.json").write_bytes(b"")

    def wrong_manifest(folder):
        (folder / "manifest.json").write_text('{"files": []}')

    return [truncate, flip, lose_state, lose_manifest, empty_manifest, wrong_manifest]


@pytest.mark.parametrize("damage", damages(), ids=lambda d: d.__name__)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage, caplog):
    save(CheckpointStore(tmp_path, 2), 5, 10)
    damage(tmp_path / "000000010")
    store = CheckpointStore(tmp_path, 2)
    with caplog.at_level(logging.WARNING):
        assert store.find_newest() == 5
    assert "000000010 is damaged" in caplog.text
    save(store, 10)  # the step's name is free again
    assert find_damage(tmp_path / "000000010", 10) is None


def test_every_truncation_and_many_flips_are_found(tmp_path):
    save(CheckpointStore(tmp_path, 2), 5)
    folder = tmp_path / "000000005"
    whole = (folder / "state.pt").read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 50)):
        (folder / "state.pt").write_bytes(whole[:position])
        assert find_damage(folder, 5) is not None
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        (folder / "state.pt").write_bytes(flipped)
        assert find_damage(folder, 5) is not None
    (folder / "state.pt").write_bytes(whole)
    assert find_damage(folder, 5) is None


def test_a_manifest_with_any_bit_flipped_is_found_or_says_the_same(tmp_path):
    store = CheckpointStore(tmp_path, 2)
    draft = store.open_draft(5)
    (draft / "memory.00000.rows").write_bytes(bytes(8))
    rows = {"sha256": hashlib.sha256(bytes(8)).hexdigest(), "bytes": 8, "table": "memory"}
    store.save(5, state(5), {"memory.00000.rows": {**rows, "rows": [0, 2]}})
    store.wait()
    path = tmp_path / "000000005" / "manifest.json"
    whole, (_, files) = path.read_bytes(), store.read_files(5)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 7
        path.write_bytes(flipped)
        if find_damage(path.parent, 5) is None:
            assert store.read_files(5)[1] == files, bytes(flipped[place - 9 : place + 9])


def test_a_manifest_without_a_checksum_of_its_own_is_taken(tmp_path):
    """As earlier versions wrote them."""
    save(CheckpointStore(tmp_path, 2), 5)
    path = tmp_path / "000000005" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    assert len(manifest.pop("sha256")) == 64
    path.write_text(json.dumps(manifest))
    assert CheckpointStore(tmp_path, 2).find_newest() == 5


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    save(CheckpointStore(tmp_path, 2), 5, 10)
    for step in (5, 10):
        (tmp_path / f"{step:09d}" / "state.pt").unlink()
    for _ in range(2):  # the second start must not take the run for a new one
        with pytest.raises(InputError, match=r"no checkpoint is whole: 000000010 .*, 000000005 "):
            CheckpointStore(tmp_path, 2).find_newest()


@pytest.mark.faults
def test_a_kill_at_any_moment_leaves_a_valid_checkpoint(tmp_path):
    """A process saves without pause and is killed at twenty arbitrary moments."""
    script = textwrap.dedent(
        f"""
        import torch
        from pathlib import Path
        from fastssl.training.checkpoint import CheckpointStore
        store = CheckpointStore(Path({str(tmp_path)!r}), 2)
        step = store.find_newest() or 0
        print(step, flush=True)
        while True:
            step += 1
            store.save(step, {{"step": step, "w": torch.full((200_000,), float(step))}})
            store.wait()
            print(step, flush=True)
        """
    )

    def start(num_saves):
        process = Child(["-c", script])
        # The step that it found, and those that it saved.
        wait_until(lambda: len(process.list_lines()) > num_saves, "nothing is saved", process)
        return process

    newest = 0
    for life in range(20):
        process = start(1 + life % 4)
        assert int(process.list_lines()[0]) >= newest, "a finished checkpoint was lost"
        # Somewhere inside the next save.
        torch.rand(1 + 3000 * (life * 7 % 20), 10).sum()
        process.kill()
        process.wait()
        newest = max(map(int, process.list_lines()))
        store = CheckpointStore(tmp_path, 2)
        step = store.find_newest()
        assert step >= newest
        assert torch.equal(store.load(step)["w"], torch.full((200_000,), float(step)))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.faults
def test_a_full_disk_keeps_the_old_and_is_reported(small_disk, caplog):
    store = CheckpointStore(small_disk / "checkpoints", 2)
    save(store, 1)
    (small_disk / "filler").write_bytes(bytes(1_900_000))
    store.save(2, {"w": torch.zeros(200_000)})
    with caplog.at_level(logging.ERROR):
        store.save(3, {"w": torch.zeros(200_000)})
    assert "No space left on device" in caplog.text
    assert "earlier ones are whole" in caplog.text
    with pytest.raises(OSError, match="No space left"):
        store.wait()
    again = CheckpointStore(small_disk / "checkpoints", 2)
    assert again.find_newest() == 1
    assert not list((small_disk / "checkpoints").glob(".tmp-*"))
    (small_disk / "filler").unlink()
    save(again, 4)
    assert again.find_newest() == 4


@pytest.mark.faults
def test_three_failed_saves_in_a_row_stop_the_run(small_disk):
    store = CheckpointStore(small_disk / "checkpoints", 2)
    (small_disk / "filler").write_bytes(bytes(1_900_000))
    for step in range(1, 4):  # the failure of one save is seen by the next
        store.save(step, {"w": torch.zeros(200_000)})
    with pytest.raises(OSError, match="No space left"):
        store.save(4, {"w": torch.zeros(200_000)})
