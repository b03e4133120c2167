"""A run of two ranks that is killed again and again; in the end it equals the undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from fastssl.shards.making.convert import ConvertConfig, convert
from tests.conftest import NUM_SAMPLES, save_photograph
from tests.faults.case import Case, Outcomes
from tests.faults.test_kill import BATCH, descendants, flat, load_state, read_ledgers, words
from tests.nursery import Child
from tests.patience import HANGS_AFTER_S, is_alive, wait_until

MINUTES = 30.0
"""How long it is killed."""
BETWEEN_S = (2.0, 20.0)
"""From one kill to the next."""
# The schedule is as long in both runs; how far they go is known when the killing has ended.
LONG = ["--schedule.epochs", "100000"]
LEAPING = [
    *("--spike.threshold", "2", "--spike.window", "50", "--spike.skip-steps", "6"),
    *("--spike.max-rollbacks", "10000"),
]
"""Noise is a leap now and then, and the run goes back."""
STARTING, STUCK = "the run does not start", "processes outlive their launcher"


def make_dataset(folder: Path) -> Path:
    """Make the suite's small dataset."""
    for number in range(NUM_SAMPLES):
        save_photograph(folder / "photos" / "abc"[number % 3] / f"{number:03d}.jpg", number)
    convert(ConvertConfig(folder / "photos", folder / "shards", samples_per_shard=9, workers=1))
    return folder / "shards"


def kill_some(process: Child, rng: random.Random) -> None:
    """Kill the launcher, one rank or all with -9; nothing of it is left."""
    family = descendants(process.pid)
    victims = rng.choice([[process.pid], [rng.choice(family or [process.pid])], [*family]])
    for pid in victims:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)), STUCK)


def compare_runs(whole: Path, killed: Path, last: int) -> str:
    """Return what differs between an undisturbed run and one that was killed."""
    states = [dict(flat(load_state(folder))) for folder in (whole, killed)]
    for name, value in states[0].items():
        other = states[1].get(name)
        is_equal = torch.equal(value, other) if torch.is_tensor(value) else value == other
        if not is_equal:
            return f"{name} differs"
    ledgers = [read_ledgers(folder) for folder in (whole, killed)]
    if list(ledgers[1]) != list(range(1, last + 1)):
        return f"the ledger has {len(ledgers[1])} steps of {last}"
    if ledgers[0] != ledgers[1]:
        return "the ledgers differ"
    seen = [pair for pairs in ledgers[1].values() for pair in pairs]
    if len(set(seen)) != len(seen):
        return f"{len(seen) - len(set(seen))} samples were used twice in an epoch"
    trunks = [(folder / "trunk.safetensors").read_bytes() for folder in (whole, killed)]
    return "" if trunks[0] == trunks[1] else "the exported trunks differ"


def soak(folder: Path, rng: random.Random, extra: Sequence[str] = ()) -> Outcomes:
    """Kill for some minutes; each life has to get on; then go to the end, and compare."""
    dataset, killed, whole = make_dataset(folder), folder / "killed", folder / "whole"
    options = [*LONG, *extra]
    ends, newest = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < ends:
        process = Child(words(dataset, killed, [*options, "--max-steps", "100000000"]), ranks=2)
        time.sleep(rng.uniform(*BETWEEN_S))
        has_ended = process.poll() is not None
        kill_some(process, rng)
        if has_ended:
            yield f"it ended by itself: {process.communicate()[1][-300:]}"
            continue
        steps = [int(path.name) for path in (killed / "checkpoints").glob("0*") if path.is_dir()]
        before, newest = newest, max([0, *(step for step in steps if step < 10**8)])
        has_lost = newest < before and not extra  # what leaps goes back
        yield f"step {before} was saved, {newest} is the newest" if has_lost else ""
    last = -(-(newest + 50) // NUM_SAMPLES) * NUM_SAMPLES  # ends with an epoch
    for place in (killed, whole):
        process = Child(words(dataset, place, [*options, "--max-steps", str(last)]), ranks=2)
        # The undisturbed run has to do what the other did in all its lives.
        process.wait(timeout=HANGS_AFTER_S + 180 * MINUTES)
    told = json.loads((killed / "exit.json").read_text())
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    num_back = sum('"rollback"' in line for line in lines)
    if extra and not num_back:
        yield "the loss never leapt"
    print(
        f"     step {last}, epoch {last * BATCH / NUM_SAMPLES:.0f}, {num_back} times back, "
        f"ended with {told}",
        flush=True,
    )
    yield compare_runs(whole, killed, last)


def list_cases() -> list[Case]:
    """Return the cases of this module."""
    leaping = partial(soak, extra=LEAPING)
    return [
        Case("two ranks killed at random, compared in the end", 0, soak),
        Case("two ranks that go back where the loss leaps, killed alike", 0, leaping),
    ]
