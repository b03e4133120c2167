"""Checkpoints: killed, damaged and refused by the disk while they are written."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fastssl.training.checkpoint import CheckpointStore
from tests.faults.case import Case, Outcomes
from tests.faults.soak import compare_runs, make_dataset
from tests.nursery import Child, run_child
from tests.patience import wait_until
from tests.training import cmc_run

SIZE = 200_000
SAVER = f"""
import sys
from pathlib import Path
import torch
from fastssl.training.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), 2)
step = store.find_newest() or 0
print(step, flush=True)
while True:
    step += 1
    store.save(step, {{"step": step, "w": torch.full(({SIZE},), float(step))}})
    store.wait()
    print(step, flush=True)
"""
BANK_RUN = Path(cmc_run.__file__)
MAX_WAIT_S = 0.06
"""A save takes some hundredths of a second."""


def check_newest(folder: Path, at_least: int) -> str:
    """Return what is wrong with the newest checkpoint, or nothing."""
    store = CheckpointStore(folder, 2)
    step = store.find_newest()
    if step is None or step < at_least:
        return f"step {at_least} was saved, {step} is the newest"
    state = store.load(step)
    is_whole = state["step"] == step and torch.equal(state["w"], torch.full((SIZE,), float(step)))
    return "" if is_whole else f"step {step} holds another state"


def kill_while_saving(folder: Path, rng: random.Random) -> Outcomes:
    """Kill a process that saves without pause, at any moment; the next one goes on from there."""
    newest = 0
    while True:
        process = Child(["-c", SAVER, folder])
        # What it found; the first one has to leave something.
        wanted = 1 if newest else 2
        wait_until(lambda: len(process.list_lines()) >= wanted, "nothing is saved", process)  # noqa: B023
        time.sleep(rng.uniform(0, MAX_WAIT_S))
        process.kill()
        process.wait()
        newest = max(newest, *map(int, process.list_lines()))
        yield check_newest(folder, newest)


def save_steps(folder: Path, *steps: int) -> CheckpointStore:
    """Save some steps."""
    store = CheckpointStore(folder, 2)
    for step in steps:
        store.save(step, {"step": step, "w": torch.full((SIZE,), float(step))})
    store.wait()
    return store


def damage(path: Path, is_cut: bool, rng: random.Random) -> int:
    """Cut a file, or flip a bit of it; return where."""
    whole = path.read_bytes()
    place = rng.randrange(len(whole))
    flipped = b"" if is_cut else bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]
    path.write_bytes(whole[:place] + flipped)
    return place


def damage_newest(folder: Path, rng: random.Random) -> Outcomes:
    """Cut or flip every file of the newest checkpoint: the one before it is taken, and no other."""
    save_steps(folder, 1, 2)
    newest = folder / f"{2:09d}"
    for number in itertools.count():
        for name in ("state.pt", "manifest.json", "../latest"):
            path = newest / name
            whole = path.read_bytes()
            place = damage(path, bool(number % 2), rng)
            # A manifest that still says the same, and a pointer to what is there, are no damage.
            outcome = check_newest(folder, 1)
            aside = folder / f"{2:09d}.damaged"
            if aside.exists():
                aside.rename(newest)
            elif name == "state.pt" and not outcome:
                outcome = f"{name} is damaged at {place} and was taken"
            path.write_bytes(whole)
            yield outcome


def damage_newest_of_ranks(folder: Path, rng: random.Random) -> Outcomes:
    """Do so where two ranks hold a memory bank: the run goes on and ends as the undisturbed one."""
    dataset, saved, whole = make_dataset(folder), folder / "saved", folder / "whole"
    run_child(BANK_RUN, dataset, whole, 6, -1, ranks=2, check=True)
    run_child(BANK_RUN, dataset, saved, 4, -1, ranks=2, check=True)
    ranks = ("bank.00000.rows", "bank.00001.rows")
    for number in itertools.count():
        for name in (*ranks, "state.pt", "manifest.json", "../latest"):
            run = shutil.copytree(saved, folder / "run")
            path = run / "checkpoints" / f"{4:09d}" / name
            place = damage(path, bool(number % 2), rng)
            done = run_child(BANK_RUN, dataset, run, 6, -1, ranks=2)
            outcome = done.stderr[-300:] if done.returncode else compare_runs(whole, run, 6)
            newest = [end / "checkpoints" / f"{6:09d}" for end in (whole, run)]
            if not outcome:
                differ = [n for n in ranks if len({(p / n).read_bytes() for p in newest}) > 1]
                outcome = f"the ends differ in {differ}" if differ else ""
            # A manifest that still says the same, and a pointer to what is there, are no damage.
            is_taken = name in (*ranks, "state.pt") and f"{4:09d} is damaged" not in done.stderr
            outcome = outcome or ("it was taken" if is_taken else "")
            yield f"{name} is damaged at {place}: {outcome}" if outcome else ""
            shutil.rmtree(run)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a file system of four megabytes; needs root."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill_disk(folder: Path, rng: random.Random) -> Outcomes:
    """Save where the disk has room for any part of a checkpoint, or none."""
    with small_disk(folder / "disk") as disk:
        checkpoints, step = disk / "checkpoints", 1
        save_steps(checkpoints, step)
        while True:
            room = rng.randrange(2_000_000)
            stat = disk.stat and subprocess.run(
                ["df", "--output=avail", "-B1", str(disk)], capture_output=True, check=True
            )
            left = int(stat.stdout.split()[-1])
            (disk / "filler").write_bytes(bytes(max(0, left - room)))
            try:
                save_steps(checkpoints, step + 1)
                step += 1
            except OSError:
                pass
            outcome = check_newest(checkpoints, step)
            (disk / "filler").unlink()
            yield outcome or ("" if not list(checkpoints.glob(".tmp-*")) else "half is left")


def make_read_only(folder: Path, rng: random.Random) -> Outcomes:
    """Take the right to write away and give it back, as a file system does after an error."""
    with small_disk(folder / "disk") as disk:
        for step in itertools.count(1):
            store = save_steps(disk / "checkpoints", step)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            said = ""
            for ahead in range(1, rng.randrange(2, 4)):
                store.save(step + ahead, {"step": step + ahead, "w": torch.zeros(SIZE)})
            try:
                store.wait()
            except OSError as error:
                said = str(error)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            outcome = check_newest(disk / "checkpoints", step)
            yield outcome or ("" if "Read-only" in said else f"it said {said!r}")


def list_cases() -> list[Case]:
    """Return the cases of this module."""
    return [
        Case("kill -9 while a checkpoint is saved", 200, kill_while_saving),
        Case("files of the newest checkpoint cut or flipped", 300, damage_newest),
        Case("files of ranks that hold a memory bank cut or flipped", 100, damage_newest_of_ranks),
        Case("a disk that is full at any byte of a checkpoint", 100, fill_disk),
        Case("a disk that turns read-only", 50, make_read_only),
    ]
