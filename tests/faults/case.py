"""A fault that is tried again and again, and what became of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Outcomes = Iterator[str]
"""One a try: empty where all held, else what was lost."""


@dataclass(frozen=True)
class Case:
    """One kind of fault."""

    name: str
    """A few words."""
    times: int
    """Tries of the long form; 0: as many as the time allows that the case is given."""
    attempt: Callable[[Path, random.Random], Outcomes]
    """Takes an empty folder and tries without end, or until there is nothing more to try."""


@dataclass(frozen=True)
class Tally:
    """How a case went."""

    tried: int
    """Tries."""
    lost: list[str]
    """What was lost in those where something was."""


def run_case(case: Case, folder: Path, times: int | None = None) -> Tally:
    """Try a case.

    Args:
        case: the case.
        folder: an empty folder.
        times: tries at most; None takes the case's own.
    """
    lost, tried = [], 0
    wanted = case.times if times is None else times
    outcomes = case.attempt(folder, random.Random(case.name))
    for outcome in outcomes:
        tried += 1
        if outcome:
            lost.append(outcome)
        if tried == wanted:
            break
    return Tally(tried, lost)
