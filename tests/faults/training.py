"""Whole runs: signals, data that never come, corrupt pictures, what is not a number, keys lost."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.training import train
from tests.conftest import save_photograph
from tests.faults.case import Case, Outcomes
from tests.faults.soak import make_dataset
from tests.faults.test_kill import EVERY, descendants, flat, load_state, steps_done, words
from tests.nursery import Child, run_child
from tests.patience import is_alive, wait_until
from tests.small_runs import LEAPING, make_config

STUCK = "the run does not get on"
LONG = ["--schedule.epochs", "100000", "--max-steps", "100000000"]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
SAVED = 15
"""Step of the state that keys are taken out of."""
HANDLED = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGUSR1"


def read_ending(folder: Path) -> dict[str, Any]:
    """Return what ``exit.json`` says; nothing if there is none."""
    path = folder / "exit.json"
    return json.loads(path.read_text()) if path.exists() else {}


def describe_stop(folder: Path, num_ranks: int, at_least: int) -> str:
    """Return what a stop by a signal did not keep, or nothing."""
    ending = read_ending(folder)
    if ending.get("code") != 75:
        return f"it ended with {ending}"
    step = ending["step"]
    if load_state(folder)["step"] != step or step < at_least:
        return f"step {step} of at least {at_least}, saved is {load_state(folder)['step']}"
    ledgers = [folder / f"ledger.rank{rank}.jsonl" for rank in range(num_ranks)]
    lines = {path.read_bytes().count(b"\n") for path in ledgers}
    return "" if lines == {step} else f"step {step}, the ledgers have {lines} lines"


def send_signals(folder: Path, rng: random.Random) -> Outcomes:
    """Send a signal to the launcher or to one rank, in any step; the same run goes on each time."""
    dataset, run_folder = make_dataset(folder), folder / "run"
    while True:
        process = Child([HANDLED, *words(dataset, run_folder, LONG)], ranks=2)
        before = steps_done(run_folder)
        wanted = before + rng.randrange(1, 12)
        wait_until(lambda: steps_done(run_folder) >= wanted, STUCK, process)  # noqa: B023
        number, family = rng.choice(SIGNALS), descendants(process.pid)
        victim = rng.choice([process.pid, *family])
        os.kill(victim, number)
        process.wait()
        wait_until(lambda: not any(map(is_alive, family)), "ranks outlive the signal")  # noqa: B023
        outcome = describe_stop(run_folder, 2, wanted)
        yield (
            f"{number.name} to {'launcher' if victim == process.pid else 'rank'}: {outcome}"
            if (outcome)
            else ""
        )


def hang_loader(folder: Path, rng: random.Random) -> Outcomes:
    """Stop the processes of a loader for good, then ask for an end: what was done is saved."""
    dataset, run_folder = make_dataset(folder), folder / "run"
    loader = ["--data.loader", "webdataset"]
    while True:
        process = Child(words(dataset, run_folder, [*LONG, *loader]))
        wanted = steps_done(run_folder) + rng.randrange(1, 12)
        wait_until(lambda: steps_done(run_folder) >= wanted, STUCK, process)  # noqa: B023
        family = descendants(process.pid)
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(rng.choice(SIGNALS))
        process.wait()
        wait_until(lambda: not any(map(is_alive, family)), "workers outlive the run")  # noqa: B023
        yield describe_stop(run_folder, 1, wanted) if family else "there were no workers"


def corrupt_pictures(folder: Path, rng: random.Random) -> Outcomes:
    """Flip a bit in one picture of a hundred: each is named and replaced, and the run ends."""
    for number in range(300):
        save_photograph(folder / "photos" / f"{number:03d}.jpg", number)
    convert(ConvertConfig(folder / "photos", folder / "whole", samples_per_shard=64, workers=1))
    while True:
        shutil.copytree(folder / "whole", folder / "shards")
        bad = sorted(rng.sample(range(300), 3))
        dataset = open_dataset(folder / "shards")
        for sample_id in bad:
            shard, offset, length = dataset.locate(sample_id)
            with (folder / "shards" / dataset.manifest.shards[shard].name).open("r+b") as file:
                file.seek(offset + rng.randrange(length))
                old = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([old[0] ^ 1 << rng.randrange(8)]))
        dataset.close()
        epoch = ["--schedule.epochs", "1", "--max-steps", "1000"]
        done = run_child(*words(folder / "shards", folder / "run", epoch))
        lines = (folder / "run" / "ledger.rank0.jsonl").read_text().splitlines()
        named = [planned for line in lines for planned, _used in json.loads(line)["substituted"]]
        first_epoch = sorted(set(named))
        outcome = "" if done.returncode == 0 else done.stderr[-300:]
        yield outcome or ("" if first_epoch == bad else f"{bad} are bad, {named} are named")
        shutil.rmtree(folder / "shards")
        shutil.rmtree(folder / "run")


def spoil_one_rank(folder: Path, rng: random.Random) -> Outcomes:
    """Give one rank of two what is not a number, once or for good: no weight ever is one."""
    dataset = make_dataset(folder)
    for number in itertools.count():
        # Before the first step one pass outlines the memory and one settles DDP's buckets.
        place, first, lasts = folder / f"run{number}", rng.randrange(2, 10), number % 2
        _script, *arguments = words(dataset, place)
        done = run_child(
            *("-m", "tests.faults.nan_rank", *arguments),
            ranks=2,
            NAN_FROM=str(first),
            NAN_TO=str(first + (99 if lasts else 0)),
        )
        ending, has_saved = read_ending(place), any(place.glob("checkpoints/0*"))
        if not has_saved and not (lasts and first < EVERY + 2):
            yield f"no checkpoint: {done.stderr[-1000:]}"
            continue
        state = dict(flat(load_state(place))) if has_saved else {}
        numbers = [v for v in state.values() if torch.is_tensor(v) and v.is_floating_point()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
            yield "a checkpoint holds what is not a number"
        elif lasts:
            capsule = {path.name for path in place.glob("nonfinite/*/*")}
            is_told = ending["code"] == 1 and "(by rank 1 alone)" in ending["reason"]
            is_kept = {"capsule.json", "rank0.pt", "rank1.pt"} <= capsule
            yield "" if is_told and is_kept else f"{ending} {capsule}"
        else:
            skipped = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])["skipped"]
            is_held = done.returncode == 0 and skipped == 1
            yield "" if is_held else f"{ending}, {skipped} steps were skipped"


def list_keys(state: dict[str, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key of a state that a run cannot do without.

    Of the identity a field that an older fastssl did not have may be missing, of the machine all.
    """
    for key, value in state.items():
        if key != "machine":
            yield (*path, key)
            if isinstance(value, dict) and key != "identity":
                yield from list_keys(value, (*path, key))


def mix_parts(paths: list[tuple[Any, ...]], rng: random.Random) -> list[tuple[Any, ...]]:
    """Shuffle paths so that one of every part of the state comes first, then another of each."""
    rng.shuffle(paths)
    turns: Counter[Any] = Counter()

    def take_turn(path: tuple[Any, ...]) -> int:
        turns[path[0]] += 1
        return turns[path[0]]

    return sorted(paths, key=take_turn)


def without(state: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """Return a copy of a state without a key."""
    copied = part = copy.deepcopy(state)
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return copied


def lose_keys(folder: Path, rng: random.Random) -> Outcomes:
    """Take one key out of a saved state, its checksum made to fit: the resumed run is not the same.

    It is refused, or differs from the undisturbed one in the end.
    """
    dataset = make_dataset(folder)

    def train_to(name: str, step: int) -> dict[str, Any]:
        train(make_config(dataset, folder / name, max_steps=step, nested=LEAPING))
        return load_state(folder / name)

    # So far that the loss has leapt: what is left out is there to be missed.
    state, whole = train_to("saved", SAVED), dict(flat(train_to("whole", SAVED + 2)))
    assert state["left_out"]["first"]
    for older in (folder / "saved" / "checkpoints").glob("0*"):
        if int(older.name) != SAVED:
            shutil.rmtree(older)
    for path in mix_parts(list(list_keys(state)), rng):
        shutil.copytree(folder / "saved", folder / "run")
        checkpoint = folder / "run" / "checkpoints" / f"{SAVED:09d}"
        torch.save(without(state, path), checkpoint / "state.pt")
        content = (checkpoint / "state.pt").read_bytes()
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest = {"step": SAVED, "files": {"state.pt": entry}}
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
        name, outcome = ".".join(map(str, path)), ""
        try:
            end = dict(flat(train_to("run", SAVED + 2)))
        except InputError:
            pass
        except Exception as error:
            outcome = f"without {name}: {error!r}"
        else:
            is_same = end.keys() == whole.keys() and all(
                torch.equal(v, end[k]) if torch.is_tensor(v) else v == end[k]
                for k, v in whole.items()
            )
            outcome = f"nobody misses {name}" if is_same else ""
        shutil.rmtree(folder / "run")
        yield outcome


def list_cases() -> list[Case]:
    """Return the cases of this module."""
    return [
        Case("a signal to the launcher or to a rank", 40, send_signals),
        Case("a loader that hangs, then a signal", 10, hang_loader),
        Case("three of 300 pictures are corrupt", 20, corrupt_pictures),
        Case("what is not a number on one of two ranks", 20, spoil_one_rank),
        Case("a key of the state is lost", 1000, lose_keys),
    ]
