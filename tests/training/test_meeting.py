"""What ranks have to have in common; tests/faults/test_agents.py has real ones that have not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.system.machine import describe_code
from fastssl.training.meeting import Sight, compare_sights

HERE = Sight("near", "fastssl abc, torch 2", True, {"dataset_digest": "aa", "seed": 0})


def test_ranks_that_see_the_same_may_begin():
    far = dataclasses.replace(HERE, machine="far")
    compare_sights(Path("run"), [HERE, far, HERE])


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        (
            {"code": "fastssl def, torch 2"},
            "rank 2 on far runs fastssl def, torch 2; rank 0 on near runs fastssl abc, torch 2: ",
        ),
        (
            {"has_run": False},
            r"rank 2 on far does not see what rank 0 on near writes to --output-dir \(run\)",
        ),
        (
            {"settings": {**HERE.settings, "dataset_digest": "bb"}},
            "rank 2 on far has dataset_digest 'bb', rank 0 on near has 'aa'; give all machines",
        ),
        ({"settings": {"dataset_digest": "aa"}}, "rank 2 on far has seed None, .* has 0"),
    ],
)
def test_the_first_that_differs_is_named(difference, message):
    far = dataclasses.replace(HERE, machine="far", **difference)
    with pytest.raises(InputError, match=message):
        compare_sights(Path("run"), [HERE, HERE, far])


def test_code_is_all_of_the_package_and_what_it_rests_on():
    code = describe_code()
    assert code == describe_code()
    for name in ("fastssl ", "Python ", "torch ", "NumPy ", "Pillow ", "libjpeg-turbo "):
        assert name in code
