"""Ctrl-C at a terminal, at any moment of commands that have processes at work."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from pathlib import Path

from fastssl.benchmarks.scale import repeat_samples
from tests.faults.case import Case, Outcomes
from tests.faults.soak import make_dataset
from tests.patience import wait_until
from tests.terminal import STOPPED, Terminal, last_line

NUM_SAMPLES = 1_000_000
"""Minutes of work."""
WITHIN_S = 1.5
"""From the first bar to the key, or at once: rows are checked, workers start, or are at work."""
COMMANDS = (
    ("make-beton", "{data}", "--out", "{out}/x.beton", "--workers", "2"),
    ("check-shards", "{data}", "--workers", "2"),
    ("color-prior", "{data}", "{out}/prior.json", "--loader", "webdataset"),
)


def press(folder: Path, rng: random.Random) -> Outcomes:
    """Press it once: one line says so, and nothing stays behind."""
    data = folder / "long"
    data.mkdir()
    repeat_samples(make_dataset(folder), data, NUM_SAMPLES)
    for number in itertools.count():
        out = folder / f"out{number}"
        out.mkdir()
        words = [word.format(data=data, out=out) for word in COMMANDS[number % len(COMMANDS)]]
        with contextlib.closing(Terminal("-m", "fastssl", *words)) as terminal:
            try:
                terminal.wait_for("0%|")
                time.sleep(max(0.0, rng.uniform(-WITHIN_S, WITHIN_S)))
                terminal.press()
                wrong = judge(terminal.wait(), terminal.said, out)
                wait_until(lambda: not has_processes(terminal.pid), "processes stay")
            except AssertionError as error:
                wrong = f"it does not end: {error}"
            yield wrong and f"{words[0]}: {wrong}"


def judge(code: int, said: str, out: Path) -> str:
    """Return what is wrong with an end."""
    if (code, last_line(said)) != (1, STOPPED) or "Traceback" in said:
        return f"exit {code}: {said}"
    left = [path.name for path in out.iterdir()]
    return f"left behind: {', '.join(left)}" if left else ""


def has_processes(session: int) -> bool:
    """Tell whether a command's group of processes, or any of it, is there."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def list_cases() -> list[Case]:
    """Return the case."""
    return [Case("Ctrl-C at any moment of commands with processes at work", 200, press)]
