"""The short form of the faults: a few tries of each; ``make faults`` takes many."""

from __future__ import annotations

import os

import pytest

from tests.faults import presses, saving, soak, training
from tests.faults.case import Case, run_case

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CASES = [case for module in (saving, training, presses) for case in module.list_cases()]
FEW = {
    "a key of the state is lost": 12,  # one of every part
    "files of the newest checkpoint cut or flipped": 24,
    "files of ranks that hold a memory bank cut or flipped": 4,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_few_tries_lose_nothing(tmp_path, case):
    if "disk" in case.name and os.geteuid() != 0:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    tally = run_case(case, tmp_path, FEW.get(case.name, 2))
    assert tally.tried > 0
    assert tally.lost == []


def test_a_soak_of_seconds_equals_the_undisturbed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "MINUTES", 0.1)
    monkeypatch.setattr(soak, "BETWEEN_S", (1.0, 3.0))
    case = soak.list_cases()[-1]
    assert run_case(case, tmp_path).lost == []


def test_what_is_lost_is_counted(tmp_path):
    case = Case("every third", 6, lambda _folder, _rng: iter(["", "", "gone"] * 9))
    tally = run_case(case, tmp_path)
    assert (tally.tried, tally.lost) == (6, ["gone", "gone"])
